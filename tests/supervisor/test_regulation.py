"""Workers that leak are replaced before it hurts, and their number follows the load."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.supervisor.test_administration import FORMS, until
from tests.support.groups import limited
from tests.support.running import APPS, REPOSITORY, Running, get

pytestmark = pytest.mark.slow

LEAKING = """
import json, os, time, gc
kept = []

async def asgi(scope, receive, send):
    if scope["type"] == "lifespan":
        raise NotImplementedError
    if scope["path"] == "/leak":
        kept.append(bytearray(b"x" * (2 << 20)))
    content = json.dumps({
        "pid": os.getpid(), "worker": os.environ.get("BRIDGE_WORKER"), "frozen": gc.get_freeze_count(),
        "extension": scope["extensions"].get("bridge.worker"),
    }).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(content))]})
    await send({"type": "http.response.body", "body": content})

def wsgi(environ, start_response):
    end = time.perf_counter() + 0.02
    while time.perf_counter() < end:
        pass
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
"""


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "leaking.py").write_text(LEAKING)
    return {"PYTHONPATH": f"{tmp_path}:{APPS}:{REPOSITORY}"}


def leak_in(processes: int, address: tuple[str, int], may_leak: Callable[[], bool] = lambda: True) -> None:
    """Make requests that leak until so many processes have answered, all of them with 200.

    Args:
        processes: How many.
        address: Of the server.
        may_leak: Told before each request. If not, the request leaks nothing.
    """
    pids = set()
    while len(pids) < processes:
        status, _, content = get(address, "/leak" if may_leak() else "/")
        assert status == 200
        pids.add(json.loads(content)["pid"])


@pytest.mark.parametrize("form", ["workers", "preload"])
def test_a_leak_is_bounded_and_no_request_fails(form: str, environ: dict[str, str]) -> None:
    options = ["--workers-max-rss", "90M", "--rss-interval", "100ms", *FORMS[form]]
    with Running("leaking:asgi", *options, environ=environ) as server:
        address = server.address()
        leak_in(6, address)
        server.messages.wait(r"is replaced: it uses \d+ MiB, more than --workers-max-rss", 4)
        assert server.end() == 0
    assert "killed" not in server.messages.text


def test_a_limit_that_every_worker_breaks_is_ignored(environ: dict[str, str]) -> None:
    options = ["--workers-max-rss", "1M", "--rss-interval", "50ms", "--workers", "2"]
    with Running("leaking:asgi", *options, environ=environ) as server:
        address = server.address()
        server.messages.wait("Every worker starts above --workers-max-rss, 1 MiB: the limit is ignored")
        before = server.current()
        assert get(address)[0] == 200
        assert server.current() == before
        assert server.end() == 0


@pytest.mark.long
@pytest.mark.parametrize("form", ["workers", "preload"])
def test_all_together_stay_below_the_limit_of_their_group(form: str, environ: dict[str, str]) -> None:
    """Under a real limit: nobody is killed by the system, no request fails."""
    options = ["--memory-target", "45%", "--rss-interval", "100ms", *FORMS[form]]
    with limited(memory=320 << 20) as (groups, words):
        command = [*words, *Running.command("leaking:asgi", *options)]
        with Running(environ=environ, command=command) as server:
            address = server.address()
            # A client is faster than any sample: beyond the target it must leave the master time to act.
            leak_in(5, address, lambda: groups["memory"].usage() < 160 << 20)
            server.messages.wait(
                r"is replaced: it is the largest, \d+ MiB, and all use \d+ MiB, more than --memory-", 3
            )
            assert server.end() == 0
            assert groups["memory"].kills() == 0
    assert "killed" not in server.messages.text


def test_a_target_that_is_broken_at_the_start_replaces_workers_less_and_less(environ: dict[str, str]) -> None:
    with limited(memory=400 << 20) as (_, words):
        options = ["--memory-target", "3%", "--rss-interval", "50ms", "--workers", "2"]
        with Running(environ=environ, command=[*words, *Running.command("leaking:asgi", *options)]) as server:
            address = server.address()
            server.messages.wait(r"All use \d+ MiB, more than --memory-target, 12 MiB, and new workers use as much")
            for _ in range(20):
                assert get(address)[0] == 200
            assert server.end() == 0
    assert server.messages.text.count("is replaced") < 6


def test_auto_says_what_the_group_allows(environ: dict[str, str]) -> None:
    with limited(cpu=0.5) as (_, words):
        command = [*words, *Running.command("leaking:asgi", "--workers", "auto")]
        with Running(environ=environ, command=command) as server:
            assert re.search(r"\(1 worker: \d+ CPUs?, cgroup allows 0\.5, ASGI\)", server.messages.wait("serving"))
            assert server.end() == 0


@pytest.mark.long  # only what is alone on the machine can keep one worker busy
def test_the_number_follows_the_load(environ: dict[str, str]) -> None:
    options = ["--workers", "1..3", "--workers-idle", "2s", "--threads", "4"]
    with Running("leaking:wsgi", *options, environ=environ) as server:
        address = server.address()
        stop = threading.Event()
        failed = []

        def load() -> None:
            while not stop.is_set():
                try:
                    if get(address)[0] != 200:
                        failed.append("status")
                except OSError as exc:
                    failed.append(repr(exc))

        threads = [threading.Thread(target=load) for _ in range(6)]
        for thread in threads:
            thread.start()
        try:
            server.messages.wait(r"2 instead of 1 workers: they are busy for \d+ % of the time")
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        assert failed == []
        server.messages.wait(r"1 instead of 2 workers: they are busy")
        assert server.end() == 0


@pytest.mark.parametrize("form", FORMS)
def test_each_process_knows_its_number(form: str, environ: dict[str, str]) -> None:
    with Running("leaking:asgi", *FORMS[form], environ=environ) as server:
        address = server.address()
        numbers = set()

        def all_seen() -> bool:
            said = json.loads(get(address)[2])
            assert said["extension"] == {"number": int(said["worker"])}
            assert (said["frozen"] > 1000) or form == "alone"
            numbers.add(said["worker"])
            return numbers == ({"0"} if form == "alone" else {"0", "1"})

        until(all_seen)
        assert server.end() == 0


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--workers", "8..2"], "a range such as 2..8"),
        (["--workers", "0..2"], "a range such as 2..8"),
        (["--workers", "2.."], "a range such as 2..8"),
        (["--workers-max-rss", "100M"], "--workers-max-rss: needs --workers"),
        (["--memory-target", "85%"], "--memory-target: needs --workers"),
        (["--memory-target", "101%", "--workers", "2"], "--memory-target"),
        (["--rss-samples", "0"], "--rss-samples"),
    ],
)
def test_settings_that_cannot_be_used(options: list[str], text: str) -> None:
    with Running("plain:asgi", *options) as server:
        assert server.end("") == 2
    assert re.search(re.escape(text), server.messages.lines[-1])
