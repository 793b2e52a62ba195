"""The application is imported before the event loop runs, however the server is started."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import bridge
from bridge.apps.loading import TargetError
from tests.support.running import APPS, Running, get

WAYS = {
    "alone": [],
    "workers": ["--workers", "2"],
    "preload": ["--workers", "1", "--preload"],
    "reload": ["--reload", "--reload-dir", str(APPS)],
    "debug": ["--debug"],
}


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("way", WAYS)
def test_an_import_may_run_loops(way: str, loop: str) -> None:
    with Running("early:asgi", *WAYS[way], "--loop", loop, "--lifespan", "off") as server:
        # A master that imports the application has no loop of its own to give.
        assert get(server.address())[2].decode() == f"found found set {way != 'preload'}"
        assert server.end() == 0


@pytest.mark.parametrize("way", ["alone", "workers"])
@pytest.mark.parametrize("argv", [["early:wsgi"], ["early:make", "--factory"], ["early:make()"]], ids=" ".join)
def test_an_import_may_run_loops_under_wsgi(way: str, argv: list[str]) -> None:
    with Running(*argv, *WAYS[way]) as server:
        assert get(server.address())[2] == b"found found set"
        assert server.end() == 0


@pytest.mark.parametrize("way", ["alone", "workers", "preload"])
def test_mounted_applications_too(way: str) -> None:
    with Running("--mount", "/a=early:wsgi", "--mount", "/b=early:asgi", *WAYS[way], "--lifespan", "off") as server:
        address = server.address()
        assert get(address, "/a")[2] == b"found found set"
        assert get(address, "/b")[2].startswith(b"found found set")
        assert server.end() == 0


def test_in_a_thread() -> None:
    code = (
        "import asyncio, threading, bridge\n"
        "server = bridge.Server('early:asgi', port=0, access_log=False, lifespan='off')\n"
        "started = threading.Event()\n"
        "server.on_started = started.set\n"
        "thread = threading.Thread(target=server.run)\n"
        "thread.start()\n"
        "assert started.wait(10)\n"
        "from urllib.request import urlopen\n"
        "print(urlopen(server.url).read().decode(), flush=True)\n"
        "server.should_exit = True\n"
        "thread.join()\n"
    )
    with Running(command=[sys.executable, "-c", code]) as server:
        assert server.end("") == 0
        assert server.output.lines == ["found found set True"]


def test_what_needs_a_running_loop_is_told_so(tmp_path: Path) -> None:
    (tmp_path / "late.py").write_text("import asyncio\nasyncio.get_running_loop()\n")
    with Running("late:app", "--app-dir", str(tmp_path)) as server:
        assert server.end("") == 3
        assert server.messages.lines[-1].endswith(
            "raised RuntimeError: no running event loop; applications are imported before the loop runs:"
            " move what needs it to the lifespan's startup"
        )


async def test_beside_a_running_loop_it_is_as_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`Server` in somebody's loop has no earlier moment; the failure is the application's own."""
    code = "import asyncio\nasync def f(): pass\ncall = f()\ntry: asyncio.run(call)\nfinally: call.close()\n"
    (tmp_path / "too_late.py").write_text(code)
    monkeypatch.setattr("sys.path", [*sys.path])
    with pytest.raises(
        TargetError, match=r"too_late:app: importing module 'too_late' raised RuntimeError: asyncio\.run"
    ):
        async with bridge.Server("too_late:app", app_dir=str(tmp_path), port=0):
            pass
