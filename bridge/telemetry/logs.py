"""Where the server's messages go: to standard error, to a file, or where a configuration of Python's logging says."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Mapping
from typing import Any, TextIO

from bridge.config import Config
from bridge.errors import ConfigError
from bridge.files import Identity, is_root, open_to_append
from bridge.telemetry import messages
from bridge.telemetry.linewriter import to_descriptor, to_stream

__all__ = [
    "AS_IT_IS",
    "LogFile",
    "access_logger",
    "configure",
    "configure_rest",
    "error_descriptor",
    "log_file",
    "open_files",
    "reopen",
    "take",
]

_COLOURS = {logging.WARNING: "33", logging.ERROR: "31", logging.CRITICAL: "1;31"}


class LogFile:
    """A file that lines are appended to. Its descriptor stays the same when it is opened again.

    Args:
        option: The setting, for error messages.
        path: The file.
        later: Whom this process will become; see :func:`bridge.files.open_to_append`.

    Attributes:
        path: The absolute path.
        descriptor: For ``os.write``.

    Raises:
        ConfigError: The file cannot be written.
    """

    def __init__(self, option: str, path: str, later: Identity | None = None) -> None:
        self._option = option
        self._later = later
        self._given: int | None = None
        self.path = os.path.abspath(path)
        self.descriptor = self._open()

    def reopen(self) -> None:
        """Open the file of this name again: after a rename it is a new one.

        Raises:
            ConfigError: The file cannot be written. The old one stays open.
        """
        new, self._given = self._given, None
        if new is None:
            new = self._open(wait=False)
        os.dup2(new, self.descriptor, inheritable=False)
        os.close(new)

    def take(self, descriptor: int) -> None:
        """Take a descriptor for the next call of :meth:`reopen`, from a process that may open the file."""
        if self._given is not None:
            os.close(self._given)
        self._given = descriptor

    def try_to_reopen(self) -> None:
        """Call :meth:`reopen`, and log its failure."""
        try:
            self.reopen()
        except ConfigError as exc:
            logging.getLogger("bridge").error("The log file stays the old one: %s", exc)

    def _open(self, *, wait: bool = True) -> int:
        try:
            return open_to_append(self.path, self._later, wait=wait)
        except OSError as exc:
            raise ConfigError(f"{self._option} {self.path}: {exc.strerror}") from exc


# The open log files by absolute path, since both logs may go to one file. They are opened before a fork, and the
# children share them.
_files: dict[str, LogFile] = {}


def log_file(option: str, path: str, later: Identity | None = None) -> LogFile:
    """Return the log file *path*; open it if this is the first call for it.

    Args:
        option: As for LogFile.
        path: As for LogFile.
        later: As for LogFile. Only the first call for a file uses it.

    Raises:
        ConfigError: It cannot be written.
    """
    key = os.path.abspath(path)
    if key not in _files:
        _files[key] = LogFile(option, path, later)
    return _files[key]


def open_files() -> dict[str, int]:
    """Return the descriptors of the log files by their paths."""
    return {path: file.descriptor for path, file in _files.items()}


def take(path: str, descriptor: int) -> None:
    """Give a descriptor to a log file; see :meth:`LogFile.take`. Close it if there is no such file."""
    if path in _files:
        _files[path].take(descriptor)
    else:
        os.close(descriptor)


def error_descriptor(config: Config) -> int:
    """Return the descriptor that messages are written to."""
    return 2 if config.error_logfile == "-" else log_file("--error-logfile", config.error_logfile).descriptor


def reopen(but: LogFile | None = None) -> None:
    """Open all log files except *but* again, after they have been renamed. On failure the old file stays open."""
    for file in _files.values():
        if file is not but:
            file.try_to_reopen()


# The file of --log-config, while this process is root and will not stay so.
_waiting: str | Mapping[str, Any] | None = None


def configure(config: Config, *, embedded: bool = False, later: Identity | None = None) -> None:
    """Send the server's messages where the settings say.

    The file of ``--log-config`` names code and log files. A process that will give up root does not run that code and
    writes to standard error, until it calls :func:`configure_rest`.

    Args:
        config: The settings.
        embedded: The server runs in a program. If that has set up handlers, they are left alone.
        later: The user and groups that this process will become; None if it stays as it is.

    Raises:
        ConfigError: The file of ``--log-config`` or of ``--error-logfile`` cannot be used.
    """
    global _waiting
    _waiting = None
    if not embedded:
        messages.set_form(_JSON() if config.log_format == "json" else None)
    messages.keep_enabled()
    logger = logging.getLogger("bridge")
    if config.log_config == AS_IT_IS:
        return
    if config.log_config is not None:
        if not is_root() or later is None or later.uid == 0:
            _load(config.log_config)
        else:
            _waiting = config.log_config
            if not embedded:
                _write_to_standard_error(logger, config)
        return
    logger.setLevel(config.log_level.upper())
    if embedded and (logger.handlers or logging.getLogger().handlers):
        return
    if config.access_log and config.access_logfile != "-":
        log_file("--access-logfile", config.access_logfile, later)
    if config.error_logfile == "-":
        _write_to_standard_error(logger, config)
    else:
        file = log_file("--error-logfile", config.error_logfile, later)
        name, terminal = f"--error-logfile {file.path}", os.isatty(file.descriptor)
        _handle_with(logger, messages.send_to(to_descriptor(file.descriptor), _formatter(config, terminal), name))


def configure_rest() -> None:
    """Configure Python's logging, if that has waited until this process has given up root.

    Raises:
        ConfigError: The file of ``--log-config`` cannot be used.
    """
    global _waiting
    path, _waiting = _waiting, None
    if path is None:
        return
    logger = logging.getLogger("bridge")
    for handler in logger.handlers[:]:
        logger.removeHandler(handler)
    logger.propagate = True
    _load(path)


def _write_to_standard_error(logger: logging.Logger, config: Config) -> None:
    stream = sys.stderr
    write = None if _is_standard_error(stream) else to_stream(stream)
    _handle_with(logger, messages.send_to(write, _formatter(config, _is_terminal(stream))))


def _formatter(config: Config, terminal: bool) -> logging.Formatter:
    return _JSON() if config.log_format == "json" else _Text(_wants_colours(config, terminal))


def _handle_with(logger: logging.Logger, handler: logging.Handler) -> None:
    """Make *handler* the only one of *logger*."""
    for old in logger.handlers[:]:
        logger.removeHandler(old)
    logger.addHandler(handler)
    logger.propagate = False
    for server in _stands_for:
        other = logging.getLogger(_LOGGERS[server][0])
        other.handlers[:] = [handler]
        other.setLevel(logger.level)
        other.propagate = False


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


#: A ``log_config`` that changes nothing: the program configures Python's logging, or wants none.
AS_IT_IS: Mapping[str, Any] = {"incremental": True}

# The loggers of other servers whose configuration is used for ours: that of messages, that of requests.
_MESSAGES_ELSEWHERE = ("gunicorn.error", "uvicorn.error", "uvicorn", "hypercorn.error", "_granian", "waitress")
_ACCESS_ELSEWHERE = ("gunicorn.access", "uvicorn.access", "hypercorn.access", "granian.access")


# The servers in whose place this one serves: applications use their loggers by name.
_LOGGERS = {
    "gunicorn": ("gunicorn.error", "gunicorn.access"),
    "uvicorn": ("uvicorn", "uvicorn.access"),
    "hypercorn": ("hypercorn.error", "hypercorn.access"),
    "granian": ("_granian", "granian.access"),
    "daphne": ("daphne", ""),
    "waitress-serve": ("waitress", ""),
}
_stands_for: list[str] = []


def stand_for(server: str) -> None:
    """Let the loggers of another server have the handlers of bridge's: applications take them by name.

    Call it before :func:`configure`.

    Args:
        server: Its command, such as ``gunicorn``.
    """
    if server in _LOGGERS and server not in _stands_for:
        _stands_for.append(server)


def _filtered_elsewhere(path: str, configured: bool) -> logging.Logger | None:
    """Return the other server's logger of requests, if the application has put filters or handlers to it.

    Args:
        path: The file for its lines, if it has no handlers; ``-`` is standard output.
        configured: There is ``--log-config``, so the handlers of the root logger are its handlers, too.
    """
    for server in _stands_for:
        name = _LOGGERS[server][1]
        logger = logging.root.manager.loggerDict.get(name)
        if isinstance(logger, logging.Logger) and (
            logger.filters or logger.handlers or logger.disabled or logger.level > logging.INFO
        ):
            if not (logger.hasHandlers() if configured else logger.handlers):
                handler = logging.StreamHandler(sys.stdout if path == "-" else _stream(path))
                form = "%(levelname)s:     %(message)s" if server == "uvicorn" else "%(message)s"
                handler.setFormatter(logging.Formatter(form))
                logger.addHandler(handler)
                logger.propagate = False
            if logger.level == logging.NOTSET:
                logger.setLevel(logging.INFO)
            return logger
    return None


def _stream(path: str) -> TextIO:
    """Return the access log's file as a stream. It stays open when the file is opened again under its name."""
    descriptor = log_file("--access-logfile", path).descriptor
    return open(descriptor, "a", encoding="utf-8", errors="backslashreplace", closefd=False)


def access_logger(path: str = "-", *, configured: bool = True) -> logging.Logger:
    """Return the logger for the lines of requests.

    It is ``bridge.access``, unless ``--log-config`` has handlers for that of another server and none for this one: a
    configuration that was written for the other server goes on working.

    Args:
        path: The file for the lines, if none of the loggers has handlers; ``-`` is standard output.
        configured: There is ``--log-config``. Without it, what the application does to another server's loggers counts
            only where bridge stands for that server.
    """
    own = logging.getLogger("bridge.access")
    filtered = _filtered_elsewhere(path, configured)
    if filtered is not None and not own.handlers:
        return filtered
    if own.handlers or own.parent is None or (own.parent.name == "bridge" and own.parent.handlers):
        return own
    for name in _ACCESS_ELSEWHERE if configured else ():
        if _is_configured(name):
            return logging.getLogger(name)
    for server in _stands_for if configured else ():
        if _LOGGERS[server][1]:  # handlers of the root logger get the records under the name that they know
            return logging.getLogger(_LOGGERS[server][1])
    return own


def _take_place() -> None:
    """Let the messages go where a configuration for another server sends that server's."""
    logger = logging.getLogger("bridge")
    if logger.handlers:
        return
    for name in _MESSAGES_ELSEWHERE:
        if _is_configured(name):
            logger.parent = logging.getLogger(name)
            logger.setLevel(logging.NOTSET)  # the other logger's level counts
            logger.propagate = True
            return


def _is_configured(name: str) -> bool:
    logger = logging.root.manager.loggerDict.get(name)
    return isinstance(logger, logging.Logger) and bool(logger.handlers)


def _load(source: str | Mapping[str, Any]) -> None:
    """Configure Python's logging from a file, or from a dictionary for ``logging.config.dictConfig``.

    Raises:
        ConfigError: The file cannot be read or used, or the dictionary cannot.
    """
    import logging.config

    path = source if isinstance(source, str) else "(a dictionary)"
    try:
        if not isinstance(source, str):
            logging.config.dictConfig({"version": 1, "disable_existing_loggers": False, **source})
        elif path.endswith((".json", ".toml", ".yaml", ".yml")):
            with open(path, "rb") as file:
                settings = _parsed(path, file.read())
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
    _take_place()


def _parsed(path: str, data: bytes) -> dict[str, Any]:
    if path.endswith(".json"):
        import json

        settings = json.loads(data)
    elif path.endswith(".toml"):
        import tomllib

        settings = tomllib.loads(data.decode())
    else:
        try:
            import yaml
        except ImportError:
            raise ValueError("needs the package PyYAML: pip install PyYAML, or use .json") from None
        settings = yaml.safe_load(data)
    if not isinstance(settings, dict):
        raise TypeError(f"{type(settings).__name__} is no dictionary")
    return settings
