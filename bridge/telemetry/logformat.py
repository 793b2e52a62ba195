"""What a line of the access log says: gunicorn's atoms, or JSON, compiled to one function.

For each exchange, that function only adds the texts of the pieces of its line to a list, which is joined for many lines
at once. The texts of small numbers are kept, together with the constant text around them; those of what clients choose
are not. The function is compiled from source, because a loop over pieces would cost more than the pieces. The format
``%(h)s "%(r)s" %(s)s %(L)s`` gives::

    def ended(exchange):
        head = exchange.head
        line = head.line
        if exchange.write_paused and lines.defers(exchange): return
        now = monotonic_ns()
        if now >= lines.until: lines.renew(now)
        times = exchange.times
        total = (now - times.opened) // 1000
        piece0 = exchange.context.remote_ip if exchange.context.has_remote else "-"
        piece1 = make_piece1(line)
        number = exchange.status
        piece2 = (kept_piece2[number] or make_piece2(number)) if number < 4096 else make_piece2(number)
        piece3 = (kept_piece3[total] or make_piece3(total)) if total < 4096 else make_piece3(total)
        pieces = lines.pieces
        pieces += (piece0, piece1, piece2, piece3,)

``make_piece1`` makes the text of a request line with the constant text around it, for instance `` "GET / HTTP/1.1" ``.

Request lines were kept as well. Where each request has another one, the function takes 2.05 microseconds for a line of
the default format and took 2.79; where the client repeats itself, 1.3 and 0.9 (CPython 3.11). Only the access log needs
all this: other observers should read the exchange directly.
"""

from __future__ import annotations

import enum
import os
import re
import time
from collections.abc import Callable
from time import monotonic_ns
from typing import TYPE_CHECKING, Any, Protocol

from bridge.core.connection.states import CLOSED
from bridge.core.http.status import PHRASES
from bridge.core.http.trace import parse_traceparent
from bridge.core.http2.codes import error_name
from bridge.errors import ConfigError

if TYPE_CHECKING:
    from bridge.core.connection.interfaces import Exchange
    from bridge.core.http.message import RequestHead, RequestLine

__all__ = ["Format", "Lines", "compile_format", "is_known_atom", "json_format"]

# The texts of numbers below this are kept.
_SMALL = 4096


class Lines(Protocol):
    """Collects the lines of a log.

    Attributes:
        pieces: The texts of the lines so far, in order.
        stamp: The text with the time of day.
        until: The time (``time.monotonic_ns()``) at which the stamp is out of date, or the pieces must be joined.
    """

    pieces: list[str]
    stamp: str
    until: int

    def renew(self, now: int) -> None:
        """Join the pieces and renew the stamp. Called when *until* has come."""

    def defers(self, exchange: Exchange) -> bool:
        """Tell, once for each exchange, that its line has to wait until the peer has read the response."""
        ...


class Source(enum.Enum):
    """What the text of a piece is made of. It decides how long the text is kept."""

    CONSTANT = enum.auto()
    """Nothing: it is the same in all lines."""

    STAMP = enum.auto()
    """The time of day: the lines of one second share it."""

    LINE = enum.auto()
    """The request line: the text is not kept, since every client asks for something else."""

    HEAD = enum.auto()
    """The request's head: the text is not kept, since fields may be secrets."""

    NUMBER = enum.auto()
    """A whole number: the texts of small ones are kept."""

    EXCHANGE = enum.auto()
    """The exchange: the text is not kept."""


class Duration(enum.StrEnum):
    """A time that a piece needs, in microseconds; the value is the name of the variable in the function."""

    TOTAL = "total"
    """From the head to the end of the exchange."""

    QUEUE = "queue"
    """The part of it in which the request waited for a thread."""

    WRITE = "write"
    """The part of it after the first byte of the response."""


# What a text that is made each time is made of, as the generated function names it.
_MADE_OF = {Source.EXCHANGE: "exchange", Source.HEAD: "head", Source.LINE: "line"}


class Piece:
    """A piece of a line: where its text comes from.

    Args:
        source: What the text is made of.
        make: The text if it is constant; else the function that makes it of a request line, a head, a number or an
            exchange, as *source* says.
        expression: Python source. For NUMBER, it gives the number; for EXCHANGE, it gives the text and replaces *make*.
        needs: The durations that *expression* uses as variables.

    Attributes:
        before: Constant text in front of it.
        after: Constant text behind it.
    """

    def __init__(
        self,
        source: Source,
        make: Callable[[Any], str] | str = "",
        expression: str = "",
        needs: frozenset[Duration] = frozenset(),
    ) -> None:
        self.source = source
        self.make = make
        self.expression = expression
        self.needs = needs
        self.before = self.after = ""

    def copy(self) -> Piece:
        """Return the same piece without text around it."""
        return Piece(self.source, self.make, self.expression, self.needs)

    def text(self, value: Any) -> str:
        """Return the text made of *value*, with the constant text around it."""
        assert not isinstance(self.make, str)
        return self.before + self.make(value) + self.after

    def code(self, name: str, known: dict[str, Any]) -> list[str]:
        """Return the lines of code that set the variable *name* to the text. The objects they use go into *known*."""
        if self.source is Source.CONSTANT:
            known[name] = self.make
            return []
        if self.source is Source.STAMP:
            return [f"{name} = lines.stamp"]
        if self.source is Source.EXCHANGE and self.expression:
            return [f"{name} = {self.expression}"]
        if self.source in _MADE_OF:
            known[f"make_{name}"] = self.text
            return [f"{name} = make_{name}({_MADE_OF[self.source]})"]
        kept: list[str | None] = [None] * _SMALL
        known[f"kept_{name}"] = kept
        known[f"make_{name}"] = self._keeping(kept)
        number = [] if self.expression.isidentifier() else [f"number = {self.expression}"]
        n = "number" if number else self.expression
        return [*number, f"{name} = (kept_{name}[{n}] or make_{name}({n})) if {n} < {_SMALL} else make_{name}({n})"]

    def _keeping(self, kept: list[str | None]) -> Callable[[int], str]:
        """Return a function that makes the text of a number, and keeps that of a small one in *kept*."""

        def of_number(number: int) -> str:
            text = self.text(number)
            if number < _SMALL:
                kept[number] = text
            return text

        return of_number


class Format:
    """A format of lines.

    Args:
        pieces: The pieces of a line, constant text among them.
        time_format: The format of the time of day for ``time.strftime``, in UTC.

    Attributes:
        timed: The format has durations, so the exchanges must have ``times``.
    """

    def __init__(self, pieces: list[Piece], time_format: str) -> None:
        self._pieces = _merged(pieces)
        self._time_format = time_format
        self._stamp = next((piece for piece in self._pieces if piece.source is Source.STAMP), Piece(Source.STAMP))
        self._needs: frozenset[Duration] = frozenset().union(*(piece.needs for piece in self._pieces))
        self.timed = bool(self._needs)

    def stamp(self, second: int) -> str:
        """Return the text with the time of day for *second* (since the epoch)."""
        return self._stamp.before + time.strftime(self._time_format, time.gmtime(second)) + self._stamp.after

    def observer(
        self, lines: Lines, excluded: frozenset[bytes], beginnings: tuple[bytes, ...]
    ) -> Callable[[Exchange], None]:
        """Return the function that adds the line of an ended exchange to *lines*.

        Args:
            lines: Takes the pieces.
            excluded: Paths that get no line.
            beginnings: Paths that begin with one of these get no line either.
        """
        known: dict[str, Any] = {
            "lines": lines,
            "excluded": excluded,
            "beginnings": beginnings,
            "monotonic_ns": monotonic_ns,
            "CLOSED": CLOSED,
            "was_cut": _was_cut,
        }
        # No text of the user's is part of the source: texts are values in the dictionary.
        exec(self.source(known, exclude=bool(excluded or beginnings)), known)  # noqa: S102 -- see above
        ended: Callable[[Exchange], None] = known["ended"]
        return ended

    def source(self, known: dict[str, Any], *, exclude: bool) -> str:
        """Return the source of the function. The objects that it uses by name go into *known*.

        Args:
            known: Is added to.
            exclude: Some paths get no line.
        """
        code = ["head = exchange.head", "line = head.line"]
        if exclude:
            code += ["if line.path in excluded or line.path.startswith(beginnings): return"]
        if self._needs & {Duration.TOTAL, Duration.WRITE}:
            code += ["if exchange.write_paused and lines.defers(exchange): return"]
        code += ["now = monotonic_ns()", "if now >= lines.until: lines.renew(now)"]
        if self._needs:
            code += ["times = exchange.times"]
        if Duration.TOTAL in self._needs:
            code += ["total = (now - times.opened) // 1000"]
        if Duration.QUEUE in self._needs:
            code += ["queue = int(times.queued * 1000000) if times.queued else 0"]
        if Duration.WRITE in self._needs:
            code += ["write = (now - times.began) // 1000 if times.began else 0"]
        names = [f"piece{index}" for index in range(len(self._pieces))]
        for name, piece in zip(names, self._pieces, strict=True):
            code += piece.code(name, known)
        code += ["pieces = lines.pieces", f"pieces += ({', '.join(names)},)"]
        return "\n    ".join(["def ended(exchange):", *code])


def _merged(pieces: list[Piece]) -> list[Piece]:
    """Merge constant text into the pieces around it, so that fewer pieces are added per line.

    A piece whose text is not kept takes none, since joining the texts for every line would cost more than it saves.
    """
    merged: list[Piece] = []
    for piece in pieces:
        last = merged[-1] if merged else None
        if piece.source is Source.CONSTANT:
            assert isinstance(piece.make, str)
            if not piece.make:
                continue
            if last is None or last.source is Source.EXCHANGE:
                merged.append(piece.copy())
            elif last.source is Source.CONSTANT:
                assert isinstance(last.make, str)
                last.make += piece.make
            else:
                last.after += piece.make
        else:
            own = piece.copy()
            if last is not None and last.source is Source.CONSTANT and piece.source is not Source.EXCHANGE:
                assert isinstance(last.make, str)
                own.before = last.make
                merged.pop()
            merged.append(own)
    return merged


# --- atoms -----------------------------------------------------------------------------------------------------------

_ATOM = re.compile(
    r"%\((?:\{([^{}]+)\}([ioe])|header\{([^{}]+)\}|([A-Za-z_]+))\)(?:[-+ 0#]*[0-9]*(?:\.[0-9]+)?[sdf])|%%|%"
)
_COMMON_TIME = "[%d/%b/%Y:%H:%M:%S +0000]"
_ISO_TIME = "%Y-%m-%dT%H:%M:%SZ"


def _atoms() -> dict[str, Piece]:
    path = Piece(Source.LINE, lambda line: _quoted(line.path))
    query = Piece(Source.LINE, lambda line: _quoted(line.query))
    method = Piece(Source.LINE, lambda line: line.method_text)
    protocol = Piece(Source.LINE, lambda line: line.protocol_text)
    client = Piece(Source.EXCHANGE, expression='exchange.context.remote_ip if exchange.context.has_remote else "-"')
    status = Piece(Source.NUMBER, lambda number: str(number or "-"), "exchange.status")
    stamp = Piece(Source.STAMP)
    total = frozenset({Duration.TOTAL})
    return {
        "h": client,
        "l": Piece(Source.CONSTANT, "-"),
        "u": Piece(Source.HEAD, _user),
        "t": stamp,
        "r": Piece(Source.LINE, lambda line: f"{line.method_text} {_quoted(line.target)} {line.protocol_text}"),
        "m": method,
        "U": path,
        "q": query,
        "H": protocol,
        "s": status,
        "B": Piece(Source.NUMBER, str, "exchange.content_sent"),
        "b": Piece(Source.NUMBER, lambda number: str(number or "-"), "exchange.content_sent"),
        "f": _request_field("referer"),
        "a": _request_field("user-agent"),
        "T": Piece(Source.NUMBER, str, "total // 1000000", total),
        "M": Piece(Source.NUMBER, str, "total // 1000", total),
        "D": Piece(Source.NUMBER, str, "total", total),
        "L": Piece(Source.NUMBER, _decimal, "total", total),
        "p": Piece(Source.CONSTANT, f"<{os.getpid()}>"),
        # bridge's own, for which gunicorn has no letter
        "request_id": Piece(Source.EXCHANGE, expression="exchange.context.request_id or '-'"),
        "trace_id": Piece(Source.EXCHANGE, lambda exchange: _trace(exchange)[0]),
        "span_id": Piece(Source.EXCHANGE, lambda exchange: _trace(exchange)[1]),
        "queue": Piece(Source.NUMBER, _decimal, "queue", frozenset({Duration.QUEUE})),
        "app": Piece(Source.NUMBER, _decimal, "total - queue - write", frozenset(Duration)),
        "write": Piece(Source.NUMBER, _decimal, "write", frozenset({Duration.WRITE})),
        "cut": Piece(Source.EXCHANGE, expression='" cut" if exchange.writing is CLOSED and was_cut(exchange) else ""'),
        "X": Piece(
            Source.EXCHANGE,
            expression='("-" if exchange.close_after else "+")'
            ' if exchange.writing is not CLOSED or not was_cut(exchange) else "X"',
        ),
        "stream": Piece(Source.EXCHANGE, expression='str(exchange.stream_id or "-")'),
        "reset": Piece(Source.EXCHANGE, lambda exchange: _reset(exchange) or "-"),
        # hypercorn's, and the version alone
        "S": Piece(Source.EXCHANGE, expression="exchange.context.protocol"),
        "st": Piece(Source.NUMBER, lambda number: PHRASES.get(number, b"-").decode(), "exchange.status"),
        "Uq": Piece(Source.LINE, lambda line: _quoted(line.target)),
        "R": Piece(Source.LINE, lambda line: f"{line.method_text} {_quoted(line.path)} HTTP/{line.version_text}"),
        "V": Piece(Source.LINE, lambda line: line.version_text),
        # the names that another family of servers uses
        "addr": client,
        "time": stamp,
        "dt_ms": Piece(Source.NUMBER, lambda number: f"{number // 1000}.{number % 1000:03d}", "total", total),
        "status": status,
        "path": path,
        "query_string": query,
        "method": method,
        "protocol": protocol,
        "scheme": Piece(Source.EXCHANGE, expression="exchange.context.protocol"),
    }


def _was_cut(exchange: Exchange) -> bool:
    """Tell of an exchange that has ended early whether the application's response was: not the server's own refusal."""
    return exchange.status == 0 or (exchange.response is not None and exchange.response.status == exchange.status)


def _reset(exchange: Exchange) -> str:
    """Return the name of the error code with which the stream was reset; empty if it was not."""
    return error_name(exchange.reset_code) if exchange.reset_code >= 0 else ""


def _json_http2(exchange: Exchange) -> str:
    """Return the member of an object of JSON that says what only HTTP/2 has; empty over HTTP/1."""
    if exchange.stream_id is None:
        return ""
    reset = _reset(exchange)
    return f',"http2":{{"stream":{exchange.stream_id}' + (f',"reset":"{reset}"}}' if reset else "}")


def _trace(exchange: Exchange) -> tuple[str, str]:
    """Return the trace id and the parent id that the client has sent; dashes if it has sent none."""
    return parse_traceparent(exchange.head.fields) or ("-", "-")


def compile_format(form: str) -> Format:
    """Return the format that the text *form* describes with atoms.

    Raises:
        ConfigError: It names an unknown atom.
    """
    atoms = _atoms()
    pieces: list[Piece] = []
    position = 0
    for match in _ATOM.finditer(form):
        pieces.append(Piece(Source.CONSTANT, form[position : match.start()]))
        position = match.end()
        name, kind, header, atom = match.groups()
        if match[0] == "%%":
            pieces.append(Piece(Source.CONSTANT, "%"))
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
    pieces.append(Piece(Source.CONSTANT, form[position:] + "\n"))
    return Format(pieces, _COMMON_TIME)


def is_known_atom(name: str) -> bool:
    """Tell whether ``%(name)s`` is an atom of :func:`compile_format`."""
    match = _ATOM.fullmatch(f"%({name})s")
    return match is not None and (match[4] is None or match[4] in _atoms())


def json_format(identified: bool) -> Format:
    """Return the format of one JSON object per line. The status is 0 if the client left before the response.

    Args:
        identified: The server gives each request an id. Otherwise the client's own id is logged.
    """
    from json.encoder import encode_basestring_ascii

    def text(value: bytes) -> str:
        return encode_basestring_ascii(value.decode("latin-1"))

    def request(line: RequestLine) -> str:
        return (
            f'"method":{text(line.method)},"path":{text(line.path)},"query":{text(line.query)},'
            f'"protocol":"{line.protocol_text}"'
        )

    names = {b"user-agent": "agent", b"referer": "referer"}
    if not identified:
        names[b"x-request-id"] = "request_id"

    def fields(head: RequestHead) -> str:
        found = {names[name]: text(value) for name, value in head.fields if name in names}
        trace = parse_traceparent(head.fields)
        if trace is not None:
            found["trace_id"] = f'"{trace[0]}"'
        return "".join(f',"{key}":{value}' for key, value in found.items())

    def constant(text: str) -> Piece:
        return Piece(Source.CONSTANT, text)

    atoms = _atoms()
    pieces = [
        *(constant('{"time":"'), Piece(Source.STAMP), constant('"')),
        *(constant(',"client":"'), atoms["h"], constant('"')),
        *(constant(","), Piece(Source.LINE, request)),
        *(constant(',"status":'), Piece(Source.NUMBER, str, "exchange.status")),
        *(constant(',"bytes":'), atoms["B"]),
        Piece(
            Source.EXCHANGE,
            expression="""',"cut":true' if exchange.writing is CLOSED and was_cut(exchange) else ''""",
        ),
        *(constant(',"seconds":'), atoms["L"]),
        *(constant(',"queue":'), atoms["queue"]),
        *(constant(',"app":'), atoms["app"]),
        *(constant(',"write":'), atoms["write"]),
        constant(f',"pid":{os.getpid()}'),
        Piece(Source.EXCHANGE, _json_http2),
        Piece(Source.HEAD, fields),
    ]
    if identified:
        pieces += [constant(',"request_id":"'), atoms["request_id"], constant('"')]
    return Format([*pieces, constant("}\n")], _ISO_TIME)


# --- values ----------------------------------------------------------------------------------------------------------


def _decimal(microseconds: int) -> str:
    return f"{microseconds // 1_000_000}.{microseconds % 1_000_000:06d}"


def _quoted(value: bytes) -> str:
    """Return *value* as text that can end neither the quotation nor the line."""
    text = value.decode("latin-1")
    if text.isascii() and text.isprintable() and '"' not in text and "\\" not in text:
        return text
    return "".join(c if " " <= c <= "~" and c not in '"\\' else f"\\x{ord(c):02x}" for c in text)


def _user(head: RequestHead) -> str:
    """Return the name in the credentials of the scheme Basic (RFC 7617), which nobody has checked here."""
    value = next((value for name, value in head.fields if name == b"authorization"), b"")
    scheme, _, credentials = value.partition(b" ")
    if scheme.lower() != b"basic":
        return "-"
    from binascii import Error, a2b_base64

    try:
        user, colon, _ = a2b_base64(credentials.strip()).partition(b":")
    except Error:
        return "-"
    return _quoted(user) if colon and user else "-"


def _request_field(name: str) -> Piece:
    wanted = name.lower().encode()
    return Piece(Source.HEAD, lambda head: next((_quoted(value) for name, value in head.fields if name == wanted), "-"))


def _response_field(name: str) -> Piece:
    wanted = name.lower().encode()

    def value(exchange: Exchange) -> str:
        found = exchange.response_field(wanted)
        return "-" if found is None else _quoted(found)

    return Piece(Source.EXCHANGE, value)


def _variable(name: str) -> Piece:
    """Return the piece with a variable of the request, by its CGI name, or else of the process's environment."""
    upper = name.upper()
    if upper.startswith("HTTP_") or upper in {"CONTENT_TYPE", "CONTENT_LENGTH"}:
        return _request_field(upper.removeprefix("HTTP_").replace("_", "-"))
    make = _VARIABLES.get(upper)
    if make is None:
        return Piece(Source.CONSTANT, _quoted(os.environ.get(name, "-").encode("utf-8", "replace")))
    return Piece(Source.EXCHANGE, lambda exchange: _quoted(make(exchange).encode("latin-1", "replace")))


# RFC 3875 section 4.1, PEP 3333, and gunicorn's additions.
_VARIABLES: dict[str, Callable[[Exchange], str]] = {
    "REQUEST_METHOD": lambda exchange: exchange.head.line.method_text,
    "PATH_INFO": lambda exchange: exchange.head.line.path_text,
    "QUERY_STRING": lambda exchange: exchange.head.line.query.decode("latin-1"),
    "RAW_URI": lambda exchange: exchange.head.line.target.decode("latin-1"),
    "REQUEST_URI": lambda exchange: exchange.head.line.target.decode("latin-1"),
    "SERVER_PROTOCOL": lambda exchange: exchange.head.line.protocol_text,
    "REMOTE_ADDR": lambda exchange: exchange.context.remote_ip if exchange.context.has_remote else "-",
    "REMOTE_PORT": lambda exchange: str(exchange.context.remote_port),
    "SERVER_NAME": lambda exchange: _local(exchange, 0),
    "SERVER_PORT": lambda exchange: _local(exchange, 1),
    "WSGI.URL_SCHEME": lambda exchange: exchange.context.protocol,
}


def _local(exchange: Exchange, index: int) -> str:
    address = exchange.context.local_address
    return str(address[index]) if isinstance(address, tuple) else "-"
