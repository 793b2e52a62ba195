"""What is logged, in which form, and where."""

from __future__ import annotations

import json
import logging
import os
import pwd
import sys
import tempfile
import time
from pathlib import Path

import pytest

from bridge.config import Config
from bridge.errors import ConfigError
from bridge.files import Identity
from bridge.telemetry.logs import LogFile, configure
from bridge.telemetry.messages import Messages, flush
from tests.support.running import IMPORTED, PATIENCE, Running, get


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
    flush()
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
    flush()
    assert ("\x1b[31m" in path.read_text()) == coloured


def test_a_terminal_and_no_color(monkeypatch: pytest.MonkeyPatch) -> None:
    from bridge.telemetry.logs import _wants_colours

    monkeypatch.delenv("NO_COLOR", raising=False)
    assert _wants_colours(Config(), True)
    monkeypatch.setenv("NO_COLOR", "1")
    assert not _wants_colours(Config(), True)


def test_a_program_that_has_handlers_keeps_them(logger: logging.Logger) -> None:
    handler = logging.NullHandler()
    logger.handlers[:] = [handler]
    configure(Config(), embedded=True)
    assert logger.handlers == [handler]


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("root", [True, False])
def test_a_program_that_has_handlers_anywhere_keeps_them(logger: logging.Logger, own: bool, root: bool) -> None:
    handler = logging.NullHandler()
    above = logging.getLogger()
    before = above.handlers[:]
    logger.handlers[:] = [handler] if own else []
    above.handlers[:] = [handler] if root else []
    logger.propagate = True
    try:
        configure(Config(), embedded=True)
        found = logger.handlers[:]
        assert above.handlers == ([handler] if root else [])
    finally:
        above.handlers[:] = before
    if own or root:
        assert found == ([handler] if own else [])
        assert logger.propagate
    else:
        assert [type(one) for one in found] == [Messages]
        assert not logger.propagate


def test_a_server_of_its_own_replaces_handlers(logger: logging.Logger) -> None:
    logger.handlers[:] = [logging.NullHandler()]
    for _ in range(2):
        configure(Config())
        assert [type(one) for one in logger.handlers] == [Messages]


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


@pytest.fixture
def _nobodys() -> tuple[int, int]:
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody else")
    entry = pwd.getpwnam("nobody")
    return entry.pw_uid, entry.pw_gid


@pytest.mark.slow
@pytest.mark.parametrize("workers", [[], ["--workers", "1"]], ids=["alone", "a master"])
def test_whoever_the_server_becomes_can_open_its_logs_anew(_nobodys: tuple[int, int], workers: list[str]) -> None:
    with tempfile.TemporaryDirectory() as name:  # pytest's own directories are closed to others
        place = Path(name)
        os.chown(place, *_nobodys)
        access, error = place / "access.log", place / "error.log"
        access.write_text("")  # from an earlier run
        os.chown(access, *_nobodys)
        argv = ["--user", "nobody", "--access-logfile", str(access), "--error-logfile", str(error), *workers]
        argv = ["plain:asgi", "--access-logformat", "%(U)s", "--port", "0", *argv]
        with Running(command=[sys.executable, "-c", IMPORTED, "run", *argv]) as server:
            address = server.address()
            for file in (access, error):
                assert (file.stat().st_uid, file.stat().st_gid) == _nobodys
            get(address, "/before")
            await_text(access, "/before\n")
            for file in (access, error):
                file.rename(file.with_suffix(".1"))
            server.signal("SIGUSR1")
            await_text(access, "")
            assert (access.stat().st_uid, access.stat().st_gid) == _nobodys
            end = time.monotonic() + PATIENCE
            while not access.read_text():  # the master makes the file; a worker has it a moment later
                assert time.monotonic() < end
                get(address, "/after")
                time.sleep(0.3)  # lines are collected
            assert set(access.read_text().splitlines()) == {"/after"}
            assert server.end() == 0
        assert "Stopped" in error.read_text()
        assert "stays the old one" not in error.read_text() + error.with_suffix(".1").read_text()


def await_text(file: Path, text: str) -> None:
    end = time.monotonic() + PATIENCE
    while not file.exists() or file.read_text() != text:
        assert time.monotonic() < end, file.read_text() if file.exists() else "no file"
        time.sleep(0.01)


def test_a_device_keeps_its_owner(_nobodys: tuple[int, int]) -> None:
    before = os.stat(os.devnull)
    file = LogFile("--access-logfile", os.devnull, Identity("nobody", *_nobodys, ()))
    os.close(file.descriptor)
    assert os.stat(os.devnull).st_uid == before.st_uid
