"""The heads of requests and responses as values (RFC 9110 section 6). A response head is checked when it is made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bridge.core.http.cache import remember
from bridge.core.http.fields import Field, Fields, Special, TextFields, check_fields
from bridge.core.http.status import HAS_NO_CONTENT, check_status
from bridge.core.http.uri import percent_decoded
from bridge.errors import LocalProtocolError

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["KnownHeads", "RequestHead", "RequestLine", "ResponseHead", "request_line", "with_fields"]

_NOT_SENT = (None, b"")
_COLON = ord(":")
# Version of HTTP -> its name in ASGI, its name in logs and CGI.
_VERSIONS = {b"1.1": ("1.1", "HTTP/1.1"), b"1.0": ("1.0", "HTTP/1.0"), b"2": ("2", "HTTP/2.0")}
# The most heads that a KnownHeads keeps, the most bytes of fields of such a head, and the most heads that it remembers
# as seen once.
_HEADS_MAX = 512
_HEAD_LENGTH_MAX = 1024
_ONCE_MAX = 64


class RequestLine:
    """A parsed request line. Several requests of a connection may share one object, so it never changes.

    The compiled parser makes lines and heads of types of its own, which have the same attributes.

    Attributes:
        method: The method as received.
        target: The request target as received.
        version: ``b"1.0"``, ``b"1.1"`` (a higher minor version is served as 1.1, RFC 9110 section 2.5) or ``b"2"``.
        path: The target's path, percent-encoded as received; ``b"*"`` for the asterisk-form.
        query: The part of the target after the first ``?``; empty if there is none.
        authority: The authority of an absolute-form target; empty for the other forms.
        version_text: The version as str.
        protocol_text: The protocol with its version, for logs and CGI: ``HTTP/1.1``, but ``HTTP/2.0``.
        method_text: The method as str.
        path_text: The path, percent-decoded once and read as UTF-8 (ASGI's ``path``). Octets that are not UTF-8
            become U+FFFD.
        plain: The request is neither HTTP/1.0 nor HEAD, so its response is framed in the usual way.
    """

    __slots__ = (
        "authority",
        "method",
        "method_text",
        "path",
        "path_text",
        "plain",
        "protocol_text",
        "query",
        "target",
        "version",
        "version_text",
    )

    method: bytes
    method_text: str
    target: bytes
    version: bytes
    version_text: str
    protocol_text: str
    path: bytes
    path_text: str
    query: bytes
    authority: bytes
    plain: bool


def request_line(
    method: bytes, method_text: str, target: bytes, version: bytes, path: bytes, query: bytes, authority: bytes
) -> RequestLine:
    """Return a request line of these parts; the arguments are its attributes."""
    # A function in place of an __init__: CPython 3.13 has no fast call for the __init__ of a class with slots. An
    # object with eight attributes costs 0.30 us with one and 0.17 us without (python -m benchmarks.instructions
    # plaintext).
    line = RequestLine()
    line.method = method
    line.method_text = method_text
    line.target = target
    line.version = version
    line.version_text, line.protocol_text = _VERSIONS[version]
    line.path = path
    line.query = query
    line.authority = authority
    line.plain = method_text != "HEAD" and version != b"1.0"
    line.path_text = percent_decoded(path).decode("utf-8", "replace") if b"%" in path else path.decode()
    return line


class RequestHead:
    """The head of a request. Several requests of a connection may share one object, so it never changes.

    Attributes:
        line: The request line.
        fields: (name, value) of every field line in wire order: names in lower case, values without surrounding
            white space. An absolute-form target's authority takes the place of the Host field (RFC 9112 section 3.2.2).
        host: The Host field's value; empty only in HTTP/1.0.
        content_length: Bytes of content; 0 for none; None for content of unknown length, such as chunks.
        keep_alive: The client wants the connection to persist (RFC 9112 section 9.3).
        expect_continue: The client waits for 100 (Continue) before it sends content (RFC 9110 section 10.1.1).
        upgrade: The Upgrade field's value in lower case; empty if the Connection field does not name it. In HTTP/2, the
            ``:protocol`` pseudo-field's value (RFC 8441).
        size: Bytes of the whole head, blank line included.
    """

    __slots__ = (
        "content_length",
        "expect_continue",
        "fields",
        "host",
        "keep_alive",
        "line",
        "size",
        "upgrade",
    )

    def __init__(
        self,
        line: RequestLine,
        fields: tuple[Field, ...],
        host: bytes,
        size: int,
        content_length: int | None = 0,
        keep_alive: bool = True,
        expect_continue: bool = False,
        upgrade: bytes = b"",
    ) -> None:
        self.line = line
        self.fields = fields
        self.host = host
        self.size = size
        self.content_length = content_length
        self.keep_alive = keep_alive
        self.expect_continue = expect_continue
        self.upgrade = upgrade

    @property
    def method(self) -> bytes:
        """The method as received."""
        return self.line.method

    @property
    def target(self) -> bytes:
        """The request target as received."""
        return self.line.target

    @property
    def version(self) -> bytes:
        """``b"1.0"``, ``b"1.1"`` or ``b"2"``."""
        return self.line.version

    @property
    def path(self) -> bytes:
        """The path, percent-encoded as received."""
        return self.line.path

    @property
    def query(self) -> bytes:
        """The query without its question mark."""
        return self.line.query


def with_fields(head: RequestHead, fields: tuple[Field, ...]) -> RequestHead:
    """Return a copy of *head* with other fields."""
    return RequestHead(
        head.line,
        fields,
        head.host,
        head.size,
        content_length=head.content_length,
        keep_alive=head.keep_alive,
        expect_continue=head.expect_continue,
        upgrade=head.upgrade,
    )


class ResponseHead:
    """A checked response head. What it says does not change, so it may be sent any number of times.

    Attributes:
        status: The status code.
        reason: The reason phrase; empty for the registered one.
        lines: The field lines with their CRLF, without those that steer the connection.
        length: The declared Content-Length in bytes, or NO_LENGTH.
        special: What the fields ask of the server, or None.
        block: The field lines, joined.
        plain: *special* is None, and responses with this status have content.
        encoded: A cache of HTTP/1's encoder, (default fields, encoded head) of the last time that this head was sent;
            (None, b"") before.
    """

    __slots__ = ("block", "encoded", "length", "lines", "plain", "reason", "special", "status")

    def __init__(self, status: int, fields: Fields | TextFields, reason: bytes = b"", text: bool = False) -> None:
        """Check status, reason and fields, and encode the fields.

        Args:
            status: 101, or 200 to 999.
            fields: (name, value) pairs of bytes.
            reason: The reason phrase; empty for the registered one.
            text: The pairs are of str, and are encoded in latin-1.

        Raises:
            LocalProtocolError: The status, the reason or a field is illegal.
        """
        status = check_status(status, reason)
        if status < 200 and status != 101:
            raise LocalProtocolError(f"{status} is no final status")
        self._set(status, reason, *check_fields(fields, text))

    def _set(self, status: int, reason: bytes, lines: list[bytes], length: int, special: Special | None) -> None:
        self.status = status
        self.reason = reason
        self.lines = lines
        self.length = length
        self.special = special
        self.block = b"".join(lines)
        self.plain = special is None and status not in HAS_NO_CONTENT
        self.encoded: tuple[bytes | None, bytes] = _NOT_SENT

    def with_length(self, length: int) -> ResponseHead:
        """Return a copy that declares a Content-Length of *length* bytes."""
        head = self.with_fields([(b"content-length", b"%d" % length)])
        head.length = length
        return head

    def with_fields(self, fields: Iterable[Field]) -> ResponseHead:
        """Return a copy with *fields* (names in lower case). Each one replaces all earlier fields of its name."""
        lines = self.lines
        for name, value in fields:
            lines = [line for line in lines if line[: len(name)].lower() != name or line[len(name)] != _COLON]
            lines.append(b"%b: %b\r\n" % (name, value))
        head = ResponseHead.__new__(ResponseHead)  # without __init__: status, reason and the other lines are checked
        head._set(self.status, self.reason, lines, self.length, self.special)
        return head

    def field(self, name: bytes) -> bytes | None:
        """Return the value of the first field *name* (lower case); None if there is none."""
        size = len(name)
        for line in self.lines:
            if line[:size].lower() == name and line[size] == _COLON:
                return line[size + 1 :].strip()
        return None


class KnownHeads(dict[object, ResponseHead]):
    """A bounded cache of response heads that applications have sent before, by status, reason and fields.

    Args:
        text: The fields are of str.
    """

    # One look-up replaces the check of every field. With this cache and the comparison of request heads
    # (RequestReader), a plain exchange takes 46,600 instructions instead of 57,100, and a browser's 135,000 instead of
    # 149,100 (python -m benchmarks.instructions plaintext and browser, CPython 3.13).
    #
    # A head is kept when it comes twice within a short while. Where each head has a value of its own, keeping every
    # head costs more than it saves: entries that are never read push useful ones out of the processor's cache. Heads
    # with cookies (secrets) and long heads (rare) are not kept.

    def __init__(self, text: bool = False) -> None:
        super().__init__()
        self._text = text
        self._once: dict[object, None] = {}

    def add(self, status: int, reason: bytes | str | None, fields: tuple[Any, ...]) -> ResponseHead:
        """Return a new head, and keep it under the tuple of these arguments if it has come before.

        Args:
            status: 101, or 200 to 999.
            reason: The reason phrase; empty or None for the registered one.
            fields: (name, value) pairs.

        Raises:
            LocalProtocolError: The status, the reason or a field is illegal.
        """
        key = (status, reason, fields)
        if isinstance(reason, str):
            try:
                reason = reason.encode("latin-1")
            except UnicodeEncodeError:
                raise LocalProtocolError(f"illegal reason phrase {reason[:80]!r}") from None
        head = ResponseHead(status, fields, reason or b"", self._text)
        try:
            if key in self._once:
                self._once.pop(key, None)  # not del: a server in another thread may have done it meanwhile
                remember(self, key, head, _HEADS_MAX)
            elif len(head.block) <= _HEAD_LENGTH_MAX and b"set-cookie" not in head.block.lower():
                remember(self._once, key, None, _ONCE_MAX)
        except (TypeError, ValueError):
            pass  # the key has no hash: a field is a list, or has a memoryview of a bytearray
        return head
