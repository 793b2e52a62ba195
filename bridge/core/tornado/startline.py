"""Start lines as text (RFC 9112 sections 3 and 4), and the two errors of Tornado's interface.

Delegates, clients and tools use them. The server itself parses bytes, in ``bridge.core.http1``.
"""

from __future__ import annotations

import re
import sys
from typing import NamedTuple, NoReturn

from bridge.errors import LocalProtocolError, RemoteProtocolError

__all__ = [
    "HTTPInputError",
    "HTTPOutputError",
    "IllegalHeaderError",
    "RequestStartLine",
    "ResponseStartLine",
    "is_foreign_input_error",
    "parse_request_start_line",
    "parse_response_start_line",
    "raise_by_fault",
]

# A target may have any characters but control characters and white space: its reader checks the rest. Patterns as text
# are compiled when they are first used, since a server uses neither.
_REQUEST_LINE = r"([!#$%&'*+\-.^_`|~0-9A-Za-z]+) ([\x21-\x7e\x80-\xff]+) (HTTP/[0-9]\.[0-9])"
_STATUS_LINE = r"(HTTP/[0-9]\.[0-9]) ([0-9]{3}) ([\t\x20-\x7e\x80-\xff]+)?"


class HTTPInputError(RemoteProtocolError):
    """The peer sent a malformed message. A server answers 400 (Bad Request)."""


class HTTPOutputError(LocalProtocolError):
    """The application wrote an incorrect message, for example more content than its Content-Length."""


class IllegalHeaderError(HTTPInputError):
    """A program has set a name or a value in HTTPHeaders that a field line must not have.

    Tornado's programs expect an HTTPInputError. In a server it is the application's fault, never the peer's.
    """


def raise_by_fault(error: Exception) -> NoReturn:
    """Raise *error*, which an application's code has raised, as the class that says who is at fault.

    An IllegalHeaderError becomes an HTTPOutputError, and another module's HTTPInputError becomes bridge's. Any other
    error is raised as it is.

    Raises:
        Exception: Always.
    """
    if isinstance(error, IllegalHeaderError):
        raise HTTPOutputError(str(error)) from error
    if is_foreign_input_error(error):
        raise HTTPInputError(str(error)) from error
    raise error


def is_foreign_input_error(error: BaseException) -> bool:
    """Tell whether *error* is the HTTPInputError of another module with delegate interfaces, such as Tornado's."""
    # That module does not have to be imported here: the code that raised the error has imported it.
    if isinstance(error, HTTPInputError):
        return False
    for cls in type(error).__mro__:
        if cls.__name__ == "HTTPInputError":
            return hasattr(sys.modules.get(cls.__module__), "HTTPServerConnectionDelegate")
    return False


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
        HTTPInputError: The line is malformed, or its version is not HTTP/1.x.
    """
    match = re.fullmatch(_REQUEST_LINE, line)
    if match is None:
        raise HTTPInputError(f"Malformed HTTP request line: {line[:80]!r}")
    method, target, version = match.groups()
    _check_version(version)
    return RequestStartLine(method, target, version)


def parse_response_start_line(line: str) -> ResponseStartLine:
    """Parse a status line, given without its CRLF (RFC 9112 section 4). An empty reason phrase is returned as None.

    Raises:
        HTTPInputError: The line is malformed, or its version is not HTTP/1.x.
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
