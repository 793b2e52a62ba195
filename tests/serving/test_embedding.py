"""The server in a program: a context manager, other threads, the fixture."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import bridge
from bridge.errors import BindError, ConfigError, LifespanFailed
from tests.support.apps import plain
from tests.support.running import APPS, REPOSITORY, Client, get

pytest_plugins = ["bridge.pytest_plugin"]


def hello(environ: dict[str, Any], start_response: Callable[..., object]) -> list[bytes]:
    start_response("200 OK", [("Content-Length", "5")])
    return [b"hello"]


@pytest.fixture(autouse=True)
def loggers() -> Any:
    """Leave the logger as it was: servers in programs without logging of their own set it up."""
    logger = logging.getLogger("bridge")
    before = (logger.handlers[:], logger.level, logger.propagate)
    yield
    logger.handlers[:], level, logger.propagate = before
    logger.setLevel(level)


async def fetch(server: bridge.Server) -> bytes:
    address = server.sockets[0].getsockname()
    return (await asyncio.to_thread(get, address))[2]


async def test_a_context_manager() -> None:
    async with bridge.Server(hello, port=0, access_log=False) as server:
        assert server.started
        assert server.url == f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        assert await fetch(server) == b"hello"
        address = server.sockets[0].getsockname()
    assert not server.started
    with pytest.raises(ConnectionRefusedError):
        get(address)


async def test_serve_until_should_exit() -> None:
    server = bridge.Server(bridge.Config(target="tests.support.apps.plain:asgi", port=0, access_log=False))
    started = asyncio.Event()
    server.on_started = started.set
    task = asyncio.create_task(server.serve())
    await started.wait()
    assert await fetch(server)
    assert not server.should_exit
    server.should_exit = True
    async with asyncio.timeout(5):
        await task


async def test_a_stop_before_the_start() -> None:
    server = bridge.Server(hello, port=0, access_log=False)
    server.should_exit = True
    async with asyncio.timeout(5):
        await server.serve()


async def test_failures_are_raised() -> None:
    async with bridge.Server(hello, port=0, access_log=False) as server:
        with pytest.raises(BindError, match="Address already in use"):
            await bridge.Server(hello, port=server.sockets[0].getsockname()[1]).startup()
    with pytest.raises(LifespanFailed, match="no database"):
        await bridge.Server(plain.refuses, port=0).startup()
    with pytest.raises(ConfigError, match="did you mean port"):
        bridge.Server(hello, prot=0)
    with pytest.raises(TypeError, match="beside a Config"):
        bridge.Server(bridge.Config(), port=0)


def test_the_fixture(bridge_server: Callable[..., bridge.Server]) -> None:
    one = bridge_server(hello)
    two = bridge_server(plain.asgi)
    assert get(one.sockets[0].getsockname())[2] == b"hello"
    assert get(two.sockets[0].getsockname())[0] == 200
    with pytest.raises(LifespanFailed):
        bridge_server(plain.refuses)


def test_a_thread_that_is_not_the_main_one() -> None:
    server = bridge.Server(hello, port=0, access_log=False)
    started = threading.Event()
    server.on_started = started.set
    thread = threading.Thread(target=server.run)
    thread.start()
    started.wait(10)
    with Client(server.sockets[0].getsockname()) as client:
        assert client.get()[2] == b"hello"
        server.should_exit = True
        assert client.closed()
    thread.join(10)
    assert not thread.is_alive()


@pytest.mark.slow
def test_run_with_workers() -> None:
    code = "import bridge, plain, sys; sys.exit(bridge.run(plain.asgi, port=0, workers=2))"
    from tests.support.running import Running

    with Running(command=[sys.executable, "-c", code]) as server:
        address = server.address()
        assert int(get(address)[2]) in server.workers()
        assert server.end() == 0


async def test_run_is_not_for_programs_with_a_loop() -> None:
    for options in ({}, {"workers": 1}):
        with pytest.raises(RuntimeError, match=r"beside a running loop use bridge\.Server"):
            bridge.run(hello, port=0, **options)


def test_workers_are_not_for_other_threads() -> None:
    faults: list[BaseException] = []

    def start() -> None:
        try:
            bridge.run(hello, port=0, workers=1)
        except RuntimeError as exc:
            faults.append(exc)

    thread = threading.Thread(target=start)
    thread.start()
    thread.join(10)
    assert "workers need the main thread" in str(faults[0])


def test_two_servers_in_one_loop() -> None:
    async def main() -> None:
        async with bridge.Server(hello, port=0, access_log=False) as one:
            async with bridge.Server(plain.wsgi, port=0, access_log=False) as two:
                assert await fetch(one) == b"hello"
                assert await fetch(two) != b"hello"
            assert await fetch(one) == b"hello"

    asyncio.run(main())


LEFT = """\
import asyncio, gc, os, re, signal, sys, threading
import bridge, plain
from tests.support.running import get

WATCHED = [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGTTIN,
           signal.SIGTTOU, signal.SIGCHLD]

def left():
    gc.collect()
    links = [os.readlink(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd") if name != "3"
             and os.path.exists(f"/proc/self/fd/{name}")]
    with open(f"/proc/self/task/{os.getpid()}/children") as children:
        return (len(links), sorted(thread.name for thread in threading.enumerate()), children.read(),
                [signal.getsignal(number) for number in WATCHED], sorted(os.listdir(sys.argv[1])))

def stop():
    threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGTERM)).start()

async def serve(app, path):
    async with bridge.Server(app, port=0, access_log=False) as server:
        address = server.sockets[0].getsockname()
        assert (await asyncio.to_thread(get, address, path))[0] == 200

def everything():
    asyncio.run(serve(plain.asgi, "/"))
    asyncio.run(serve(plain.wsgi, "/big/3000000"))
    for options in ({}, {"workers": 2}, {"reload": True, "reload_dir": sys.argv[1]}):
        stop()
        app = "plain:asgi" if "reload" in options else plain.asgi
        pid = os.path.join(sys.argv[1], "pid")
        assert bridge.run(app, bind=f"unix:{sys.argv[1]}/a.sock", pid=pid, **options) == 0
    while threading.active_count() > 1:
        pass

everything()
before = left()
everything()
after = left()
assert before == after, (before, after)
assert after[1] == ["MainThread"] and after[2] == "" and after[4] == [], after
"""


@pytest.mark.slow
def test_nothing_is_left_behind(tmp_path: Path) -> None:
    pytest.importorskip("watchfiles", reason="the extra `reload` is not installed")
    path = f"{REPOSITORY}:{APPS}"
    done = subprocess.run(
        [sys.executable, "-c", LEFT, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=APPS,
        env={**os.environ, "PYTHONPATH": path, "TMPDIR": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr


def test_nothing_heavy_is_imported_for_the_names() -> None:
    code = "import sys, bridge; assert 'asyncio' not in sys.modules; bridge.Config; assert 'asyncio' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30, cwd=REPOSITORY)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        bridge.nothing  # noqa: B018
    assert APPS.is_dir()
