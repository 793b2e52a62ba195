"""What is logged, in which form, and where."""

from __future__ import annotations

import json
import logging
import os
import threading
from pathlib import Path

import pytest

from bridge.config import Config
from bridge.core.context import ConnectionContext
from bridge.core.http1.head import Limits, parse_head
from bridge.errors import ConfigError
from bridge.supervisor.accesslog import LineWriter, _JSONLine, _Stamp, compile_format
from bridge.supervisor.logs import configure
from tests.supervisor.running import Running, get


class FakeExchange:
    """What a line is made of."""

    def __init__(self, wire: bytes = b'GET /a?b=1 HTTP/1.1\r\nHost: a\r\nUser-Agent: x"\\\x07\r\nA: b\r\n\r\n') -> None:
        head = parse_head(wire.replace(b"\x07", b"\xe9"), 0, Limits(), 0, None)
        assert head is not None
        self.head = head
        self.context = ConnectionContext(("192.0.2.1", 5), 2, "http")
        self.status = 200
        self.content_sent = 13


ATOMS = [
    ("%(h)s %(l)s %(u)s", "192.0.2.1 - -"),
    ('"%(r)s"', '"GET /a?b=1 HTTP/1.1"'),
    ("%(m)s %(U)s %(q)s %(H)s", "GET /a b=1 HTTP/1.1"),
    ("%(s)s %(b)s %(B)s", "200 13 13"),
    ("%(T)s %(M)s %(D)s %(L)s", "1 1250 1250000 1.250000"),
    ("%(a)s", r"x\x22\x5c\xe9"),
    ("%(f)s", "-"),
    ("%({a}i)s %({X-None}i)s", "b -"),
    ("%({BRIDGE_TEST}e)s", "value"),
    ("%(p)s", f"<{os.getpid()}>"),
    ("%(addr)s %(dt_ms)s %(status)s %(header{a})s", "192.0.2.1 1250.000 200 b"),
    ("100%% %(scheme)s", "100% http"),
]


@pytest.mark.parametrize(("form", "line"), ATOMS)
def test_atoms(form: str, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRIDGE_TEST", "value")
    assert compile_format(form)(FakeExchange(), 1.25) == line + "\n"  # type: ignore[arg-type]


@pytest.mark.parametrize("form", ["%(z)s", "%h", "%(h)q", "%({x}o)s", "100%"])
def test_unknown_atoms(form: str) -> None:
    with pytest.raises(ConfigError, match="--access-logformat: unknown atom at '%"):
        compile_format(form)


def test_json_lines() -> None:
    wire = b'GET /"?x HTTP/1.1\r\nHost: a\r\nUser-Agent: "\\\r\nReferer: r\r\nX-Request-Id: 7\r\n\r\n'.replace(
        b'/"', b"/"
    )
    entry = json.loads(_JSONLine(_Stamp())(FakeExchange(wire), 0.5))  # type: ignore[arg-type]
    assert entry.pop("time").endswith("Z")
    assert entry == {
        "client": "192.0.2.1", "method": "GET", "path": "/", "query": "x", "protocol": "HTTP/1.1", "status": 200,
        "bytes": 13, "seconds": 0.5, "pid": os.getpid(), "agent": '"\\', "referer": "r", "request_id": "7",
    }  # fmt: skip


def test_a_writer_that_hangs_delays_nobody() -> None:
    gate = threading.Event()
    written: list[bytes] = []

    def write(block: bytes) -> None:
        gate.wait()
        written.append(block)

    writer = LineWriter(write, most=2)
    for number in range(10):
        writer.write(b"%d\n" % number)
    assert writer.dropped >= 7
    gate.set()
    writer.close()
    assert written[0] == b"0\n"


def test_a_disk_that_is_full_loses_lines_and_nothing_else() -> None:
    def write(block: bytes) -> None:
        raise OSError(28, "No space left on device")

    writer = LineWriter(write)
    writer.write(b"a\nb\n")
    writer.close()
    assert writer.dropped == 2


@pytest.fixture
def logger() -> logging.Logger:
    found = logging.getLogger("bridge")
    before = (found.handlers[:], found.level, found.propagate)
    yield found  # type: ignore[misc]
    found.handlers[:], level, found.propagate = before
    found.setLevel(level)


def test_messages_as_json(logger: logging.Logger, tmp_path: Path) -> None:
    path = tmp_path / "log"
    configure(Config(error_logfile=str(path), log_format="json", access_log=False))
    try:
        raise KeyError("x")
    except KeyError:
        logger.exception("It %s", "failed")
    entry = json.loads(path.read_text())
    assert (entry["level"], entry["logger"], entry["message"], entry["pid"]) == (
        "error",
        "bridge",
        "It failed",
        os.getpid(),
    )
    assert "KeyError: 'x'" in entry["traceback"]


@pytest.mark.parametrize(("asked", "coloured"), [(True, True), (False, False), (None, False)])
def test_colours(logger: logging.Logger, tmp_path: Path, asked: bool | None, coloured: bool) -> None:
    path = tmp_path / "log"
    configure(Config(error_logfile=str(path), use_colors=asked, access_log=False))
    logger.error("red")
    assert ("\x1b[31m" in path.read_text()) == coloured


def test_a_terminal_and_no_color(monkeypatch: pytest.MonkeyPatch) -> None:
    from bridge.supervisor.logs import _wants_colours

    class Terminal:
        def isatty(self) -> bool:
            return True

    monkeypatch.delenv("NO_COLOR", raising=False)
    assert _wants_colours(Config(), Terminal())  # type: ignore[arg-type]
    monkeypatch.setenv("NO_COLOR", "1")
    assert not _wants_colours(Config(), Terminal())  # type: ignore[arg-type]


def test_a_program_that_has_handlers_keeps_them(logger: logging.Logger) -> None:
    handler = logging.NullHandler()
    logger.handlers[:] = [handler]
    configure(Config(), embedded=True)
    assert logger.handlers == [handler]


TOML = """\
version = 1
[handlers.file]
class = "logging.FileHandler"
filename = "{path}"
[loggers."bridge.access"]
handlers = ["file"]
level = "INFO"
"""
INI = """\
[loggers]
keys=root,access
[handlers]
keys=file
[formatters]
keys=
[handler_file]
class=FileHandler
args=("{path}",)
[logger_root]
handlers=
[logger_access]
qualname=bridge.access
level=INFO
handlers=file
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["toml", "json", "ini"])
def test_pythons_logging(tmp_path: Path, kind: str) -> None:
    path, config = tmp_path / "out.log", tmp_path / f"log.{kind}"
    text = (INI if kind == "ini" else TOML).format(path=path)
    if kind == "json":
        import tomllib

        text = json.dumps(tomllib.loads(text))
    config.write_text(text)
    with Running("plain:asgi", "--log-config", str(config)) as server:
        get(server.address(), "/logged")
        assert server.end() == 0
    assert '"GET /logged HTTP/1.1" 200' in path.read_text()


def test_a_broken_configuration_of_logging(tmp_path: Path) -> None:
    path = tmp_path / "log.json"
    path.write_text('{"version": 1, "handlers": {"a": {"class": "none.Such"}}}')
    with pytest.raises(ConfigError, match=r"log.json: Unable to configure handler 'a'"):
        configure(Config(log_config=str(path)))


@pytest.mark.slow
def test_paths_that_are_left_out() -> None:
    with Running("plain:asgi", "--access-log-exclude", "/health,/static/*", "--log-format", "json") as server:
        for path in ("/health", "/static/a.css", "/healthy", "/static"):
            get(server.address(), path)
        assert server.end() == 0
        assert [json.loads(line)["path"] for line in server.output.lines] == ["/healthy", "/static"]
        assert json.loads(server.messages.lines[-1])["message"] == "Stopped"
