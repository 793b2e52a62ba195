"""``--reload`` and ``--debug``."""

from __future__ import annotations

import contextlib
import threading
import time
from pathlib import Path

import pytest

pytest.importorskip("watchfiles", reason="the extra `reload` is not installed")

from bridge.config import Config
from bridge.supervisor.reload import watched
from tests.supervisor.test_master import path_of
from tests.support.running import Client, Running, get

slow = pytest.mark.slow
CODE = "async def app(scope, receive, send):\n    from plain import _answer\n    await _answer(send, b'{}')\n"


@pytest.mark.parametrize(
    ("path", "include", "exclude", "matters"),
    [
        ("app.py", (), (), True),
        ("sub/app.py", (), (), True),
        ("page.html", (), (), False),
        ("page.html", ("*.html",), (), True),
        ("templates/page.html", ("templates/*",), (), True),
        ("app.py", (), ("app*",), False),
        ("build/app.py", (), ("build",), False),
        ("sub/build/app.py", (), ("sub/build/*",), False),
        (".git/hook.py", (), (), False),
        (".venv/lib/a.py", (), (), False),
        ("a/__pycache__/b.py", (), (), False),
    ],
)
def test_what_is_watched(path: str, include: tuple[str, ...], exclude: tuple[str, ...], matters: bool) -> None:
    config = Config(reload_include=include, reload_exclude=exclude)
    assert watched(config, ("/root/dir",), f"/root/dir/{path}") is matters


@slow
def test_from_a_broken_save_to_a_good_one(tmp_path: Path) -> None:
    module = tmp_path / "edited.py"
    module.write_text(CODE.format("one"))
    argv = ["edited:app", "--reload", "--app-dir", str(tmp_path), "--no-access-log", "--lifespan", "off"]
    with Running(*argv, environ=path_of(tmp_path)) as server:
        address = server.address()
        answers: list[bytes] = []
        faults: list[str] = []
        stop = threading.Event()

        def load() -> None:
            while not stop.is_set():
                try:
                    with Client(address) as client:
                        answers.append(client.get()[2])
                except OSError as exc:
                    faults.append(repr(exc))

        thread = threading.Thread(target=load)
        thread.start()
        try:
            module.write_text("import nothing_of_this_name\n")
            server.messages.wait("Reload failed.*nothing_of_this_name")
            assert get(address)[2] == b"one"
            start = time.monotonic()
            module.write_text(CODE.format("two"))
            server.messages.wait("Reloaded: 1 worker")
            took = time.monotonic() - start
            assert get(address)[2] == b"two"
        finally:
            stop.set()
            thread.join()
        assert faults == []
        assert b"one" in answers
        assert set(answers) <= {b"one", b"two"}
        assert took < 15.0  # not the time that a worker has to start
        assert server.end() == 0


@slow
def test_a_start_that_is_broken_waits_for_the_next_save(tmp_path: Path) -> None:
    module = tmp_path / "edited.py"
    module.write_text("1 / 0\n")
    argv = ["edited:app", "--reload", "--app-dir", str(tmp_path), "--lifespan", "off"]
    with Running(*argv, environ=path_of(tmp_path)) as server:
        server.messages.wait("raised ZeroDivisionError")
        time.sleep(0.3)  # a second start without a change would show by now
        module.write_text(CODE.format("one"))
        assert get(server.address())[2] == b"one"
        assert server.messages.text.count("ZeroDivisionError: division by zero") <= 2  # the traceback, and the line
        assert server.end() == 0


HANGING = "import os, time\nos.write(2, b'here\\n')\ntime.sleep(60)\n"


@slow
def test_a_save_ends_a_start_that_hangs(tmp_path: Path) -> None:
    module = tmp_path / "edited.py"
    module.write_text(HANGING)
    argv = ["edited:app", "--reload", "--app-dir", str(tmp_path), "--lifespan", "off", "--no-access-log"]
    with Running(*argv, environ=path_of(tmp_path)) as server:
        server.messages.wait("^here")
        for number in range(10):  # the first one may come before the watching begins
            module.write_text(CODE.format("one") + f"# {number}\n")
            with contextlib.suppress(AssertionError):
                server.messages.wait("bridge: serving", timeout=2.0)
                break
        address = server.address()
        assert get(address)[2] == b"one"
        module.write_text(HANGING)
        server.messages.wait("^here", 2)
        assert get(address)[2] == b"one"
        module.write_text(CODE.format("two"))
        server.messages.wait("Reloaded: 1 worker")
        assert get(address)[2] == b"two"
        assert "failed" not in server.messages.text
        assert server.end() == 0


@slow
@pytest.mark.parametrize("app", ["plain:asgi", "plain:wsgi"])
def test_exceptions_in_the_browser(app: str) -> None:
    with Running(app, "--debug") as server:
        with Client(server.address()) as client:
            client.sock.sendall(b"GET /error/x HTTP/1.1\r\nHost: localhost:8000\r\n\r\n")
            status, fields, page = client.read()
        assert status == 500
        assert fields["content-type"].startswith("text/html")
        assert b"LookupError" in page
        assert b"on purpose" in page
        status, fields, page = get(server.address(), "/error/x")  # a name of somebody else's
        assert (status, page) == (500, b"500 Internal Server Error\r\n")
        assert get(server.address())[0] == 200
        assert server.end() == 0


@slow
def test_debugging_is_for_this_machine() -> None:
    with Running("plain:asgi", "--debug", "--bind", ":0") as server:
        assert server.end("") == 2
        assert server.messages.lines == ["bridge: --debug: :0 is not on the loopback interface; see --debug-anywhere"]


@slow
def test_watching_needs_a_directory(tmp_path: Path) -> None:
    with Running("plain:asgi", "--reload", "--reload-dir", str(tmp_path / "none")) as server:
        assert server.end("") == 2
        assert server.messages.lines == [f"bridge: --reload-dir {tmp_path}/none: not a directory"]
