"""``server.log``: gunicorn's logger over Python's loggers ``gunicorn.error`` and ``gunicorn.access``."""

from __future__ import annotations

import logging
import sys
import time
from typing import Any, ClassVar

__all__ = ["Logger", "make_logger", "overrides_access"]


class Logger:
    """What hooks call ``server.log`` and ``worker.log``; a base class for a ``logger_class``.

    Messages go where bridge's own go, unless a configuration of Python's logging says otherwise.

    Args:
        cfg: The settings.
    """

    LOG_LEVELS: ClassVar = {
        "critical": logging.CRITICAL,
        "error": logging.ERROR,
        "warning": logging.WARNING,
        "info": logging.INFO,
        "debug": logging.DEBUG,
    }
    loglevel = logging.INFO
    error_fmt = "%(asctime)s [%(process)d] [%(levelname)s] %(message)s"
    datefmt = "[%Y-%m-%d %H:%M:%S %z]"
    access_fmt = "%(message)s"
    syslog_fmt = "[%(process)d] %(message)s"

    def __init__(self, cfg: Any) -> None:
        self.error_log = logging.getLogger("gunicorn.error")
        self.access_log = logging.getLogger("gunicorn.access")
        if not self.error_log.handlers:
            self.error_log.parent = logging.getLogger("bridge")
        self.error_handlers: list[logging.Handler] = []
        self.access_handlers: list[logging.Handler] = []
        self.logfile = None
        self.cfg = cfg
        self.setup(cfg)

    def setup(self, cfg: Any) -> None:
        """Take the settings; a derived class adds handlers and filters here."""
        self.loglevel = self.LOG_LEVELS.get(str(cfg.loglevel).lower(), logging.INFO)
        self.error_log.setLevel(self.loglevel)
        self.access_log.setLevel(logging.INFO)

    def _set_handler(self, log: logging.Logger, output: Any, fmt: logging.Formatter, stream: Any = None) -> None:
        if output is None:
            return
        handler: logging.Handler = (
            logging.StreamHandler(stream or sys.stderr) if output == "-" else logging.FileHandler(output)
        )
        handler.setFormatter(fmt)
        handler._gunicorn = True  # type: ignore[attr-defined]  # gunicorn's own mark
        # A derived class calls this again with its own format: its handler replaces the one before.
        usual = logging.getLogger("bridge").handlers
        for other in log.handlers[:]:
            if hasattr(other, "_gunicorn"):
                other.close()
            if hasattr(other, "_gunicorn") or other in usual:
                log.removeHandler(other)
        log.addHandler(handler)
        log.propagate = False  # otherwise bridge's handler would write the message again

    def critical(self, msg: str, *args: Any, **kwargs: Any) -> None:
        """Log a message."""
        self.error_log.critical(msg, *args, **kwargs)

    def error(self, msg: str, *args: Any, **kwargs: Any) -> None:
        """Log a message."""
        self.error_log.error(msg, *args, **kwargs)

    def warning(self, msg: str, *args: Any, **kwargs: Any) -> None:
        """Log a message."""
        self.error_log.warning(msg, *args, **kwargs)

    def info(self, msg: str, *args: Any, **kwargs: Any) -> None:
        """Log a message."""
        self.error_log.info(msg, *args, **kwargs)

    def debug(self, msg: str, *args: Any, **kwargs: Any) -> None:
        """Log a message."""
        self.error_log.debug(msg, *args, **kwargs)

    def exception(self, msg: str, *args: Any, **kwargs: Any) -> None:
        """Log a message with the exception that is being handled."""
        self.error_log.exception(msg, *args, **kwargs)

    def log(self, lvl: int | str, msg: str, *args: Any, **kwargs: Any) -> None:
        """Log a message of a level, by its number or name."""
        if isinstance(lvl, str):
            lvl = self.LOG_LEVELS.get(lvl.lower(), logging.INFO)
        self.error_log.log(lvl, msg, *args, **kwargs)

    def atoms(self, resp: Any, req: Any, environ: dict[str, Any], request_time: Any) -> dict[str, Any]:
        """Return the atoms of a line of the access log."""
        status = str(resp.status).split(None, 1)[0]
        micro = int(request_time.total_seconds() * 1_000_000)
        atoms: dict[str, Any] = {
            "h": environ.get("REMOTE_ADDR", "-"), "l": "-", "u": "-", "t": self.now(),
            "r": f"{environ['REQUEST_METHOD']} {environ.get('RAW_URI', '')} {environ['SERVER_PROTOCOL']}",
            "s": status, "m": environ.get("REQUEST_METHOD"), "U": environ.get("PATH_INFO"),
            "q": environ.get("QUERY_STRING"), "H": environ.get("SERVER_PROTOCOL"),
            "b": str(resp.sent) if resp.sent else "-", "B": resp.sent, "f": environ.get("HTTP_REFERER", "-"),
            "a": environ.get("HTTP_USER_AGENT", "-"), "T": micro // 1_000_000, "D": micro, "M": micro // 1000,
            "L": f"{micro / 1_000_000:.6f}", "p": f"<{environ.get('gunicorn.pid', '')}>",
        }  # fmt: skip
        atoms.update({f"{{{name.lower()}}}i": value for name, value in req.headers})
        atoms.update({f"{{{name.lower()}}}o": value for name, value in resp.headers})
        atoms.update({f"{{{name.lower()}}}e": value for name, value in environ.items()})
        return atoms

    def access(self, resp: Any, req: Any, environ: dict[str, Any], request_time: Any) -> None:
        """Log a request."""
        atoms = _Safe(self.atoms(resp, req, environ, request_time))
        self.access_log.info(self.cfg.access_log_format, atoms)

    def now(self) -> str:
        """Return the time of day as the access log has it."""
        return time.strftime("[%d/%b/%Y:%H:%M:%S %z]")

    def reopen_files(self) -> None:
        """Do nothing: bridge reopens its log files itself."""

    def close_on_exec(self) -> None:
        """Do nothing: all files are closed already."""


class _Safe(dict[str, Any]):
    def __missing__(self, name: str) -> Any:
        return self.get(name.lower(), "-") if name.startswith("{") else "-"


def overrides_access(cls: type) -> bool:
    """Tell whether a logger class changes how the lines of the access log are made."""
    for method in ("access", "atoms"):
        owner = next((base for base in cls.__mro__ if method in vars(base)), None)
        if owner is not None and owner is not Logger and owner.__module__ != "gunicorn.glogging":
            return True
    return False


def make_logger(cls: Any, cfg: Any) -> Any:
    """Return an instance of *cls*, a class or its name; of Logger if *cls* is None or fails."""
    if isinstance(cls, str):
        import importlib

        module, _, name = cls.rpartition(".")
        try:
            cls = getattr(importlib.import_module(module), name)
        except Exception:
            logging.getLogger("bridge").exception("The logger class %s cannot be imported", cls)
            cls = None
    if cls is not None:
        if any(base.__module__ == "gunicorn.glogging" and base is not Logger for base in cls.__mro__):
            logging.getLogger("gunicorn.error").handlers.clear()  # gunicorn's class adds its own
        try:
            return cls(cfg)
        except Exception:
            logging.getLogger("bridge").exception("The logger class %s cannot be used", cls.__qualname__)
    return Logger(cfg)
