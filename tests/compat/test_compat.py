"""Programs that start another server themselves, and start bridge instead: with the original installed, and without."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import re
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bridge import compat
from bridge.compat import hypercorn, uvicorn, waitress
from bridge.compat.execution import execute
from bridge.errors import ConfigError
from bridge.telemetry import logs
from tests.support import ROOT
from tests.support.running import APPS, Client, Running, get

PROGRAM = str(APPS / "embedders.py")
#: Makes the original servers look as if they were not installed.
WITHOUT = """\
import importlib.abc, sys

class Refuses(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"uvicorn", "hypercorn", "waitress", "gunicorn"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Refuses())
"""
PROGRAMS = {
    "uvicorn_run": (b"asgi", 0),
    "uvicorn_serve": (b"asgi", 130),
    "uvicorn_thread": (b"asgi", 0),
    "hypercorn_serve": (b"asgi", 0),
    "waitress_serve": (b"wsgi", 0),
    "gunicorn_application": (b"wsgi", 0),
}


@pytest.fixture(autouse=True)
def loggers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(logs, "_stands_for", [])
    monkeypatch.setenv("PYTHONPATH", os.environ.get("PYTHONPATH", ""))  # execute() adds to it
    names = ("bridge", "uvicorn", "uvicorn.access", "uvicorn.error")
    before = [(logging.getLogger(name), logging.getLogger(name).level) for name in names]
    yield
    for logger, level in before:
        logger.setLevel(level)
        logger.handlers.clear()
        logger.propagate = True


def address(server: Running) -> tuple[str, int]:
    """Wait for the line that says where it serves."""
    stream = server.output if "waitress_serve" in server.argv else server.messages
    line = stream.wait(r"https?://[0-9.]+:[0-9]+")
    match = re.search(r"https?://([0-9.]+):([0-9]+)", line)
    assert match is not None
    return match[1], int(match[2])


@pytest.mark.slow
@pytest.mark.parametrize("installed", [True, False], ids=["installed", "not installed"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_serves_with_bridge(name: str, installed: bool, tmp_path: Path) -> None:
    if installed:
        pytest.importorskip(name.partition("_")[0], reason="the server is not installed (extra dev)")
    environ = {}
    if not installed:
        (tmp_path / "sitecustomize.py").write_text(WITHOUT)
        environ = {"PYTHONPATH": f"{tmp_path}{os.pathsep}{APPS.parents[2]}"}
    command = [sys.executable, "-m", "bridge", "exec", "python", PROGRAM, name]
    content, status = PROGRAMS[name]
    with Running(command=command, environ=environ) as server:
        where = address(server)
        assert get(where)[2] == content
        if content == b"asgi":
            with Client(where) as client:
                client.send("/stream")
                assert b"data: 1" in client.sock.recv(65536)
                ended = server.end("SIGINT")
        else:
            ended = server.end("SIGINT")
        assert ended == status
        assert "Traceback" not in server.messages.text
        assert "ERROR" not in server.messages.text


@pytest.mark.slow
def test_a_server_in_a_thread_ends_before_its_program() -> None:
    """Python 3.11 takes a thread for ended whose join() was interrupted, and does not wait for it at its end."""
    with Running(command=[sys.executable, "-m", "bridge", "exec", PROGRAM, "uvicorn_thread_ends_late"]) as server:
        assert get(address(server))[2] == b"asgi"
        assert server.end("SIGINT") == 0
        assert "shutdown complete" in server.output.text


@pytest.mark.slow
def test_a_server_that_the_command_starts_as_a_process_of_its_own(tmp_path: Path) -> None:
    """As ``mlflow server`` does. The sitecustomize that the folder of the stand-ins hides is imported, too."""
    pytest.importorskip("uvicorn", reason="the server is not installed (extra dev)")
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.stderr.write('hidden\\n')\n")
    program = tmp_path / "program.py"
    program.write_text(
        "import subprocess, sys\n"
        "words = ['-m', 'uvicorn', 'embedders:asgi', '--port', '0']\n"
        "sys.exit(subprocess.call([sys.executable, *words]))\n"
    )
    command = [sys.executable, "-m", "bridge", "exec", str(program)]
    environ = {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    with Running(command=command, environ=environ) as server:
        assert get(server.address())[2] == b"asgi"
        os.killpg(server.pid, signal.SIGINT)  # as a terminal does
        server.end("")
        assert len(re.findall("hidden", server.messages.text)) == 2
        assert re.search(r"\] INFO Stopped", server.messages.text)


@pytest.mark.slow
def test_an_application_that_does_not_start_has_uvicorns_status() -> None:
    with Running(command=[sys.executable, "-m", "bridge", "exec", PROGRAM, "uvicorn_fails"]) as server:
        assert server.end("") == 3
        assert "no database" in server.messages.text
        assert "Application startup failed. Exiting." in server.messages.text


# --- uvicorn ---------------------------------------------------------------------------------------------------------


async def app(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hi"})


def config(**settings: Any) -> uvicorn.Config:
    return uvicorn.Config(app, **{"port": 0, "lifespan": "off", "log_level": "warning", **settings})


async def test_the_steps_of_a_server_one_by_one() -> None:
    server = uvicorn.Server(config())
    assert not server.started
    server.config.load()
    assert server.config.loaded_app is app
    await server.startup()
    assert server.started
    host, port = server.servers[0].sockets[0].getsockname()
    assert (host, port > 0) == ("127.0.0.1", True)
    server.should_exit = True
    await server.main_loop()
    await server.shutdown()
    assert server.servers == []


async def test_sockets_of_the_program() -> None:
    sock = config().bind_socket()
    server = uvicorn.Server(config())
    await server.startup(sockets=[sock])
    assert server.servers[0].sockets[0].getsockname() == sock.getsockname()
    server.force_exit = True
    server.should_exit = True
    await server.shutdown(sockets=[sock])
    assert sock.fileno() == -1


def test_a_unix_socket_of_the_program(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    for _ in range(2):  # the second replaces the first
        with config(uds=str(path)).bind_socket() as sock:
            assert sock.getsockname() == str(path)
            assert stat.S_IMODE(path.stat().st_mode) == 0o666


async def test_the_handler_of_signals_is_a_method_of_the_server() -> None:
    """sse-starlette finds the server that way, or replaces the method in the class."""
    server = uvicorn.Server(config())
    with server.capture_signals():
        handler: Any = signal.getsignal(signal.SIGTERM)
        assert handler.__self__ is server
        assert not server.should_exit
    server.handle_exit(signal.SIGINT, None)
    assert (server.should_exit, server.force_exit) == (True, False)
    server.handle_exit(signal.SIGINT, None)
    assert server.force_exit


def test_attributes_are_uvicorns_with_its_defaults() -> None:
    real = pytest.importorskip("uvicorn", reason="uvicorn is not installed (extra dev)")
    import inspect

    parameters = inspect.signature(real.config.Config.__init__).parameters
    names = [name for name in parameters if name not in {"self", "app"}]
    assert list(uvicorn._DEFAULTS) == names
    changed = {"log_config"}
    assert {name for name in names if parameters[name].default != uvicorn._DEFAULTS[name]} <= changed


def test_a_keyword_that_nobody_knows_is_named_once(caplog: pytest.LogCaptureFixture) -> None:
    uvicorn._warned.clear()
    for _ in range(2):
        config(no_such_thing=1)
    assert caplog.text.count("no_such_thing: bridge does not know it") == 1


def test_settings_become_bridges() -> None:
    made, served = config(
        timeout_keep_alive=7, proxy_headers=False, headers=[("A", "b")], ws="none", root_path="/x", limit_concurrency=5
    ).settings()
    assert served is app
    assert (made.timeout_keep_alive, made.proxy_headers, made.header) == (7.0, False, ((b"a", b"b"),))
    assert (made.ws, made.root_path, made.limit_concurrency) == (False, "/x", 5)


@pytest.mark.parametrize("level", [None, "warning"])
async def test_without_a_configuration_the_loggers_stay_the_program_s(
    level: str | None, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level("INFO")
    server = uvicorn.Server(config(log_config=None, log_level=level))
    await server.startup()
    assert (await asyncio.to_thread(get, server.servers[0].sockets[0].getsockname()))[2] == b"hi"
    await server.shutdown()
    lines = [record.getMessage() for record in caplog.records if record.name == "uvicorn.access"]
    assert len(lines) == (level is None)
    assert all(re.fullmatch(r'127.0.0.1:[0-9]+ - "GET / HTTP/1.1" 200', line) for line in lines)
    assert {record.name for record in caplog.records} >= ({"uvicorn.error"} if level is None else set())
    assert level is None or caplog.text == ""
    assert capfd.readouterr() == ("", "")


async def test_without_a_configuration_and_without_handlers_nothing_is_written(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    server = uvicorn.Server(config(log_config=None, log_level=None))
    await server.startup()
    assert (await asyncio.to_thread(get, server.servers[0].sockets[0].getsockname()))[2] == b"hi"
    await server.shutdown()
    assert capfd.readouterr() == ("", "")


def test_a_class_for_websockets_is_refused() -> None:
    with pytest.raises(ConfigError, match="takes no class of another's"):
        config(ws="some:Protocol").settings()


@pytest.mark.parametrize("options", [{"reload": True}, {"workers": 2}])
def test_processes_need_a_name(options: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(SystemExit) as raised:
        uvicorn.run(app, **options)
    assert raised.value.code == 1
    assert "import string" in caplog.text


# --- hypercorn and waitress ------------------------------------------------------------------------------------------


async def test_what_hypercorn_s_trigger_raises_is_raised() -> None:
    settings = hypercorn.Config()
    settings.bind = ["127.0.0.1:0"]

    async def trigger() -> None:
        raise LookupError("no such signal")

    with pytest.raises(LookupError, match="no such signal"):
        await hypercorn.serve(app, settings, shutdown_trigger=trigger)


def wsgi(environ: Any, start_response: Any) -> Any:
    start_response("200 OK", [("Content-Length", "2")])
    return [b"hi"]


def test_a_server_of_waitress_s_that_is_closed_before_it_runs() -> None:
    server = waitress.create_server(wsgi, listen="127.0.0.1:0")
    with pytest.raises(OSError, match="Address already in use") as raised:
        waitress.create_server(wsgi, listen=f"127.0.0.1:{server.effective_port}")
    assert raised.value.errno == errno.EADDRINUSE
    server.close()
    waitress.create_server(wsgi, listen=f"127.0.0.1:{server.effective_port}").close()
    server.run()  # returns at once


# --- install and exec ------------------------------------------------------------------------------------------------


def test_a_stand_in_that_does_not_exist() -> None:
    with pytest.raises(ValueError, match="there is no stand-in for 'apache'"):
        compat.install("apache")


WRONG = [
    (["nowhere-to-be-found"], "there is no such command"),
    (["nowhere.py"], "there is no such file"),
    (["-m"], "needs the name of a module"),
    (["-c"], "needs a program"),
    (["ls"], "is not a Python program"),
]


@pytest.mark.parametrize(("words", "message"), WRONG)
def test_commands_that_cannot_run(words: list[str], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridge.compat.execution.install", lambda: None)
    monkeypatch.setattr(sys, "argv", ["x"])
    monkeypatch.setattr(sys, "path", sys.path[:])
    with pytest.raises(ConfigError, match=message):
        execute(words)


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["-c", "import sys; sys.exit(3)"], 3),
        (["python", "-c", "raise KeyboardInterrupt"], 130),
        (["-c", "import sys; assert sys.argv == ['-c', 'a']", "a"], 0),
        (["python3", "-c", "import sys; sys.exit('no')"], 1),
        (["-m", "this"], 0),
        (["-c", "raise SystemExit([1])"], 1),
        (["-c", "def f(): raise ValueError('no')\nf()"], 1),
        (["-c", "x = ("], 1),
        (["-m", "nowhere_to_be_found"], 1),
    ],
)
def test_statuses(
    words: list[str], status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("bridge.compat.execution.install", lambda: None)
    monkeypatch.setattr(sys, "argv", ["x"])
    monkeypatch.setattr(sys, "path", sys.path[:])
    assert execute(words) == status
    err = capsys.readouterr().err
    if words[0] == "python3":
        assert err == "no\n"
    assert "execution.py" not in err  # a traceback begins in the program
    assert ("in f" in err) == ("def f" in words[1])


@pytest.mark.slow
def test_the_end_of_the_interpreter_searches_for_no_garbage() -> None:
    program = "import atexit, gc; atexit.register(lambda: print(gc.get_freeze_count() > 1000))"
    command = [sys.executable, "-m", "bridge", "exec", "-c", program]
    assert subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60).stdout == "True\n"


@pytest.mark.parametrize("words", [[], ["--help"]])
def test_the_usage(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(words) == (0 if words else 2)
    assert "usage: bridge exec COMMAND" in capsys.readouterr().out
