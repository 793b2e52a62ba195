"""Start lines as text (RFC 9112 sections 3 and 4), and the two errors of the documented interface.

The server parses bytes, in ``bridge.core.http1``; this is for delegates, clients and tools.
"""

from __future__ import annotations

import re
import sys
from typing import NamedTuple

from bridge.errors import LocalProtocolError, RemoteProtocolError

__all__ = [
    "HTTPInputError",
    "HTTPOutputError",
    "RequestStartLine",
    "ResponseStartLine",
    "input_error",
    "parse_request_start_line",
    "parse_response_start_line",
]

# Control characters and white space are not allowed in a target; everything else is left to whoever reads it.
# Compiled when first used: a server needs neither.
_REQUEST_LINE = r"([!#$%&'*+\-.^_`|~0-9A-Za-z]+) ([\x21-\x7e\x80-\xff]+) (HTTP/[0-9]\.[0-9])"
_STATUS_LINE = r"(HTTP/[0-9]\.[0-9]) ([0-9]{3}) ([\t\x20-\x7e\x80-\xff]+)?"


class HTTPInputError(RemoteProtocolError):
    """What the peer sent is malformed; in a server it is answered with 400 (Bad Request)."""


class HTTPOutputError(LocalProtocolError):
    """What the application wrote is not a correct message, such as too much content for its Content-Length."""


def input_error(error: Exception) -> Exception:
    """Return *error*; or HTTPInputError in its place, if it is the one of a module with delegate interfaces of its own.

    Such a module is not imported for that: whoever raises its error has done so.
    """
    if not isinstance(error, HTTPInputError):
        for cls in type(error).__mro__:
            if cls.__name__ == "HTTPInputError":
                if hasattr(sys.modules.get(cls.__module__), "HTTPServerConnectionDelegate"):
                    return HTTPInputError(str(error))
                break
    return error


class RequestStartLine(NamedTuple):
    """The request line: method, request target and HTTP version."""

    method: str
    path: str
    version: str


class ResponseStartLine(NamedTuple):
    """The status line: HTTP version, status code and reason phrase."""

    version: str
    code: int
    reason: str | None


def parse_request_start_line(line: str) -> RequestStartLine:
    """Parse a request line, given without its CRLF (RFC 9112 section 3).

    Raises:
        HTTPInputError: It is off the grammar, or not of HTTP/1.x.
    """
    match = re.fullmatch(_REQUEST_LINE, line)
    if match is None:
        raise HTTPInputError(f"Malformed HTTP request line: {line[:80]!r}")
    method, target, version = match.groups()
    _check_version(version)
    return RequestStartLine(method, target, version)


def parse_response_start_line(line: str) -> ResponseStartLine:
    """Parse a status line, given without its CRLF (RFC 9112 section 4); no reason phrase is None.

    Raises:
        HTTPInputError: It is off the grammar, or not of HTTP/1.x.
    """
    match = re.fullmatch(_STATUS_LINE, line)
    if match is None:
        raise HTTPInputError(f"Malformed HTTP status line: {line[:80]!r}")
    version, code, reason = match.groups()
    _check_version(version)
    return ResponseStartLine(version, int(code), reason)


def _check_version(version: str) -> None:
    if not version.startswith("HTTP/1."):
        raise HTTPInputError(f"Unexpected HTTP version {version!r}")
