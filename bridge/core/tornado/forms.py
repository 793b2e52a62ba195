"""Reads forms in a request's content: ``application/x-www-form-urlencoded`` and ``multipart/form-data``.

Values are bytes: only the application knows their encoding. The multipart parser is werkzeug's, which also accepts bare
CR, bare LF and folded lines. Two readers of one form must not see different parts, so this module checks that the
octets which the parser took for delimiters and header sections are those of RFC 2046 section 5.1.1.
"""

from __future__ import annotations

import re
from binascii import a2b_qp
from collections.abc import Iterator
from io import BytesIO
from typing import TYPE_CHECKING, Any

from bridge.core.tornado.startline import HTTPInputError

if TYPE_CHECKING:
    from werkzeug.datastructures import Headers
    from werkzeug.sansio.multipart import Event, Field, File

    from bridge.core.tornado.headers import HTTPHeaders

__all__ = [
    "HTTPFile",
    "ParseBodyConfig",
    "ParseMultipartConfig",
    "ParseUrlEncodedConfig",
    "check_argument_count",
    "parse_body_arguments",
    "parse_multipart_form_data",
    "parse_query",
    "set_parse_body_config",
]

# A line of a part's header section: a token, a colon, and UTF-8 without control characters but HTAB.
_PART_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+:")
_PART_VALUE = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f]*")
# Most bytes of a boundary (RFC 2046 section 5.1.1). The module re compiles patterns from it and keeps them: a boundary
# of 8000 bytes costs 30 ms, and a few hundred of them 50 MB.
_BOUNDARY_MAX = 70
# Most bytes before the first delimiter, and most blanks behind one: the parser's patterns take 80 ns for each of them
# without a pause.
_PREAMBLE_MAX = 8192
_PADDING_MAX = 1000
# Most occurrences of the boundary in a form, delimiters or not.
_MARKS_MAX = 100_000
_BLANKS = b" \t\v\f"
_URLENCODED = "application/x-www-form-urlencoded"
_LONE_PERCENT = re.compile(rb"%(?![0-9A-Fa-f]{2})")
# Most lone percent signs in one form: each takes 0.2 microseconds.
_LONE_MAX = 10_000
# Bytes of a multipart form that are searched, copied or parsed without a pause for other threads. Without this limit, a
# form of 99 MiB stopped the event loop for up to 338 ms, and one of 20 MiB for up to 67 ms.
_STEP = 1 << 18
# Bytes that are decoded at once: re.sub holds an object for each part between lone percent signs until it returns.
_PIECE = 8192


class ParseMultipartConfig:
    """Limits for ``multipart/form-data``.

    Attributes:
        enabled: Read such forms; otherwise they are refused.
        max_parts: Most parts of one form.
        max_part_header_size: Most bytes of one part's header section.
    """

    def __init__(self, enabled: bool = True, max_parts: int = 100, max_part_header_size: int = 10 * 1024) -> None:
        self.enabled = enabled
        self.max_parts = max_parts
        self.max_part_header_size = max_part_header_size


class ParseUrlEncodedConfig:
    """Limits for ``application/x-www-form-urlencoded``, in the content and in the query.

    Attributes:
        max_arguments: Most arguments of one form or query.
        max_size: Most bytes of one form, which is read in one turn of the event loop: 4 MiB take up to 50 ms.
    """

    def __init__(self, max_arguments: int = 1000, max_size: int = 4 << 20) -> None:
        self.max_arguments = max_arguments
        self.max_size = max_size


class ParseBodyConfig:
    """Limits for forms.

    Attributes:
        multipart: The limits for ``multipart/form-data``.
        urlencoded: The limits for ``application/x-www-form-urlencoded``.
    """

    def __init__(
        self, multipart: ParseMultipartConfig | None = None, urlencoded: ParseUrlEncodedConfig | None = None
    ) -> None:
        self.multipart = ParseMultipartConfig() if multipart is None else multipart
        self.urlencoded = ParseUrlEncodedConfig() if urlencoded is None else urlencoded


_config = ParseBodyConfig()


def set_parse_body_config(config: ParseBodyConfig) -> None:
    """Set the process's limits, which apply wherever no others are passed."""
    global _config
    _config = config


class HTTPFile(dict[str, Any]):
    """An uploaded file: a dict whose keys are attributes, too.

    Attributes:
        filename: The name that the client gave it. Do not use it as a path.
        body: The file's content.
        content_type: The type that the client gave it; ``application/unknown`` for none.
    """

    __slots__ = ()

    filename: str
    body: bytes
    content_type: str

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}") from None

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value


Arguments = dict[str, list[bytes]]
Files = dict[str, list[HTTPFile]]


def check_argument_count(query: str | bytes, limit: int | None = None, what: str = "query string") -> None:
    """Refuse *query* if it has too many arguments. They are counted, not read.

    Args:
        query: A query or a urlencoded form.
        limit: Most arguments; None for the process's limit.
        what: The name of *query* in messages.

    Raises:
        HTTPInputError: It has more arguments than *limit*.
    """
    if limit is None:
        limit = _config.urlencoded.max_arguments
    if len(query) < limit:
        return
    count = 1 + (query.count("&") if isinstance(query, str) else query.count(b"&"))
    if count > limit:
        raise HTTPInputError(f"Invalid {what}: Max number of fields exceeded: {count}, limit {limit}")


def parse_query(query: str | bytes, limit: int | None = None, what: str = "query string") -> Arguments:
    """Return name -> list of values of a query or a urlencoded form. Empty values are kept.

    Names are latin-1 text, values are octets; both are percent-decoded.

    Args:
        query: Octets, or latin-1 text.
        limit: Most arguments; None for the process's limit.
        what: The name of *query* in messages.

    Raises:
        HTTPInputError: It has more arguments than *limit*, or very many percent signs that begin no escape; or the text
            is not latin-1.
    """
    check_argument_count(query, limit, what)
    try:
        octets = query.encode("latin-1") if isinstance(query, str) else query
    except UnicodeEncodeError as exc:
        raise HTTPInputError(f"Invalid {what}: {exc}") from None
    arguments: Arguments = {}
    lone = 0
    for pair in octets.split(b"&"):
        if pair:
            name, _, value = pair.partition(b"=")
            name, in_name = _decoded(name, _LONE_MAX - lone)
            value, in_value = _decoded(value, _LONE_MAX - lone)
            lone += in_name + in_value
            if lone > _LONE_MAX:
                raise HTTPInputError(f"Invalid {what}: more than {_LONE_MAX} percent signs without two digits")
            arguments.setdefault(name.decode("latin-1"), []).append(value)
    return arguments


def _decoded(octets: bytes, most: int) -> tuple[bytes, int]:
    """Percent-decode *octets*, with "+" for space. Return them, and how many percent signs begin no escape.

    Such percent signs stay.

    Args:
        octets: A name or a value.
        most: Decoding stops after the piece in which the number of such signs exceeds this.
    """
    octets = octets.replace(b"+", b" ")
    if b"%" not in octets:
        return octets, 0
    # urllib splits the text at every "%": 33 MB of alternating "%41" and "%" took 3.1 s, as with a function for each
    # run of escapes. Quoted-printable writes the same escapes with "=" (RFC 2045 section 6.7) and has a decoder in C:
    # 33 MB of escapes take 0.3 s. An "=" in the text is escaped first.
    octets = octets.replace(b"=", b"%3D")
    pieces = []
    start = lone = 0
    while start < len(octets) and lone <= most:
        end = start + _PIECE
        cut = octets.rfind(b"%", end - 2, end)  # the piece must not end inside an escape
        end = cut if cut >= 0 else end
        piece, count = _LONE_PERCENT.subn(b"%25", octets[start:end])
        lone += count
        pieces.append(a2b_qp(piece.replace(b"%", b"=")))
        start = end
    return b"".join(pieces), lone


def is_form(content_type: str) -> bool:
    """Tell whether content of this type is a form."""
    return content_type.lower().startswith((_URLENCODED, "multipart/form-data"))


def parse_body_arguments(
    content_type: str,
    body: bytes,
    arguments: Arguments,
    files: Files,
    headers: HTTPHeaders | None = None,
    *,
    config: ParseBodyConfig | None = None,
) -> None:
    """Read a form, if *content_type* says that *body* is one.

    Args:
        content_type: The Content-Type field's value.
        body: The content.
        arguments: The form's arguments are added to it.
        files: The form's files are added to it.
        headers: The header section, which is searched for Content-Encoding; None for none.
        config: The limits; None for the process's limits.

    Raises:
        HTTPInputError: The form is malformed, has a content coding, or exceeds a limit. *arguments* and *files* are
            unchanged.
    """
    if config is None:
        config = _config
    if not is_form(content_type):
        return
    urlencoded = content_type.lower().startswith(_URLENCODED)
    if headers is not None and "Content-Encoding" in headers:
        raise HTTPInputError(f"Unsupported Content-Encoding: {headers['Content-Encoding'][:80]!r}")
    if urlencoded:
        if len(body) > config.urlencoded.max_size:
            raise HTTPInputError(
                f"Invalid x-www-form-urlencoded body: {len(body)} bytes, limit {config.urlencoded.max_size}"
                " (ParseUrlEncodedConfig.max_size)"
            )
        found = parse_query(body, config.urlencoded.max_arguments, "x-www-form-urlencoded body")
        for name, values in found.items():
            arguments.setdefault(name, []).extend(values)
    else:
        parse_multipart_form_data(_boundary(content_type), body, arguments, files, config=config.multipart)


def _boundary(content_type: str) -> bytes:
    """Return the boundary parameter of *content_type*.

    Raises:
        HTTPInputError: The type is not multipart/form-data, or does not have exactly one boundary.
    """
    # Not by werkzeug, which accepts only tokens and quoted strings: most clients leave out the quotes that some
    # characters of a boundary need (RFC 2046 section 5.1.1).
    kind, *parameters = content_type.split(";")
    if kind.strip().lower() != "multipart/form-data":
        raise HTTPInputError(f"Invalid multipart/form-data: content type {content_type[:80]!r}")
    found = []
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "boundary":
            found.append(value.strip())
    if len(found) != 1 or not found[0]:
        raise HTTPInputError(f"Invalid multipart/form-data: {len(found)} boundaries in {content_type[:80]!r}")
    return found[0].encode("utf-8")


def parse_multipart_form_data(
    boundary: bytes,
    data: bytes,
    arguments: Arguments,
    files: Files,
    *,
    config: ParseMultipartConfig | None = None,
) -> None:
    """Read the parts of a ``multipart/form-data`` form (RFC 7578).

    Names, file names and part headers are UTF-8. A file name may also have the form of RFC 8187 (``filename*``).
    At most 8192 octets before the first delimiter, and all behind the last one, are ignored.

    Args:
        boundary: The boundary, with or without double quotes around it.
        data: The content.
        arguments: The parts without a file name are added to it.
        files: The parts with a file name are added to it.
        config: The limits; None for the process's limits.

    Raises:
        HTTPInputError: The form is malformed or exceeds a limit. *arguments* and *files* are unchanged.
    """
    if config is None:
        config = _config.multipart
    if not config.enabled:
        raise HTTPInputError("multipart/form-data parsing is disabled")
    if len(boundary) > 1 and boundary.startswith(b'"') and boundary.endswith(b'"'):
        boundary = boundary[1:-1]
    if not boundary:
        raise HTTPInputError("Invalid multipart/form-data: empty boundary")
    if len(boundary) > _BOUNDARY_MAX:
        raise HTTPInputError(f"Invalid multipart/form-data: boundary of {len(boundary)} bytes, limit {_BOUNDARY_MAX}")
    for name, part in list(_parts(boundary, data, config)):
        if isinstance(part, HTTPFile):
            files.setdefault(name, []).append(part)
        else:
            arguments.setdefault(name, []).append(part)


class _Form:
    """Feeds a multipart form to werkzeug's parser, and knows the parser's position in it."""

    # The parser gets one delimiter with its part at a time. Its own search for a delimiter costs 20 ns for each byte,
    # many times the cost of the search here. It misreads a delimiter that is cut in two (werkzeug 3.1.9). A large part
    # is fed in steps, since other threads stand still while one of these functions runs.

    __slots__ = ("_data", "_decoder", "_fed", "_mark", "_max_parts", "_next", "_searched", "_tail")

    def __init__(self, data: bytes, boundary: bytes, max_parts: int) -> None:
        from werkzeug.sansio.multipart import MultipartDecoder

        self._decoder = MultipartDecoder(boundary, max_parts=max_parts)
        self._max_parts = max_parts
        self._data = data
        self._mark = b"--" + boundary
        self._tail = re.compile(rb"--|[ \t]*\r\n")  # what follows the mark of a delimiter
        self._fed = 0
        self._next = 0  # where the next delimiter begins that was not fed
        self._searched = 0

    @property
    def position(self) -> int:
        """How many bytes of the form the parser has used."""
        return self._fed - len(self._decoder.buffer)

    def next_event(self) -> Event:
        """Return the parser's next event.

        Raises:
            HTTPInputError: The form is malformed, ends too early, or has too many parts.
        """
        from werkzeug.exceptions import RequestEntityTooLarge
        from werkzeug.sansio.multipart import NeedData

        try:
            while isinstance(event := self._decoder.next_event(), NeedData):
                self._feed()
        except RequestEntityTooLarge:
            raise HTTPInputError(f"multipart/form-data has too many parts, limit {self._max_parts}") from None
        except ValueError as exc:
            raise HTTPInputError(f"Invalid multipart/form-data: {exc}") from None
        return event

    def _feed(self) -> None:
        if self._fed == len(self._data):
            self._decoder.receive_data(None)
            return
        if self._fed == self._next:
            self._next = self._next_delimiter()
        end = min(self._next, self._fed + _STEP)
        if end < self._next:
            # Not within what the parser may take for a delimiter: a mark, and blanks behind it.
            mark = self._data.rfind(self._mark, max(end - _PADDING_MAX - 2 * _BOUNDARY_MAX, self._fed), end)
            if mark - 2 > self._fed:
                end = mark - 2
        self._decoder.receive_data(self._data[self._fed : end])
        self._fed = end

    def _next_delimiter(self) -> int:
        """Return where the next delimiter begins; the size of the form if there is none."""
        begin = b"\r\n" + self._mark
        at = self._searched
        while (at := _find(self._data, begin, at)) >= 0:
            tail = self._tail.match(self._data, at + len(begin))
            if tail is not None:
                self._searched = tail.end()
                return at
            at += len(begin)
        self._searched = len(self._data)
        return len(self._data)


def _find(data: bytes, what: bytes, at: int) -> int:
    """Return what ``data.find(what, at)`` does, but let other threads run every _STEP bytes."""
    while at < len(data):
        found = data.find(what, at, at + _STEP + len(what) - 1)
        if found >= 0:
            return found
        at += _STEP
    return -1


def _parts(boundary: bytes, data: bytes, config: ParseMultipartConfig) -> Iterator[tuple[str, bytes | HTTPFile]]:
    """Yield (name, value) of each part, after a check of the places where the parser has cut *data*.

    Raises:
        HTTPInputError: The form is malformed or exceeds a limit.
    """
    from werkzeug.sansio.multipart import Data, Field, File, Preamble

    delimiter = re.compile(rb"\r\n--%b(--\s*|[ \t]*\r\n)" % re.escape(boundary))
    if len(data) > _PREAMBLE_MAX and delimiter.search(b"\r\n" + data[:_PREAMBLE_MAX]) is None:
        raise HTTPInputError(f"Invalid multipart/form-data: no delimiter in the first {_PREAMBLE_MAX} bytes")
    _check_marks(data, b"--" + boundary)
    form = _Form(data, boundary, config.max_parts)
    preamble = form.next_event()
    assert isinstance(preamble, Preamble)
    at = len(preamble.data)
    start = form.position
    # The first delimiter needs no line end before it if the form begins with it.
    match = delimiter.fullmatch(data, at, start) or (not at and delimiter.fullmatch(b"\r\n" + data[:start]))
    while True:
        if not match:
            raise HTTPInputError("Invalid multipart/form-data: a delimiter is not on a line of its own, ended by CRLF")
        if match[1].startswith(b"--"):
            return
        end = _end_of_part_header(data, start, config)
        part = form.next_event()
        assert isinstance(part, Field | File)
        if form.position != end:
            raise HTTPInputError("Invalid multipart/form-data: part header not ended by CRLF CRLF")
        _check_part_header(data[start:end], part.headers)
        at = end + 2
        value = BytesIO()  # grows in place: a join of a large part would copy it
        more = True
        while more:
            content = form.next_event()
            assert isinstance(content, Data)
            value.write(content.data)
            at += len(content.data)
            more = content.more_data
        yield _part(part, value.getvalue())
        start = form.position
        # An empty value may leave out its own line end: that of the empty line before it counts for both.
        match = delimiter.fullmatch(data, at, start) or (at == end + 2 and delimiter.fullmatch(data, end, start))


def _check_marks(data: bytes, mark: bytes) -> None:
    """Refuse a form that takes long to read: too many delimiters, or too many blanks behind one.

    Args:
        data: The form.
        mark: A delimiter without its line end. It may also occur in a part's content.

    Raises:
        HTTPInputError: *data* has too many of either.
    """
    count = 0
    at = _find(data, mark, 0)
    while at >= 0:
        count += 1
        end = at + len(mark)
        if data[end : end + 1] in _BLANKS:
            behind = data[end : end + _PADDING_MAX]
            if len(behind) == _PADDING_MAX and not behind.strip(_BLANKS):
                raise HTTPInputError(f"Invalid multipart/form-data: {_PADDING_MAX} blanks behind a delimiter")
        if count > _MARKS_MAX:
            raise HTTPInputError(f"Invalid multipart/form-data: the boundary occurs more than {_MARKS_MAX} times")
        at = _find(data, mark, end)


def _end_of_part_header(data: bytes, start: int, config: ParseMultipartConfig) -> int:
    """Return where the part header that begins at *start* ends, behind its last line's CRLF.

    Raises:
        HTTPInputError: It has no end, or is too large.
    """
    limit = config.max_part_header_size
    end = data.find(b"\r\n\r\n", start, start + limit + 4)
    if end >= 0:
        return end + 2
    if len(data) - start > limit:
        raise HTTPInputError(f"multipart/form-data part header too large: more than {limit} bytes")
    raise HTTPInputError("multipart/form-data missing headers")


def _check_part_header(block: bytes, headers: Headers) -> None:
    """Check a part's header section.

    Args:
        block: The header section with its last line end. It is UTF-8, since the parser has read it.
        headers: The parser's reading of it.

    Raises:
        HTTPInputError: A line is malformed, or Content-Disposition is not form-data.
    """
    for line in block[:-2].decode("utf-8").split("\r\n"):
        name = _PART_NAME.match(line)
        if name is None:
            raise HTTPInputError(f"Invalid header name in a part of multipart/form-data: {line[:80]!r}")
        if _PART_VALUE.fullmatch(line, name.end()) is None:
            raise HTTPInputError(f"Invalid header value in a part of multipart/form-data: {line[:80]!r}")
    dispositions = headers.getlist("content-disposition")
    if len(dispositions) != 1 or dispositions[0].partition(";")[0].strip().lower() != "form-data":
        raise HTTPInputError(f"Invalid multipart/form-data: Content-Disposition {dispositions!r:.80}")


def _part(part: Field | File, value: bytes) -> tuple[str, bytes | HTTPFile]:
    """Return a part's name, and its value or its file.

    Raises:
        HTTPInputError: It has no name.
    """
    if not part.name:
        raise HTTPInputError("multipart/form-data value missing name")
    filename: str = getattr(part, "filename", "")
    if not filename:
        return part.name, value
    content_type = part.headers.get("content-type", "application/unknown")
    return part.name, HTTPFile(filename=filename, body=value, content_type=content_type)
