"""The access log: one line for each exchange, in gunicorn's atoms or as JSON, written off the loop."""

from __future__ import annotations

import asyncio
import logging
import os
import queue
import re
import threading
import time
from collections.abc import Callable
from json.encoder import encode_basestring_ascii
from typing import TYPE_CHECKING, Protocol

from bridge.config import SETTINGS, Config
from bridge.errors import ConfigError
from bridge.supervisor.logs import LogFile, log_file

if TYPE_CHECKING:
    from bridge.core.exchange import Exchange
    from bridge.core.http1.head import RequestLine

__all__ = ["AccessLog", "LineWriter", "compile_format"]

_DEFAULT = next(row.default for row in SETTINGS if row.name == "access_logformat")
_CACHE_MAX = 1024


class LineWriter:
    """Writes lines on a thread of its own, so that a full pipe or a slow disk delays nobody.

    Args:
        write: Takes a block of whole lines; may wait; may raise OSError.
        most: Blocks that may wait; more are dropped and counted, since memory is worth more than lines.

    Attributes:
        dropped: Lines that were lost.
    """

    def __init__(self, write: Callable[[bytes], None], most: int = 1000) -> None:
        self._write = write
        self._queue: queue.Queue[bytes | Callable[[], None] | None] = queue.Queue(most)
        self.dropped = 0
        self._thread = threading.Thread(target=self._run, name="bridge-access-log", daemon=True)
        self._thread.start()

    def write(self, block: bytes) -> None:
        """Take a block of whole lines; never waits."""
        try:
            self._queue.put_nowait(block)
        except queue.Full:
            self.dropped += block.count(b"\n")

    def call(self, function: Callable[[], None]) -> None:
        """Call *function* when all that was taken before is written."""
        self._queue.put(function)

    def close(self) -> None:
        """Write what waits, for a second at most, and end the thread."""
        try:
            self._queue.put(None, timeout=1.0)
        except queue.Full:
            return
        self._thread.join(1.0)

    def _run(self) -> None:
        while (block := self._queue.get()) is not None:
            if not isinstance(block, bytes):
                block()
                continue
            try:
                self._write(block)
            except OSError:
                # Nowhere to complain: standard output is closed or the disk is full. Requests go on, lines are lost.
                self.dropped += block.count(b"\n")


def _to_descriptor(descriptor: int) -> Callable[[bytes], None]:
    def write(block: bytes) -> None:
        while block:
            block = block[os.write(descriptor, block) :]

    return write


def _to_logger(logger: logging.Logger) -> Callable[[bytes], None]:
    def write(block: bytes) -> None:
        for line in block.decode("utf-8", "replace").splitlines():
            logger.info("%s", line)

    return write


class AccessLog:
    """Observes exchanges and writes a line for each.

    Args:
        config: The settings.
        loop: The event loop; blocks of lines are handed over a few times a second.

    Attributes:
        file: Where the lines go, if that is a file.

    Raises:
        ConfigError: The format names an unknown atom, or the file cannot be written.
    """

    _INTERVAL = 0.1

    def __init__(self, config: Config, loop: asyncio.AbstractEventLoop) -> None:
        self.file: LogFile | None = None
        logger = logging.getLogger("bridge.access")
        if config.log_config is not None and logger.hasHandlers():
            write = _to_logger(logger)
        elif config.access_logfile == "-":
            write = _to_descriptor(1)
        else:
            self.file = log_file("--access-logfile", config.access_logfile)
            write = _to_descriptor(self.file.descriptor)
        self._writer = LineWriter(write)
        self._loop = loop
        self._time = loop.time
        self._lines: list[str] = []
        self._timer: asyncio.TimerHandle | None = None
        self._stamp = _Stamp()
        self._line: Line
        if config.log_format == "json":
            self._line = _JSONLine(self._stamp)
        elif config.access_logformat == _DEFAULT:
            self._line = _DefaultLine(self._stamp)
        else:
            self._line = compile_format(config.access_logformat, self._stamp)
        names = [name.encode() for name in config.access_log_exclude]
        self._excluded = frozenset(name for name in names if not name.endswith(b"*"))
        self._beginnings = tuple(name[:-1] for name in names if name.endswith(b"*"))

    def exchange_started(self, exchange: Exchange) -> None:
        """Note the time."""
        exchange.started = self._time()

    def exchange_ended(self, exchange: Exchange) -> None:
        """Write the line."""
        if self._excluded or self._beginnings:
            path = exchange.head.line.path
            if path in self._excluded or path.startswith(self._beginnings):
                return
        if self._timer is None:
            self._stamp.refresh()
            self._timer = self._loop.call_later(self._INTERVAL, self.flush)
        self._lines.append(self._line(exchange, self._time() - exchange.started))

    def flush(self) -> None:
        """Hand the lines over."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._lines:
            lines, self._lines = self._lines, []
            self._writer.write("".join(lines).encode("utf-8", "backslashreplace"))

    def reopen(self) -> None:
        """Open the file anew, for what is logged from now on."""
        self.flush()
        if self.file is not None:
            self._writer.call(self.file.try_to_reopen)

    def close(self) -> None:
        """Write what waits."""
        self.flush()
        self._writer.close()


class Line(Protocol):
    """Makes the line of an exchange that took *seconds*."""

    def __call__(self, exchange: Exchange, seconds: float) -> str: ...


class _Stamp:
    """The time of day as text; looked up once for a tenth of a second's lines, which saves 0.3 us a line.

    Attributes:
        common: As the common log format has it.
        iso: As ISO 8601 has it.
    """

    def __init__(self) -> None:
        self._second = 0
        self.refresh()

    def refresh(self) -> None:
        """Look at the clock."""
        second = int(time.time())
        if second != self._second:
            self._second = second
            moment = time.gmtime(second)
            self.common = time.strftime("%d/%b/%Y:%H:%M:%S +0000", moment)
            self.iso = time.strftime("%Y-%m-%dT%H:%M:%SZ", moment)


class _Requests(dict["RequestLine", str]):
    """Request lines as text. They are shared between requests, so the text is made once for many.

    What is in them was checked: visible ASCII only, so nothing can forge a line or an escape sequence.
    """

    def __init__(self, make: Callable[[RequestLine], str]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, line: RequestLine) -> str:
        if len(self) >= _CACHE_MAX:  # targets come from clients
            self.clear()
        text = self[line] = self._make(line)
        return text


def _request(line: RequestLine) -> str:
    return f"{line.method_text} {_quoted(line.target)} HTTP/{line.version_text}"


def _quoted(value: bytes) -> str:
    """Return *value* as text that cannot end the quotation or the line."""
    text = value.decode("latin-1")
    if text.isascii() and text.isprintable() and '"' not in text and "\\" not in text:
        return text
    return "".join(c if " " <= c <= "~" and c not in '"\\' else f"\\x{ord(c):02x}" for c in text)


class _DefaultLine:
    """The common log format with the seconds it took."""

    def __init__(self, stamp: _Stamp) -> None:
        self._stamp = stamp
        self._requests = _Requests(_request)

    def __call__(self, exchange: Exchange, seconds: float) -> str:
        return (
            f'{exchange.context.remote_ip} - - [{self._stamp.common}] "{self._requests[exchange.head.line]}" '
            f"{exchange.status or '-'} {exchange.content_sent} {seconds:.6f}\n"
        )


class _JSONLine:
    """One object a line; a client that left before the response has the status 0."""

    def __init__(self, stamp: _Stamp) -> None:
        self._stamp = stamp
        self._requests = _Requests(
            lambda line: (
                f'"method":{_json(line.method)},"path":{_json(line.path)},"query":{_json(line.query)},'
                f'"protocol":"HTTP/{line.version_text}"'
            )
        )

    def __call__(self, exchange: Exchange, seconds: float) -> str:
        agent = referer = identity = ""
        for name, value in exchange.head.fields:
            if name == b"user-agent":
                agent = f',"agent":{_json(value)}'
            elif name == b"referer":
                referer = f',"referer":{_json(value)}'
            elif name == b"x-request-id":
                identity = f',"request_id":{_json(value)}'
        return (
            f'{{"time":"{self._stamp.iso}","client":"{exchange.context.remote_ip}",{self._requests[exchange.head.line]},'
            f'"status":{exchange.status},"bytes":{exchange.content_sent},"seconds":{seconds:.6f},"pid":{os.getpid()}'
            f"{agent}{referer}{identity}}}\n"
        )


def _json(value: bytes) -> str:
    return encode_basestring_ascii(value.decode("latin-1"))


# --- formats ---------------------------------------------------------------------------------------------------------

Getter = Callable[["Exchange", float], object]


def _field(name: str) -> Getter:
    wanted = name.lower().encode()

    def get(exchange: Exchange, _: float) -> str:
        for field, value in exchange.head.fields:
            if field == wanted:
                return _quoted(value)
        return "-"

    return get


def _environment(name: str) -> Getter:
    return lambda *_: _quoted(os.environ.get(name, "-").encode("utf-8", "replace"))


def _atoms(stamp: _Stamp) -> dict[str, Getter]:
    requests = _Requests(_request)
    pid = f"<{os.getpid()}>"
    path: Getter = lambda exchange, _: _quoted(exchange.head.line.path)  # noqa: E731
    query: Getter = lambda exchange, _: _quoted(exchange.head.line.query)  # noqa: E731
    method: Getter = lambda exchange, _: exchange.head.line.method_text  # noqa: E731
    client: Getter = lambda exchange, _: exchange.context.remote_ip  # noqa: E731
    status: Getter = lambda exchange, _: exchange.status or "-"  # noqa: E731
    protocol: Getter = lambda exchange, _: f"HTTP/{exchange.head.line.version_text}"  # noqa: E731
    return {
        "h": client,
        "l": lambda *_: "-",
        "u": lambda *_: "-",
        "t": lambda *_: f"[{stamp.common}]",
        "r": lambda exchange, _: requests[exchange.head.line],
        "m": method,
        "U": path,
        "q": query,
        "H": protocol,
        "s": status,
        "B": lambda exchange, _: exchange.content_sent,
        "b": lambda exchange, _: exchange.content_sent or "-",
        "f": _field("referer"),
        "a": _field("user-agent"),
        "T": lambda _, seconds: int(seconds),
        "M": lambda _, seconds: int(seconds * 1000),
        "D": lambda _, seconds: int(seconds * 1_000_000),
        "L": lambda _, seconds: f"{seconds:.6f}",
        "p": lambda *_: pid,
        # the words of another family of servers
        "addr": client,
        "time": lambda *_: f"[{stamp.common}]",
        "dt_ms": lambda _, seconds: f"{seconds * 1000:.3f}",
        "status": status,
        "path": path,
        "query_string": query,
        "method": method,
        "protocol": protocol,
        "scheme": lambda exchange, _: exchange.context.protocol,
    }


_ATOM = re.compile(r"%\((?:\{([^{}]+)\}([ie])|header\{([^{}]+)\}|([A-Za-z_]+))\)[sd]|%%|%")


def compile_format(form: str, stamp: _Stamp | None = None) -> Line:
    """Return what makes lines of the format *form*.

    Args:
        form: Text with atoms.
        stamp: The time, kept up to date by the caller.

    Raises:
        ConfigError: It names an unknown atom.
    """
    atoms = _atoms(stamp or _Stamp())
    getters: list[Getter] = []

    def take(match: re.Match[str]) -> str:
        name, kind, header, atom = match.groups()
        if match[0] == "%%":
            return "%%"
        if header or kind == "i":
            getters.append(_field(header or name))
        elif kind == "e":
            getters.append(_environment(name))
        elif atom in atoms:
            getters.append(atoms[atom])
        else:
            shown = form[match.start() : match.start() + 20]
            raise ConfigError(
                f"--access-logformat: unknown atom at {shown!r}; known are {', '.join(atoms)}, {{field}}i"
            )
        return "%s"

    template = _ATOM.sub(take, form) + "\n"

    def line(exchange: Exchange, seconds: float) -> str:
        return template % tuple([get(exchange, seconds) for get in getters])

    return line
