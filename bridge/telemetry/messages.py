"""What the server has to say: handed to a thread, whatever logging is configured to do with it.

A process has one :class:`LineWriter` for messages. Those in the server's own form are lines in its queue. For handlers
of somebody else's (``--log-config``, or what the application has configured) the queue holds calls.
"""

from __future__ import annotations

import atexit
import contextvars
import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import bridge.core.log
from bridge.telemetry import streams
from bridge.telemetry.linewriter import LineWriter, to_descriptor

__all__ = [
    "Messages",
    "begin_process",
    "fail",
    "flush",
    "has_form",
    "keep_enabled",
    "say",
    "send_to",
    "serving",
    "set_form",
    "tell",
]

# The most messages that may wait.
_MOST = 10_000
# Seconds without a message after which the thread ends.
_IDLE = 1.0
# Seconds that the end of a process waits for its messages, and that what is said at once may take.
_AT_END = 1.0
_AT_ONCE = 0.25


class Messages(logging.Handler):
    """Formats messages for the thread that writes them.

    Args:
        writer: Writes the lines.
        formatter: Gives them their form.
        level: The least severe ones that are written.
    """

    def __init__(self, writer: LineWriter, formatter: logging.Formatter, level: int = logging.NOTSET) -> None:
        super().__init__(level)
        self.writer = writer
        self.setFormatter(formatter)

    def line(self, record: logging.LogRecord) -> bytes:
        """Return the line of *record*."""
        try:
            text = self.format(record)
        except Exception as exc:  # the arguments do not fit, or cannot be shown
            text = f"{record.name}: {record.msg!r} cannot be formatted: {exc!r}"
        return text.encode("utf-8", "backslashreplace") + b"\n"

    def filter(self, record: logging.LogRecord) -> Any:
        """Ask the filters that the application has added. A record stays if one of them fails."""
        try:
            return super().filter(record)
        except Exception:
            return True

    def emit(self, record: logging.LogRecord) -> None:
        """Queue the line of *record*."""
        self.writer.write(self.line(record))

    def flush(self) -> None:
        """Wait for the lines so far, for a second at most."""
        self.writer.flush(_AT_END)


class _Plain(logging.Formatter):
    """The text alone, below a traceback that is given as text."""

    def format(self, record: logging.LogRecord) -> str:
        return f"{record.exc_text or ''}{record.getMessage()}".removesuffix("\n")


class _State:
    """What this process does with its messages.

    Attributes:
        announcer: Writes to standard error what is said without a logger.
        handler: The server's own handler; None if others handle its messages.
        writer: Writes messages; the announcer's, if they go to standard error as well.
        defers: Handlers of other people's are called on the writer's thread.
        has_form: The form of messages was set.
        broken: Nobody has standard error open for reading.
    """

    def __init__(self) -> None:
        self.broken = False
        self.has_form = False
        self.announcer = Messages(_writer(to_descriptor(2), self._note), _Plain())
        self.handler: Messages | None = None
        self.writer = self.announcer.writer
        self.defers = False

    def _note(self, exc: Exception) -> None:
        self.broken = isinstance(exc, BrokenPipeError)


def _writer(write: Callable[[bytes], None], failed: Callable[[Exception], None] | None = None) -> LineWriter:
    return LineWriter(write, _MOST, name="bridge-log", idle=_IDLE, lost=_lost, failed=failed)


def _record(level: int, text: str, traceback: str = "") -> logging.LogRecord:
    record = logging.LogRecord("bridge", level, __file__, 0, text, None, None)
    record.exc_text = traceback or None
    return record


def _lost(number: int) -> bytes:
    record = _record(logging.WARNING, f"{number} message{'s were' if number > 1 else ' was'} lost: nothing took them")
    if _state.handler is None:
        logging.getLogger("bridge").handle(record)
        return b""
    return _state.handler.line(record)


_state = _State()


# ---------------------------------------------------------------------- where to, and in which form


def set_form(formatter: logging.Formatter | None) -> None:
    """Let *formatter* give its form to what :func:`say` says; None for plain text."""
    _state.has_form = True
    _state.announcer.setFormatter(formatter or _Plain())


def send_to(write: Callable[[bytes], None] | None, formatter: logging.Formatter, name: str = "") -> Messages:
    """Return the handler for the server's messages.

    Args:
        write: Writes blocks of lines; None for standard error.
        formatter: Gives messages their form.
        name: What *write* writes to. If that fails, standard error says so once.
    """

    def failed(exc: Exception) -> None:
        reason = getattr(exc, "strerror", None) or repr(exc)
        _state.announcer.emit(_record(logging.ERROR, f"bridge: {name}: {reason}; messages are lost"))

    _state.writer = _state.announcer.writer if write is None else _writer(write, failed if name else None)
    _state.handler = Messages(_state.writer, formatter)
    begin_process()
    return _state.handler


def begin_process() -> None:
    """Leave the writing to a thread, in a process that was forked to be a server."""
    _state.announcer.writer.direct = _state.writer.direct = False
    if _state.defers:
        atexit.unregister(_end_process)
        atexit.register(_end_process)


def has_form() -> bool:
    """Tell whether the settings were good enough to know how to speak."""
    return _state.has_form


# ---------------------------------------------------------------------- loggers that others configure


class _Kept(logging.Logger):
    """A logger of the server's: ``logging.config`` does not disable it, and no handler delays who uses it.

    What the application makes of records may fail, such as a factory or a filter that needs a request's context. Then
    the message is written without it.
    """

    def makeRecord(self, *arguments: Any, **options: Any) -> logging.LogRecord:
        """Make a record, by the application's factory if it can."""
        try:
            return super().makeRecord(*arguments, **options)
        except Exception:
            record = logging.LogRecord(*arguments[:8])
            record.__dict__.update(options.get("extra") or (arguments[8] if len(arguments) > 8 else None) or {})
            return record

    def filter(self, record: logging.LogRecord) -> Any:
        """Ask the filters. A record stays if one of them fails."""
        try:
            return super().filter(record)
        except Exception:
            return True

    @property
    def disabled(self) -> bool:
        return bool(self.__dict__.get("_disabled", False))

    @disabled.setter
    def disabled(self, value: bool) -> None:
        # By default, logging.config disables every logger that it is not told of. Other code that sets this means it.
        if not value or sys._getframe(1).f_globals.get("__name__") != "logging.config":
            self.__dict__["_disabled"] = value

    def callHandlers(self, record: logging.LogRecord) -> None:
        """Call the handlers, or let the thread call them. Access lines come from a thread already."""
        call = super().callHandlers
        if not _state.defers or self.name == "bridge.access" or _only_ours(self):
            call(record)
        elif not _state.writer.call(partial(contextvars.copy_context().run, call, record)):
            _state.writer.dropped += 1


def _only_ours(logger: logging.Logger) -> bool:
    found: logging.Logger | None = logger
    while found is not None:
        if not all(isinstance(handler, Messages) for handler in found.handlers):
            return False
        found = found.parent if found.propagate else None
    return True


def keep_enabled() -> None:
    """Keep the server's loggers enabled when ``logging.config`` disables all loggers that it is not told of."""
    for name in ("bridge", "bridge.access", "bridge.application", "bridge.general"):
        logger = logging.getLogger(name)
        kind = type(logger)
        if not issubclass(kind, _Kept):
            disabled = logger.__dict__.pop("disabled", False)
            logger.__class__ = _Kept if kind is logging.Logger else type("Kept", (_Kept, kind), {})
            logger.disabled = disabled


# ---------------------------------------------------------------------- a process of the server's


@contextmanager
def serving() -> Iterator[None]:
    """Let nothing that is logged delay this process, which exists to serve.

    That goes for handlers of other people's, for what is logged where no handler is, and for ``wsgi.errors``.
    """
    before = logging.lastResort
    formatter = _state.announcer.formatter
    assert formatter is not None
    plain = logging.Formatter("%(message)s") if isinstance(formatter, _Plain) else formatter
    logging.lastResort = Messages(_state.announcer.writer, plain, logging.WARNING)
    bridge.core.log.error_text = _write_text
    _state.defers = True
    atexit.unregister(_end_process)
    atexit.register(_end_process)
    try:
        yield
    finally:
        _state.writer.close(_AT_END)
        _state.announcer.writer.close(_AT_END)
        _state.defers = False
        bridge.core.log.error_text = None
        logging.lastResort = before


def _write_text(text: str) -> None:
    _state.announcer.writer.write(text.encode("utf-8", "backslashreplace"))


def flush(limit: float = _AT_END) -> None:
    """Wait for all messages so far, for *limit* seconds at most."""
    _state.writer.flush(limit)
    _state.announcer.writer.flush(limit)


def _end_process() -> None:
    flush()
    streams.abandon()
    _abandon_handlers()
    _state.announcer.writer.direct = _state.writer.direct = True  # the thread will not run for much longer


def _abandon_handlers() -> None:
    """Let the end of the interpreter wait for no handler that hangs, such as one whose server does not answer.

    ``logging.shutdown`` takes the lock of each handler, which the thread that hangs has. A handler that hung in a
    standard stream goes on now, and is waited for: the interpreter must not end while it writes.
    """
    end = time.monotonic() + _AT_END
    free = []
    references: Any = getattr(logging, "_handlerList", [])
    for reference in references:
        handler = reference()
        lock = None if handler is None else handler.lock
        if lock is None or lock.acquire(timeout=max(end - time.monotonic(), 0.0)):
            free.append(reference)
            if lock is not None:
                lock.release()
    references[:] = free


def say(text: str, level: int = logging.INFO, traceback: str = "") -> None:
    """Say something on standard error, whatever is configured for messages. Wait for a moment until it is written.

    Args:
        text: One line.
        level: Shown where the form has a level.
        traceback: Lines that are said before; each ends in a line feed.
    """
    _state.announcer.emit(_record(level, text, traceback))
    _state.announcer.writer.flush(_AT_ONCE)
    if _state.broken:
        _state.broken = False
        streams.replace_error()


def tell(text: str, level: int = logging.INFO, traceback: str = "") -> None:
    """Say something as :func:`say`, but to what the program has put in the place of standard error."""
    stream = sys.stderr
    if stream is None or stream is sys.__stderr__:
        say(text, level, traceback)
    else:
        stream.write(_state.announcer.line(_record(level, text, traceback)).decode())


def fail(text: str, traceback: str = "") -> None:
    """Say why the process ends, as :func:`tell` does."""
    tell(text, logging.CRITICAL, traceback)
