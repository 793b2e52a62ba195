"""Where the server's messages go: to standard error, to a file, or where a configuration of Python's logging says."""

from __future__ import annotations

import logging
import os
import stat
import sys
import time
from collections.abc import Callable
from typing import Any

from bridge.config import Config
from bridge.errors import ConfigError
from bridge.telemetry import messages
from bridge.telemetry.linewriter import to_descriptor, to_stream

__all__ = ["LogFile", "configure", "error_descriptor", "log_file", "reopen"]

_COLOURS = {logging.WARNING: "33", logging.ERROR: "31", logging.CRITICAL: "1;31"}


class LogFile:
    """A file that lines are appended to. Its descriptor stays the same when it is opened again.

    Args:
        option: The setting, for error messages.
        path: The file.
        owner: User and group (numbers) that will open the file again later, after root has given up its privileges.
            Root makes them the file's owners. None to leave the owner as it is.

    Attributes:
        path: The absolute path.
        descriptor: For ``os.write``.

    Raises:
        ConfigError: The file cannot be written.
    """

    def __init__(self, option: str, path: str, owner: tuple[int, int] | None = None) -> None:
        self._option = option
        self._owner = owner
        self.path = os.path.abspath(path)
        self.descriptor = self._open()

    def reopen(self) -> None:
        """Open the file of this name again: after a rename it is a new one.

        Raises:
            ConfigError: The file cannot be written. The old one stays open.
        """
        new = self._open()
        os.dup2(new, self.descriptor, inheritable=False)
        os.close(new)

    def try_to_reopen(self) -> None:
        """Call :meth:`reopen`, and log its failure."""
        try:
            self.reopen()
        except ConfigError as exc:
            logging.getLogger("bridge").error("The log file stays the old one: %s", exc)

    def _open(self) -> int:
        try:
            descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as exc:
            raise ConfigError(f"{self._option} {self.path}: {exc.strerror}") from exc
        if self._owner is not None and os.geteuid() == 0 and stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.fchown(descriptor, *self._owner)
        return descriptor


# The open log files by absolute path, since both logs may go to one file. They are opened before a fork, and the
# children share them.
_files: dict[str, LogFile] = {}


def log_file(option: str, path: str, owner: tuple[int, int] | None = None) -> LogFile:
    """Return the log file *path*; open it if this is the first call for it.

    Args:
        option: As for LogFile.
        path: As for LogFile.
        owner: As for LogFile. Only the first call for a file uses it.

    Raises:
        ConfigError: It cannot be written.
    """
    key = os.path.abspath(path)
    if key not in _files:
        _files[key] = LogFile(option, path, owner)
    return _files[key]


def error_descriptor(config: Config) -> int:
    """Return the descriptor that messages are written to."""
    return 2 if config.error_logfile == "-" else log_file("--error-logfile", config.error_logfile).descriptor


def reopen(but: LogFile | None = None) -> None:
    """Open all log files except *but* again, after they have been renamed. On failure the old file stays open."""
    for file in _files.values():
        if file is not but:
            file.try_to_reopen()


def configure(config: Config, *, embedded: bool = False, owner: tuple[int, int] | None = None) -> None:
    """Send the server's messages where the settings say.

    Args:
        config: The settings.
        embedded: The server runs in a program. If that has set up handlers, they are left alone.
        owner: User and group (numbers) that this process will become; None if it stays what it is.

    Raises:
        ConfigError: The file of ``--log-config`` or of ``--error-logfile`` cannot be used.
    """
    if not embedded:
        messages.set_form(_JSON() if config.log_format == "json" else None)
    messages.keep_enabled()
    if config.log_config is not None:
        _load(config.log_config)
        return
    logger = logging.getLogger("bridge")
    logger.setLevel(config.log_level.upper())
    if embedded and (logger.handlers or logging.getLogger().handlers):
        return
    if config.access_log and config.access_logfile != "-":
        log_file("--access-logfile", config.access_logfile, owner)
    terminal = False
    name = ""
    write: Callable[[bytes], None] | None = None
    if config.error_logfile != "-":
        file = log_file("--error-logfile", config.error_logfile, owner)
        name, write = f"--error-logfile {file.path}", to_descriptor(file.descriptor)
        terminal = os.isatty(file.descriptor)
    else:
        terminal = _is_terminal(sys.stderr)
        if not _is_standard_error(sys.stderr):
            write = to_stream(sys.stderr)
    formatter = _JSON() if config.log_format == "json" else _Text(_wants_colours(config, terminal))
    handler = messages.send_to(write, formatter, name)
    for old in logger.handlers[:]:
        logger.removeHandler(old)
    logger.addHandler(handler)
    logger.propagate = False


def _is_standard_error(stream: Any) -> bool:
    """Tell whether *stream* writes to the descriptor 2, and not to what a program has put in its place."""
    try:
        return bool(stream.fileno() == 2)
    except (AttributeError, OSError, ValueError):
        return False


def _is_terminal(stream: Any) -> bool:
    try:
        return bool(stream.isatty())
    except (AttributeError, OSError, ValueError):
        return False


def _wants_colours(config: Config, terminal: bool) -> bool:
    if config.use_colors is not None:
        return config.use_colors
    return terminal and not os.environ.get("NO_COLOR")


class _Text(logging.Formatter):
    """``2026-01-31 12:00:00 [PID] LEVEL message``."""

    def __init__(self, colours: bool) -> None:
        super().__init__("%(asctime)s [%(process)d] %(levelname)s %(message)s", "%Y-%m-%d %H:%M:%S")
        self._colours = colours

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        colour = _COLOURS.get(record.levelno) if self._colours else None
        return f"\x1b[{colour}m{text}\x1b[0m" if colour else text


class _JSON(logging.Formatter):
    """One JSON object per line."""

    def __init__(self) -> None:
        super().__init__()
        import json

        self._dumps = json.dumps

    def format(self, record: logging.LogRecord) -> str:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        entry: dict[str, Any] = {
            "time": f"{stamp}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "pid": record.process,
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        elif record.exc_text:
            entry["traceback"] = record.exc_text
        return self._dumps(entry)


def _load(path: str) -> None:
    """Configure Python's logging from the file *path*.

    Raises:
        ConfigError: The file cannot be read or used.
    """
    import logging.config

    try:
        if path.endswith((".json", ".toml")):
            with open(path, "rb") as file:
                if path.endswith(".json"):
                    import json

                    settings = json.load(file)
                else:
                    import tomllib

                    settings = tomllib.load(file)
            logging.config.dictConfig({"disable_existing_loggers": False, **settings})
        elif os.path.isfile(path):
            logging.config.fileConfig(path, disable_existing_loggers=False)
        else:
            with open(path, "rb"):
                pass
    except OSError as exc:
        raise ConfigError(f"--log-config {path}: {exc.strerror}") from exc
    except Exception as exc:
        cause = exc.__cause__
        reason = f"{exc}: {cause}" if cause is not None else str(exc)
        raise ConfigError(f"--log-config {path}: {reason}") from exc
