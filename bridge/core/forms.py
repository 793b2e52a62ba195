"""Forms in the content of a request: ``application/x-www-form-urlencoded`` and ``multipart/form-data``.

Values are bytes: which encoding they are in, the application knows. The multipart parser is werkzeug's; around it
stands a check that the octets it took for delimiters and header sections are exactly those of RFC 2046 section 5.1.1,
since it also takes bare CR, bare LF and folded lines, and two readers of one form must not see different parts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from bridge.core.startline import HTTPInputError

if TYPE_CHECKING:
    from werkzeug.datastructures import Headers
    from werkzeug.sansio.multipart import Event, Field, File, MultipartDecoder

    from bridge.core.httpheaders import HTTPHeaders

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

# A line of a part's header section, in UTF-8: a token, a colon, and no control characters but HTAB.
_PART_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+:")
_PART_VALUE = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f]*")


@dataclass
class ParseMultipartConfig:
    """Limits for ``multipart/form-data``.

    Attributes:
        enabled: Whether such forms are read at all; if not, they are refused.
        max_parts: Parts in one form.
        max_part_header_size: Bytes of one part's header section.
    """

    enabled: bool = True
    max_parts: int = 100
    max_part_header_size: int = 10 * 1024


@dataclass
class ParseUrlEncodedConfig:
    """Limits for ``application/x-www-form-urlencoded``, in the content and in the query.

    Attributes:
        max_arguments: Arguments in one form or query.
    """

    max_arguments: int = 1000


@dataclass
class ParseBodyConfig:
    """Limits for forms.

    Attributes:
        multipart: For ``multipart/form-data``.
        urlencoded: For ``application/x-www-form-urlencoded``.
    """

    multipart: ParseMultipartConfig = field(default_factory=ParseMultipartConfig)
    urlencoded: ParseUrlEncodedConfig = field(default_factory=ParseUrlEncodedConfig)


_config = ParseBodyConfig()


def set_parse_body_config(config: ParseBodyConfig) -> None:
    """Set the limits that hold, in the whole process, where none are given."""
    global _config
    _config = config


class HTTPFile(dict[str, Any]):
    """An uploaded file: a dict whose keys are attributes, too.

    Attributes:
        filename: As the client named it; not a path to be trusted.
        body: Its content.
        content_type: As the client labelled it, or ``application/unknown``.
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
    """Refuse *query* if it has more arguments than *limit*, without reading them.

    Raises:
        HTTPInputError: It has.
    """
    if limit is None:
        limit = _config.urlencoded.max_arguments
    if len(query) < limit:
        return
    count = 1 + (query.count("&") if isinstance(query, str) else query.count(b"&"))
    if count > limit:
        raise HTTPInputError(f"Invalid {what}: Max number of fields exceeded: {count}, limit {limit}")


def parse_query(query: str | bytes, limit: int | None = None, what: str = "query string") -> Arguments:
    """Return the arguments of a query or a urlencoded form; blank values are kept.

    Names are latin-1 text, values raw octets, both with their percent-encoding undone.

    Args:
        query: Octets, or latin-1 text.
        limit: The most arguments it may have; None for the process's setting.
        what: What *query* is called in messages.

    Raises:
        HTTPInputError: It has more, or the text is not latin-1.
    """
    check_argument_count(query, limit, what)
    arguments: Arguments = {}
    text = query if isinstance(query, str) else query.decode("latin-1")
    try:
        for name, value in parse_qsl(text, keep_blank_values=True, encoding="latin-1"):
            arguments.setdefault(name, []).append(value.encode("latin-1"))
    except UnicodeEncodeError as exc:
        raise HTTPInputError(f"Invalid {what}: {exc}") from None
    return arguments


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
        arguments: Gets the arguments that are found.
        files: Gets the files that are found.
        headers: The header section, where a Content-Encoding may stand.
        config: The limits; None for the process's setting.

    Raises:
        HTTPInputError: The form is malformed, encoded, or over a limit; *arguments* and *files* are unchanged.
    """
    if config is None:
        config = _config
    kind = content_type.lower()
    urlencoded = kind.startswith("application/x-www-form-urlencoded")
    if not urlencoded and not kind.startswith("multipart/form-data"):
        return
    if headers is not None and "Content-Encoding" in headers:
        raise HTTPInputError(f"Unsupported Content-Encoding: {headers['Content-Encoding'][:80]!r}")
    if urlencoded:
        found = parse_query(body, config.urlencoded.max_arguments, "x-www-form-urlencoded body")
        for name, values in found.items():
            arguments.setdefault(name, []).extend(values)
    else:
        parse_multipart_form_data(_boundary(content_type), body, arguments, files, config=config.multipart)


def _boundary(content_type: str) -> bytes:
    """Return the boundary parameter of *content_type*.

    Not through werkzeug: it takes tokens and quoted strings only, and most clients leave out the quotes that some
    boundary characters need (RFC 2046 section 5.1.1).
    """
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

    Names, file names and part headers are UTF-8; a file name may come in the form of RFC 8187 (``filename*``), too.
    What stands before the first and behind the last delimiter is ignored.

    Args:
        boundary: With or without double quotes around it.
        data: The content.
        arguments: Gets the parts without a file name.
        files: Gets the parts with one.
        config: The limits; None for the process's setting.

    Raises:
        HTTPInputError: The form is malformed or over a limit; *arguments* and *files* are unchanged.
    """
    if config is None:
        config = _config.multipart
    if not config.enabled:
        raise HTTPInputError("multipart/form-data parsing is disabled")
    if len(boundary) > 1 and boundary.startswith(b'"') and boundary.endswith(b'"'):
        boundary = boundary[1:-1]
    if not boundary:
        raise HTTPInputError("Invalid multipart/form-data: empty boundary")
    for name, part in list(_parts(boundary, data, config)):
        if isinstance(part, HTTPFile):
            files.setdefault(name, []).append(part)
        else:
            arguments.setdefault(name, []).append(part)


def _parts(boundary: bytes, data: bytes, config: ParseMultipartConfig) -> Iterator[tuple[str, bytes | HTTPFile]]:
    """Yield name and value of each part, having checked where the parser cut *data*."""
    from werkzeug.sansio.multipart import Data, Field, File, MultipartDecoder, Preamble

    decoder = MultipartDecoder(boundary, max_parts=config.max_parts)
    decoder.receive_data(data)
    decoder.receive_data(None)
    delimiter = re.compile(rb"\r\n--%b(--\s*|[ \t]*\r\n)" % re.escape(boundary))
    preamble = _next_event(decoder, config)
    assert isinstance(preamble, Preamble)
    at = len(preamble.data)
    start = len(data) - len(decoder.buffer)
    # The first delimiter needs no line end before it if nothing else stands there.
    match = delimiter.fullmatch(data, at, start) or (not at and delimiter.fullmatch(b"\r\n" + data[:start]))
    while True:
        if not match:
            raise HTTPInputError("Invalid multipart/form-data: a delimiter is not on a line of its own, ended by CRLF")
        if match[1].startswith(b"--"):
            return
        part = _next_event(decoder, config)
        assert isinstance(part, Field | File)
        end = len(data) - len(decoder.buffer)
        _check_part_header(data, start, end, part.headers, config)
        value = _next_event(decoder, config)
        assert isinstance(value, Data)
        if value.more_data:
            raise HTTPInputError("Invalid multipart/form-data: no final boundary found")
        yield _part(part, value.data)
        at = end + 2 + len(value.data)
        start = len(data) - len(decoder.buffer)
        # An empty value may leave out its own line end: the one of the empty line stands for both.
        match = delimiter.fullmatch(data, at, start) or (not value.data and delimiter.fullmatch(data, end, start))


def _next_event(decoder: MultipartDecoder, config: ParseMultipartConfig) -> Event:
    from werkzeug.exceptions import RequestEntityTooLarge

    try:
        return decoder.next_event()
    except RequestEntityTooLarge:
        raise HTTPInputError(f"multipart/form-data has too many parts, limit {config.max_parts}") from None
    except ValueError as exc:
        raise HTTPInputError(f"Invalid multipart/form-data: {exc}") from None


def _check_part_header(data: bytes, start: int, end: int, headers: Headers, config: ParseMultipartConfig) -> None:
    """Check the part header section in ``data[start:end]``, which the parser took *headers* from."""
    size = end - 2 - start
    if size > config.max_part_header_size:
        raise HTTPInputError(
            f"multipart/form-data part header too large: {size} bytes, limit {config.max_part_header_size}"
        )
    if data[end - 2 : end + 2] != b"\r\n\r\n":
        raise HTTPInputError("Invalid multipart/form-data: part header not ended by CRLF CRLF")
    # The parser has decoded it already, so it is UTF-8.
    for line in data[start : end - 2].decode("utf-8").split("\r\n"):
        name = _PART_NAME.match(line)
        if name is None:
            raise HTTPInputError(f"Invalid header name in a part of multipart/form-data: {line[:80]!r}")
        if _PART_VALUE.fullmatch(line, name.end()) is None:
            raise HTTPInputError(f"Invalid header value in a part of multipart/form-data: {line[:80]!r}")
    dispositions = headers.getlist("content-disposition")
    if len(dispositions) != 1 or dispositions[0].partition(";")[0].strip().lower() != "form-data":
        raise HTTPInputError(f"Invalid multipart/form-data: Content-Disposition {dispositions!r:.80}")


def _part(part: Field | File, value: bytes) -> tuple[str, bytes | HTTPFile]:
    if not part.name:
        raise HTTPInputError("multipart/form-data value missing name")
    filename: str = getattr(part, "filename", "")
    if not filename:
        return part.name, value
    content_type = part.headers.get("content-type", "application/unknown")
    return part.name, HTTPFile(filename=filename, body=value, content_type=content_type)
