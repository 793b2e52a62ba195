"""What a line of the access log says: gunicorn's atoms, or JSON, made into one function.

For each exchange that function only puts the pieces of its line into a list that is joined for many lines at once.
Most pieces are ready, with the text around them: what was made of a request line, a header section or a small number
is kept. Together that costs about half of what formatting each line by itself does.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from time import monotonic_ns
from typing import TYPE_CHECKING, Any, Protocol

from bridge.errors import ConfigError

if TYPE_CHECKING:
    from bridge.core.connection.interfaces import Exchange
    from bridge.core.http.message import RequestHead, RequestLine

__all__ = ["Format", "Lines", "compile_format", "json_format"]

# Clients choose the keys, so there are bounds; numbers from here on are not kept.
_KEPT_MAX = 1024
_SMALL = 4096

# Where a piece comes from: it is the same for all lines; the time of day; made of a request line; made of a header
# section; made of a number; anything else, which is an expression that is not worth keeping.
_CONSTANT, _STAMP, _LINE, _SECTION, _NUMBER, _OTHER = range(6)


class Lines(Protocol):
    """What collects lines.

    Attributes:
        pieces: Of the lines so far.
        stamp: The piece with the time of day.
        until: When, by ``time.monotonic_ns()``, the time of day is another one, or it is time to join the pieces.
    """

    pieces: list[str]
    stamp: str
    until: int

    def turn(self, now: int) -> None:
        """Join the pieces, and look at the clock: *until* has come."""

    def waits(self, exchange: Exchange) -> bool:
        """Tell, once for each exchange, that its line has to wait: its peer has not read the response yet."""
        ...


class Piece:
    """A piece of a line.

    Args:
        kind: See above.
        make: Makes the text: of a request line, a head, a number, or an exchange; of nothing if it is the text.
        number: The source of the number that it is made of, in which ``total``, ``queue`` and ``written`` are
            microseconds; or of an expression that is the text, where it is always at hand.

    Attributes:
        before: Text in front of it.
        after: Text behind it.
    """

    def __init__(self, kind: int, make: Callable[[Any], str] | str = "", number: str = "") -> None:
        self.kind = kind
        self.make = make
        self.number = number
        self.before = self.after = ""

    def text(self, value: Any) -> str:
        """Return the piece, with what is around it, made of *value*."""
        assert not isinstance(self.make, str)
        return self.before + self.make(value) + self.after

    def source(self, name: str, known: dict[str, Any]) -> list[str]:
        """Return the lines of code that set the variable *name* to the piece; what they need goes into *known*."""
        if self.kind == _CONSTANT:
            known[name] = self.make
            return []
        if self.kind == _STAMP:
            return [f"{name} = lines.stamp"]
        kept: Any = [None] * _SMALL if self.kind == _NUMBER else {}
        known[f"kept_{name}"] = kept
        known[f"make_{name}"] = self._keeping(kept)
        if self.kind == _NUMBER:
            number = [] if self.number.isidentifier() else [f"number = {self.number}"]
            n = "number" if number else self.number
            return [*number, f"{name} = (kept_{name}[{n}] or make_{name}({n})) if {n} < {_SMALL} else make_{name}({n})"]
        if self.kind == _OTHER:
            return [f"{name} = {self.number or f'make_{name}(exchange)'}"]
        key, value = ("line", "line") if self.kind == _LINE else ("head.section", "head")
        return [f"try: {name} = kept_{name}[{key}]", f"except KeyError: {name} = make_{name}({value})"]

    def _keeping(self, kept: Any) -> Callable[[Any], str]:
        """Return a function that makes the piece and keeps it."""

        def of_number(number: int) -> str:
            text = self.text(number)
            if number < _SMALL:
                kept[number] = text
            return text

        def of_line(line: RequestLine) -> str:
            if len(kept) >= _KEPT_MAX:
                kept.clear()
            text = kept[line] = self.text(line)
            return text

        def of_head(head: RequestHead) -> str:
            text = self.text(head)
            if head.section is not None:
                if len(kept) >= _KEPT_MAX:
                    kept.clear()
                kept[head.section] = text
            return text

        makers: dict[int, Callable[[Any], str]] = {_NUMBER: of_number, _LINE: of_line, _SECTION: of_head}
        return makers.get(self.kind, self.text)


class Format:
    """A format of lines.

    Args:
        pieces: What a line consists of, constant text among them.
        time_format: For ``time.strftime``, in UTC.

    Attributes:
        timed: The exchanges have to have ``times``.
    """

    def __init__(self, pieces: list[Piece], time_format: str) -> None:
        self._pieces = _merged(pieces)
        self._time_format = time_format
        self._stamp = next((piece for piece in self._pieces if piece.kind == _STAMP), Piece(_STAMP))
        self.timed = any(self._uses(name) for name in ("total", "queue", "written"))

    def _uses(self, name: str) -> bool:
        return any(name in piece.number for piece in self._pieces)

    def stamp(self, second: int) -> str:
        """Return the piece with the time of day; *second* since the epoch."""
        return self._stamp.before + time.strftime(self._time_format, time.gmtime(second)) + self._stamp.after

    def observer(
        self, lines: Lines, excluded: frozenset[bytes], beginnings: tuple[bytes, ...]
    ) -> Callable[[Exchange], None]:
        """Return the function that puts the pieces of an ended exchange's line into *lines*.

        Args:
            lines: Where to.
            excluded: Paths without a line.
            beginnings: Beginnings of more of them.
        """
        known: dict[str, Any] = {
            "lines": lines,
            "excluded": excluded,
            "beginnings": beginnings,
            "monotonic_ns": monotonic_ns,
        }
        source = ["def ended(exchange):", "head = exchange.head", "line = head.line"]
        if excluded or beginnings:
            source += ["if line.path in excluded or line.path.startswith(beginnings): return"]
        if self._uses("total") or self._uses("written"):
            source += ["if exchange.write_paused and lines.waits(exchange): return"]
        source += ["now = monotonic_ns()", "if now >= lines.until: lines.turn(now)"]
        if self.timed:
            source += ["times = exchange.times"]
        if self._uses("total"):
            source += ["total = (now - times.opened) // 1000"]
        if self._uses("queue"):
            source += ["queue = int(times.queued * 1000000) if times.queued else 0"]
        if self._uses("written"):
            source += ["written = (now - times.began) // 1000 if times.began else 0"]
        names = [f"piece{index}" for index in range(len(self._pieces))]
        for name, piece in zip(names, self._pieces, strict=True):
            source += piece.source(name, known)
        source += ["pieces = lines.pieces", f"pieces += ({', '.join(names)},)"]
        # The source has none of the user's text in it: that stands in the dictionary.
        exec("\n    ".join(source), known)  # noqa: S102
        ended: Callable[[Exchange], None] = known["ended"]
        return ended


def _merged(pieces: list[Piece]) -> list[Piece]:
    """Let pieces that are kept take the constant text around them, and constant ones each other's."""
    merged: list[Piece] = []
    for piece in pieces:
        last = merged[-1] if merged else None
        if piece.kind == _CONSTANT:
            assert isinstance(piece.make, str)
            if last is None or last.kind == _OTHER:
                merged.append(Piece(_CONSTANT, piece.make))
            elif last.kind == _CONSTANT:
                assert isinstance(last.make, str)
                last.make += piece.make
            else:
                last.after += piece.make
        else:
            own = Piece(piece.kind, piece.make, piece.number)
            if last is not None and last.kind == _CONSTANT and piece.kind != _OTHER:
                assert isinstance(last.make, str)
                own.before = last.make
                merged.pop()
            merged.append(own)
    return merged


# --- atoms -----------------------------------------------------------------------------------------------------------

_ATOM = re.compile(r"%\((?:\{([^{}]+)\}([ioe])|header\{([^{}]+)\}|([A-Za-z_]+))\)[sd]|%%|%")
_COMMON_TIME = "[%d/%b/%Y:%H:%M:%S +0000]"
_ISO_TIME = "%Y-%m-%dT%H:%M:%SZ"


def _atoms() -> dict[str, Piece]:
    path = Piece(_LINE, lambda line: _quoted(line.path))
    query = Piece(_LINE, lambda line: _quoted(line.query))
    method = Piece(_LINE, lambda line: line.method_text)
    protocol = Piece(_LINE, lambda line: f"HTTP/{line.version_text}")
    client = Piece(_OTHER, number="exchange.context.remote_ip")
    status = Piece(_NUMBER, lambda number: str(number or "-"), "exchange.status")
    stamp = Piece(_STAMP)
    return {
        "h": client,
        "l": Piece(_CONSTANT, "-"),
        "u": Piece(_CONSTANT, "-"),
        "t": stamp,
        "r": Piece(_LINE, lambda line: f"{line.method_text} {_quoted(line.target)} HTTP/{line.version_text}"),
        "m": method,
        "U": path,
        "q": query,
        "H": protocol,
        "s": status,
        "B": Piece(_NUMBER, str, "exchange.content_sent"),
        "b": Piece(_NUMBER, lambda number: str(number or "-"), "exchange.content_sent"),
        "f": _request_field("referer"),
        "a": _request_field("user-agent"),
        "T": Piece(_NUMBER, str, "total // 1000000"),
        "M": Piece(_NUMBER, str, "total // 1000"),
        "D": Piece(_NUMBER, str, "total"),
        "L": Piece(_NUMBER, _decimal, "total"),
        "p": Piece(_CONSTANT, f"<{os.getpid()}>"),
        # what gunicorn has no letter for
        "request_id": Piece(_OTHER, number="exchange.context.request_id or '-'"),
        "queue": Piece(_NUMBER, _decimal, "queue"),
        "app": Piece(_NUMBER, _decimal, "total - queue - written"),
        "write": Piece(_NUMBER, _decimal, "written"),
        # the words of another family of servers
        "addr": client,
        "time": stamp,
        "dt_ms": Piece(_NUMBER, lambda number: f"{number // 1000}.{number % 1000:03d}", "total"),
        "status": status,
        "path": path,
        "query_string": query,
        "method": method,
        "protocol": protocol,
        "scheme": Piece(_OTHER, number="exchange.context.protocol"),
    }


def compile_format(form: str) -> Format:
    """Return the format that *form*, a text with atoms, describes.

    Raises:
        ConfigError: It names an unknown atom.
    """
    atoms = _atoms()
    pieces: list[Piece] = []
    position = 0
    for match in _ATOM.finditer(form):
        pieces.append(Piece(_CONSTANT, form[position : match.start()]))
        position = match.end()
        name, kind, header, atom = match.groups()
        if match[0] == "%%":
            pieces.append(Piece(_CONSTANT, "%"))
        elif header or kind == "i":
            pieces.append(_request_field(header or name))
        elif kind == "o":
            pieces.append(_response_field(name))
        elif kind == "e":
            pieces.append(_variable(name))
        elif atom in atoms:
            pieces.append(atoms[atom])
        else:
            shown = form[match.start() : match.start() + 20]
            fields = "{field}i, {field}o, {variable}e"
            raise ConfigError(f"--access-logformat: unknown atom at {shown!r}; known are {', '.join(atoms)}, {fields}")
    pieces.append(Piece(_CONSTANT, form[position:] + "\n"))
    return Format(pieces, _COMMON_TIME)


def json_format(identified: bool) -> Format:
    """Return the format of one JSON object a line; a client that left before the response has the status 0.

    Args:
        identified: Requests have ids of the server's; else an id is what the client says.
    """
    from json.encoder import encode_basestring_ascii

    def text(value: bytes) -> str:
        return encode_basestring_ascii(value.decode("latin-1"))

    def request(line: RequestLine) -> str:
        return (
            f'"method":{text(line.method)},"path":{text(line.path)},"query":{text(line.query)},'
            f'"protocol":"HTTP/{line.version_text}"'
        )

    names = {b"user-agent": "agent", b"referer": "referer"}
    if not identified:
        names[b"x-request-id"] = "request_id"

    def fields(head: RequestHead) -> str:
        found = {names[name]: text(value) for name, value in head.fields if name in names}
        return "".join(f',"{key}":{value}' for key, value in found.items())

    atoms = _atoms()
    values = {
        '{"time":"': Piece(_STAMP),
        '","client":"': atoms["h"],
        '",': Piece(_LINE, request),
        ',"status":': Piece(_NUMBER, str, "exchange.status"),
        ',"bytes":': atoms["B"],
        ',"seconds":': atoms["L"],
        ',"queue":': atoms["queue"],
        ',"app":': atoms["app"],
        ',"write":': atoms["write"],
        f',"pid":{os.getpid()}': Piece(_SECTION, fields),
    }
    if identified:
        values[',"request_id":"'] = atoms["request_id"]
    pieces = [piece for key, value in values.items() for piece in (Piece(_CONSTANT, key), value)]
    pieces.append(Piece(_CONSTANT, '"}\n' if identified else "}\n"))
    return Format(pieces, _ISO_TIME)


# --- values ----------------------------------------------------------------------------------------------------------


def _decimal(microseconds: int) -> str:
    return f"{microseconds // 1_000_000}.{microseconds % 1_000_000:06d}"


def _quoted(value: bytes) -> str:
    """Return *value* as text that cannot end the quotation or the line."""
    text = value.decode("latin-1")
    if text.isascii() and text.isprintable() and '"' not in text and "\\" not in text:
        return text
    return "".join(c if " " <= c <= "~" and c not in '"\\' else f"\\x{ord(c):02x}" for c in text)


def _request_field(name: str) -> Piece:
    wanted = name.lower().encode()
    return Piece(_SECTION, lambda head: next((_quoted(value) for name, value in head.fields if name == wanted), "-"))


def _response_field(name: str) -> Piece:
    wanted = name.lower().encode()

    def value(exchange: Exchange) -> str:
        found = exchange.response_field(wanted)
        return "-" if found is None else _quoted(found)

    return Piece(_OTHER, value)


def _variable(name: str) -> Piece:
    """Return the piece with a variable of the request, as CGI names it, or of the process's environment."""
    upper = name.upper()
    if upper.startswith("HTTP_") or upper in {"CONTENT_TYPE", "CONTENT_LENGTH"}:
        return _request_field(upper.removeprefix("HTTP_").replace("_", "-"))
    make = _VARIABLES.get(upper)
    if make is None:
        return Piece(_CONSTANT, _quoted(os.environ.get(name, "-").encode("utf-8", "replace")))
    return Piece(_OTHER, lambda exchange: _quoted(make(exchange).encode("latin-1", "replace")))


# RFC 3875 section 4.1, PEP 3333, and what gunicorn adds.
_VARIABLES: dict[str, Callable[[Exchange], str]] = {
    "REQUEST_METHOD": lambda exchange: exchange.head.line.method_text,
    "PATH_INFO": lambda exchange: exchange.head.line.path_text,
    "QUERY_STRING": lambda exchange: exchange.head.line.query.decode("latin-1"),
    "RAW_URI": lambda exchange: exchange.head.line.target.decode("latin-1"),
    "REQUEST_URI": lambda exchange: exchange.head.line.target.decode("latin-1"),
    "SERVER_PROTOCOL": lambda exchange: f"HTTP/{exchange.head.line.version_text}",
    "REMOTE_ADDR": lambda exchange: exchange.context.remote_ip,
    "REMOTE_PORT": lambda exchange: str(exchange.context.remote_port),
    "SERVER_NAME": lambda exchange: _local(exchange, 0),
    "SERVER_PORT": lambda exchange: _local(exchange, 1),
    "WSGI.URL_SCHEME": lambda exchange: exchange.context.protocol,
}


def _local(exchange: Exchange, index: int) -> str:
    address = exchange.context.local_address
    return str(address[index]) if isinstance(address, tuple) else "-"
