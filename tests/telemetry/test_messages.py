"""What the server has to say comes out once, in the form that was asked for, and delays nothing."""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import json
import logging
import logging.config
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bridge.config import Config
from bridge.telemetry import messages
from bridge.telemetry.logs import configure
from tests.support.running import APPS, PATIENCE, REPOSITORY, Running, get, session, surroundings
from tests.support.ways import in_each_way

WAYS = [[], ["--loop", "asyncio"], ["--workers", "2"], ["--workers", "1", "--preload"]]
names = pytest.mark.parametrize("way", WAYS, ids=" ".join)


# --- a pipe that nobody reads ----------------------------------------------------------------------------------------


@contextlib.contextmanager
def full_pipe() -> Iterator[tuple[int, int]]:
    """Give the ends of a pipe that takes no more."""
    reading, writing = os.pipe()
    try:
        os.set_blocking(writing, False)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(writing, b"x" * 65536)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(writing, b"x")
        os.set_blocking(writing, True)  # it is one setting for all who have the pipe
        yield reading, writing
    finally:
        os.close(reading)
        os.close(writing)


@contextlib.contextmanager
def unread(
    directory: Path, app: str, *argv: str, environ: dict[str, str] | None = None
) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """Run a server both of whose streams are full from the beginning; give the process and the path of its socket."""
    path = str(directory / "a.sock")
    with full_pipe() as (_, writing):
        environ = {**surroundings(), "PYTHONPATH": f"{directory}{os.pathsep}{REPOSITORY}", **(environ or {})}
        environ.pop("PYTHONUNBUFFERED", None)
        process = subprocess.Popen(
            Running.command(app, "--uds", path, *argv),
            cwd=APPS, env=environ, stdin=subprocess.DEVNULL, stdout=writing, stderr=writing, start_new_session=True,
        )  # fmt: skip
        try:
            end = time.monotonic() + PATIENCE
            while not answers(path):
                assert time.monotonic() < end
                assert process.poll() is None
                time.sleep(0.02)
            yield process, path
        finally:
            for pid in session(process.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            process.kill()
            process.wait()


def answers(path: str) -> bool:
    with contextlib.suppress(OSError):
        return get(path)[0] == 200
    return False


def refused(path: str) -> bytes:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(PATIENCE)
        sock.connect(path)
        sock.sendall(b"NO\r\n\r\n")
        return sock.recv(12)


def ends(process: subprocess.Popen[bytes]) -> float:
    """End the process; return how long that took."""
    begin = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE) == 0
    return time.monotonic() - begin


# An end takes a second for each process that has something to say; a machine that is busy gets some more.
SOON = 15.0


@pytest.mark.slow
@names
def test_a_full_pipe_delays_neither_requests_nor_the_end(tmp_path: Path, way: list[str]) -> None:
    with unread(tmp_path, "plain:wsgi", *way) as (process, path):
        assert {refused(path) for _ in range(50)} == {b"HTTP/1.1 400"}
        assert answers(path)
        assert ends(process) < SOON
    assert not os.path.exists(path)


CONFIGURES = """\
import logging.config, sys
print("a line that stays in Python's own buffer")

def configure():
    logging.config.dictConfig({"version": 1,
        "handlers": {"here": {"class": "logging.StreamHandler", "stream": "ext://sys.stderr"}},
        "loggers": {"bridge": {"handlers": ["here"], "level": "INFO"}}})

def app(environ, start_response):
    print("an error" * 20, file=environ["wsgi.errors"])
    environ["wsgi.errors"].flush()
    start_response("200 OK", [("Content-Length", "0")])
    return []
"""


@pytest.mark.slow
def test_what_is_said_before_the_start_waits_for_no_full_pipe_either(tmp_path: Path) -> None:
    near = {"BRIDGE_WORKERZ": "2"}  # a variable that is nearly one of the server's
    with unread(tmp_path, "plain:wsgi", environ=near) as (process, _):
        assert ends(process) < SOON


@pytest.mark.slow
@pytest.mark.parametrize("workers", [[], ["--workers", "1"], ["--workers", "1", "--preload"]], ids=" ".join)
@pytest.mark.parametrize("who", ["the application", "a file"])
def test_handlers_of_others_on_a_full_pipe_delay_nothing_either(tmp_path: Path, workers: list[str], who: str) -> None:
    (tmp_path / "site_app.py").write_text(CONFIGURES + ("configure()\n" if who == "the application" else ""))
    path = tmp_path / "log.json"
    handlers = {"h": {"class": "logging.StreamHandler"}}
    path.write_text(json.dumps({"version": 1, "handlers": handlers, "root": {"handlers": ["h"], "level": "INFO"}}))
    options = ["--log-config", str(path)] if who == "a file" else []
    with unread(tmp_path, "site_app:app", "--threads", "2", *workers, *options) as (process, sock):
        for _ in range(20):
            assert refused(sock) == b"HTTP/1.1 400"
            assert answers(sock)
        assert ends(process) < SOON


@pytest.mark.slow
def test_a_master_whose_pipe_is_full_goes_on_to_start_workers(tmp_path: Path) -> None:
    with unread(tmp_path, "plain:wsgi", "--workers", "1") as (process, path):
        first = get(path)[2]
        process.send_signal(signal.SIGHUP)
        end = time.monotonic() + PATIENCE
        while get(path)[2] == first:
            assert time.monotonic() < end
            time.sleep(0.05)
        os.kill(int(get(path)[2]), signal.SIGKILL)
        while not answers(path):
            assert time.monotonic() < end
            time.sleep(0.05)
        assert ends(process) < SOON


@pytest.mark.slow
def test_a_pipe_that_is_read_again_gets_what_waited_and_the_number_of_what_was_lost(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    path = str(tmp_path / "a.sock")
    program = (
        "import sys, bridge.telemetry.messages as m; m._MOST = 100; import bridge.cli;"
        "m._state.announcer.writer._most = 100; sys.exit(bridge.cli.main())"
    )
    argv = [sys.executable, "-c", program, "run", "plain:asgi", "--uds", path, "--no-access-log"]
    process = subprocess.Popen(argv, cwd=APPS, env={**surroundings(), "PYTHONPATH": str(REPOSITORY)}, stderr=writing)
    os.close(writing)
    try:
        end = time.monotonic() + PATIENCE
        while not answers(path):
            assert time.monotonic() < end
            time.sleep(0.02)
        for _ in range(300):
            assert refused(path) == b"HTTP/1.1 400"
        text = b""
        while b"lost" not in text:
            assert select.select([reading], [], [], PATIENCE)[0]
            text += os.read(reading, 65536)
        assert refused(path) == b"HTTP/1.1 400"
        assert ends(process) < SOON
        while data := os.read(reading, 65536):
            text += data
    finally:
        process.kill()
        process.wait()
        os.close(reading)
    lines = text.decode().splitlines()
    told = [line for line in lines if "lost" in line]
    assert len(told) == 1
    lost = int(told[0].split(" WARNING ")[1].split()[0])
    assert sum("Malformed HTTP message" in line for line in lines) + lost == 301
    assert lines[0].startswith("bridge: serving")
    assert lines[-1].endswith("INFO Stopped")
    position = lines.index(told[0])
    assert all("Malformed" in line for line in lines[1:position])
    assert "Malformed" in lines[position + 1]


# --- a disk that is full ---------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("workers", [[], ["--workers", "1"]], ids=" ".join)
def test_a_full_disk_is_said_once(workers: list[str]) -> None:
    argv = ["--error-logfile", "/dev/full", "--access-logfile", "/dev/full", *workers]
    with Running("plain:asgi", *argv) as server:
        address = server.address()
        for _ in range(30):
            get(address)
            with socket.create_connection(address) as sock:
                sock.sendall(b"NO\r\n\r\n")
                assert sock.recv(12) == b"HTTP/1.1 400"
        assert server.end() == 0
    others = [line for line in server.messages.lines if not line.startswith("bridge: serving")]
    assert set(others) == {"bridge: --error-logfile /dev/full: No space left on device; messages are lost"}
    assert len(others) == 1 + len(workers) // 2


@pytest.mark.slow
def test_an_access_log_on_a_full_disk_is_said_once() -> None:
    with Running("plain:asgi", "--access-logfile", "/dev/full") as server:
        address = server.address()
        for _ in range(3):
            get(address)
            server.messages.wait("No space")
        assert server.end() == 0
    said = [line for line in server.messages.lines if "lost" in line]
    assert len(said) == 1
    assert said[0].endswith("ERROR --access-logfile /dev/full: No space left on device; lines of requests are lost")


# --- logging that the application configures -------------------------------------------------------------------------


SILENCES = """\
import logging.config
HANDLERS = {"h": {"class": "logging.StreamHandler"}}
ROOT = {"version": 1, "handlers": HANDLERS, "root": {"handlers": ["h"], "level": "INFO"}}

def silence():
    logging.config.dictConfig(ROOT)

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        if WHEN == "startup":
            silence()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    if WHEN == "request":
        silence()
    raise LookupError("the needle")
"""


@pytest.mark.slow
@pytest.mark.parametrize("when", ["import", "startup", "request"])
@pytest.mark.parametrize("workers", [[], ["--workers", "1"], ["--workers", "1", "--preload"]], ids=" ".join)
def test_an_application_that_configures_logging_does_not_silence_the_server(
    tmp_path: Path, when: str, workers: list[str]
) -> None:
    text = f"WHEN = {when!r}\n" + SILENCES + ("silence()\n" if when == "import" else "")
    (tmp_path / "silent.py").write_text(text)
    with Running("silent:app", "--app-dir", str(tmp_path), *workers) as server:
        assert get(server.address())[0] == 500
        assert server.end() == 0
    found = server.messages.text
    assert found.count("LookupError: the needle") == 1
    assert found.count("Stopped") == 1


FAILS = {
    "factory": "logging.setLogRecordFactory(fail)",
    "filter": "logging.getLogger('bridge').addFilter(fail)\n"
    "logging.getLogger('bridge.application').addFilter(fail)\n"
    "logging.getLogger('bridge.general').addFilter(fail)",
    "filter of the handler": "logging.getLogger('bridge').handlers[0].addFilter(fail)",
}


@pytest.mark.slow
@pytest.mark.parametrize("code", FAILS.values(), ids=FAILS)
@in_each_way(1)
def test_what_the_application_does_to_records_may_fail(tmp_path: Path, way: list[str], code: str) -> None:
    """As it does where it needs the context of a request."""
    text = "import logging\ndef fail(*arguments, **options):\n    raise LookupError('no request')\n" + code
    text += "\nasync def app(scope, receive, send):\n    raise ValueError('the needle')\n"
    (tmp_path / "failing.py").write_text(text)
    with Running("failing:app", "--app-dir", str(tmp_path), *way) as server:
        assert get(server.address())[0] == 500
        assert server.end() == 0
    assert server.messages.text.count("ValueError: the needle") == 1
    assert "no request" not in server.messages.text


@pytest.mark.slow
@pytest.mark.parametrize("logger", ["bridge", ""], ids=["ours", "root"])
@in_each_way(1)
def test_a_handler_that_hangs_delays_neither_requests_nor_the_end(tmp_path: Path, way: list[str], logger: str) -> None:
    """As one whose server does not answer. The end of the interpreter takes the locks of all handlers."""
    text = "import logging, time\nclass Hangs(logging.Handler):\n    def emit(self, record):\n        time.sleep(60)\n"
    text += f"logging.getLogger({logger!r}).addHandler(Hangs())\nlogging.getLogger('bridge').propagate = True\n"
    text += "def app(environ, start_response):\n    start_response('200 OK', [])\n    return [b'hello']\n"
    (tmp_path / "hanging.py").write_text(text)
    path = tmp_path / "a.sock"
    with Running("hanging:app", "--app-dir", str(tmp_path), "--uds", str(path), *way) as server:
        end = time.monotonic() + PATIENCE
        while not path.exists():  # where the line that says so waits for the handler
            assert time.monotonic() < end
            time.sleep(0.02)
        for _ in range(3):
            assert get(str(path))[0] == 200
        began = time.monotonic()
        assert server.end() == 0
        assert time.monotonic() - began < 10


@pytest.fixture
def _logging() -> Iterator[None]:
    names = ["bridge", "bridge.access", "bridge.application", "bridge.general"]
    before = [(logging.getLogger(name), dict(logging.getLogger(name).__dict__)) for name in names]
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    for logger, values in before:
        logger.__dict__.update(values)
        logger.disabled = False
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.mark.usefixtures("_logging")
def test_who_may_disable_the_servers_loggers() -> None:
    configure(Config(access_log=False))
    logger = logging.getLogger("bridge.general")
    logging.config.dictConfig({"version": 1})
    assert not logger.disabled
    logger.disabled = True  # somebody means this logger
    assert logger.disabled
    logging.config.dictConfig({"version": 1, "disable_existing_loggers": False})
    assert not logger.disabled


@pytest.mark.usefixtures("_logging")
def test_a_logger_of_a_class_of_the_programs_own_keeps_it() -> None:
    class Own(logging.Logger):
        def shout(self) -> str:
            return self.name.upper()

    logger = logging.getLogger("bridge.general")
    kind = type(logger)
    try:
        logger.__class__ = Own
        messages.keep_enabled()
        assert logger.shout() == "BRIDGE.GENERAL"  # type: ignore[attr-defined]
        logging.config.dictConfig({"version": 1})
        assert not logger.disabled
    finally:
        logger.__class__ = kind


@pytest.mark.usefixtures("_logging")
def test_arguments_that_do_not_fit_are_shown_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "log"
    configure(Config(access_log=False, error_logfile=str(path)))
    logging.getLogger("bridge.general").error("%d pieces", "many")
    messages.flush()
    assert "bridge.general: '%d pieces' cannot be formatted: TypeError" in path.read_text()


# --- the form --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@names
def test_every_line_is_json(way: list[str]) -> None:
    with Running("plain:wsgi", "--log-format", "json", *way) as server:
        server.address()
        assert server.end() == 0
    entries = [json.loads(line) for line in server.messages.lines]
    if "--workers" not in way:
        assert entries[0]["message"].startswith("bridge: serving plain:wsgi (WSGI")
    serving = next(entry for entry in entries if "serving" in entry["message"])
    assert (serving["level"], serving["logger"], serving["pid"]) == ("info", "bridge", server.pid)


FAULTY = """\
import sys, bridge.cli, bridge.supervisor.run as run, bridge.supervisor.worker as worker

def boom(*_):
    raise LookupError("the needle")

run._SingleProcess = worker._Worker = boom
sys.exit(bridge.cli.main())
"""


@pytest.mark.slow
@pytest.mark.parametrize("workers", [[], ["--workers", "1"]], ids=" ".join)
def test_a_fault_of_the_servers_own_comes_out_too_unless_the_pipe_is_full(workers: list[str]) -> None:
    argv = [sys.executable, "-c", FAULTY, "run", "plain:asgi", "--port", "0", "--log-format", "json", *workers]
    with Running(command=argv) as server:
        assert server.end("") == (3 if workers else 1)
    entries = [json.loads(line) for line in server.messages.lines]
    assert ["the needle" in entry["traceback"] for entry in entries if "traceback" in entry] == [True]
    with full_pipe() as (_, writing):
        begin = time.monotonic()
        found = subprocess.run(argv, cwd=APPS, env={**surroundings(), "PYTHONPATH": str(REPOSITORY)}, stderr=writing)
        assert found.returncode == (3 if workers else 1)
        assert time.monotonic() - begin < SOON


FATAL = [
    ("plain:asgj", 3, "plain:asgj", False),
    ("raising:app", 3, "raising:app", True),
    ("plain:refuses", 4, "lifespan startup failed: no database", False),
]


@pytest.mark.slow
@pytest.mark.parametrize(("app", "status", "text", "raised"), FATAL)
@pytest.mark.parametrize("workers", [[], ["--workers", "1"], ["--workers", "1", "--preload"]], ids=" ".join)
def test_a_start_that_fails_says_so_in_json_too(
    tmp_path: Path, workers: list[str], app: str, status: int, text: str, raised: bool
) -> None:
    (tmp_path / "raising.py").write_text("raise LookupError('the needle')\n")
    directory = str(tmp_path) if raised else str(APPS)
    with Running(app, "--app-dir", directory, "--log-format", "json", *workers) as server:
        assert server.end("") == status
    entries = [json.loads(line) for line in server.messages.lines]
    fatal = [entry for entry in entries if entry["level"] == "critical"]
    assert [text in entry["message"] for entry in fatal] == [True]
    assert sum("LookupError: the needle" in entry.get("traceback", "") for entry in entries) == raised


@pytest.mark.slow
@pytest.mark.parametrize("stream", ["asyncio", "the application's"])
def test_what_is_logged_where_no_handler_is_has_the_form_too(tmp_path: Path, stream: str) -> None:
    (tmp_path / "bare.py").write_text(
        "import asyncio, logging\n"
        "async def app(scope, receive, send):\n"
        "    if scope['type'] != 'http': raise NotImplementedError\n"
        "    logging.getLogger('site').warning('careful')\n"
        "    asyncio.get_running_loop().call_soon(lambda: 1 // 0)\n"
        "    await send({'type': 'http.response.start', 'status': 200, 'headers': []})\n"
        "    await send({'type': 'http.response.body'})\n"
    )
    argv = ["--app-dir", str(tmp_path), "--log-format", "json"]
    with Running("bare:app", *argv) as server:
        get(server.address(), "/", "Connection: close")
        assert server.end() == 0
    entries = [json.loads(line) for line in server.messages.lines]
    if stream == "asyncio":
        assert ["ZeroDivisionError" in entry["traceback"] for entry in entries if entry["logger"] == "asyncio"] == [
            True
        ]
    else:
        assert [entry["message"] for entry in entries if entry["logger"] == "site"] == ["careful"]


# --- processes -------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("_logging")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
def test_a_child_that_the_program_forks_writes_at_once_and_nothing_twice(tmp_path: Path) -> None:
    path = tmp_path / "log"
    configure(Config(access_log=False, error_logfile=str(path)))
    logger = logging.getLogger("bridge.general")
    logger.error("before")
    pid = os.fork()
    if pid == 0:
        with contextlib.suppress(BaseException):
            logger.error("in the child")
        os._exit(0)
    os.waitpid(pid, 0)
    logger.error("after")
    messages.flush()
    assert [line.rpartition(" ERROR ")[2] for line in path.read_text().splitlines()] == [
        "before",
        "in the child",
        "after",
    ]


@pytest.mark.usefixtures("_logging")
def test_only_while_it_serves_a_process_leaves_others_handlers_to_a_thread() -> None:
    class Foreign(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            threads.append(threading.current_thread() is threading.main_thread())

    threads: list[bool] = []
    configure(Config(access_log=False))
    logger = logging.getLogger("bridge.general")
    logger.addHandler(Foreign())
    try:
        logger.warning("before")
        with messages.serving():
            logger.warning("meanwhile")
            messages.flush(PATIENCE)
        logger.warning("after")
    finally:
        logger.handlers.clear()
        atexit.unregister(messages._end_process)  # this process does not end with a server
    assert threads == [True, False, True]
