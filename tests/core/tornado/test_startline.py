from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.core.httputil import (
    HTTPInputError,
    HTTPOutputError,
    RequestStartLine,
    ResponseStartLine,
    parse_request_start_line,
    parse_response_start_line,
)
from bridge.errors import LocalProtocolError, RemoteProtocolError

REQUEST_LINES = [
    ("GET / HTTP/1.1", ("GET", "/", "HTTP/1.1")),
    ("G~!#$%&'*+-.^_`|09az http://a/b?c#d HTTP/1.0", ("G~!#$%&'*+-.^_`|09az", "http://a/b?c#d", "HTTP/1.0")),
    ("OPTIONS * HTTP/1.9", ("OPTIONS", "*", "HTTP/1.9")),
    ("get /\xe9\xff HTTP/1.1", ("get", "/\xe9\xff", "HTTP/1.1")),
]

NO_REQUEST_LINES = [
    *(
        "",
        "GET",
        "GET /",
        "GET / HTTP/1.1 ",
        " GET / HTTP/1.1",
        "GET  / HTTP/1.1",
        "GET /  HTTP/1.1",
        "GET\t/ HTTP/1.1",
    ),
    *("GET /a b HTTP/1.1", "GET / http/1.1", "GET / HTTP/1", "GET / HTTP/1.", "GET / HTTP/1.10", "GET / HTTP/11.1"),
    *(
        "GET / HTTP/0.9",
        "GET / HTTP/2.0",
        "PRI * HTTP/2.0",
        "G(T / HTTP/1.1",
        "G\xe9T / HTTP/1.1",
        "GET / HTTP/1.1\r\n",
    ),
    *(
        "GET / HTTP/1.1\n",
        "GET /\x00 HTTP/1.1",
        "GET /\x7f HTTP/1.1",
        "GET /\u0100 HTTP/1.1",
        "GET / HTTP/1.\u0661",
        ": / HTTP/1.1",
    ),
]

STATUS_LINES = [
    ("HTTP/1.1 200 OK", ("HTTP/1.1", 200, "OK")),
    ("HTTP/1.0 404 Not Found at\tall \xe9", ("HTTP/1.0", 404, "Not Found at\tall \xe9")),
    ("HTTP/1.1 200 ", ("HTTP/1.1", 200, None)),
    ("HTTP/1.1 000  ", ("HTTP/1.1", 0, " ")),
]

NO_STATUS_LINES = [
    *("", "HTTP/1.1", "HTTP/1.1 200", "HTTP/1.1 20 OK", "HTTP/1.1 2000 OK", "HTTP/1.1 +20 OK", "HTTP/1.1  200 OK"),
    *(
        "HTTP/2.0 200 OK",
        "HTTP/0.9 200 OK",
        "http/1.1 200 OK",
        "HTTP/1.1 200 OK\r\n",
        "HTTP/1.1 200 O\x00K",
        "HTTP/1.1 200 \u0100",
    ),
    *("HTTP/1.1 \u0661\u0661\u0661 OK", "HTTP/1.1 200\tOK"),
]


@pytest.mark.parametrize(("line", "parts"), REQUEST_LINES)
def test_a_request_line(line: str, parts: tuple[str, str, str]) -> None:
    parsed = parse_request_start_line(line)
    assert parsed == parts
    assert isinstance(parsed, RequestStartLine)
    assert (parsed.method, parsed.path, parsed.version) == parts


@pytest.mark.parametrize("line", NO_REQUEST_LINES)
def test_no_request_line(line: str) -> None:
    with pytest.raises(HTTPInputError, match=r"Malformed HTTP request line|Unexpected HTTP version"):
        parse_request_start_line(line)


@pytest.mark.parametrize(("line", "parts"), STATUS_LINES)
def test_a_status_line(line: str, parts: tuple[str, int, str | None]) -> None:
    parsed = parse_response_start_line(line)
    assert parsed == parts
    assert isinstance(parsed, ResponseStartLine)
    assert (parsed.version, parsed.code, parsed.reason) == parts


@pytest.mark.parametrize("line", NO_STATUS_LINES)
def test_no_status_line(line: str) -> None:
    with pytest.raises(HTTPInputError, match=r"Malformed HTTP status line|Unexpected HTTP version"):
        parse_response_start_line(line)


@given(st.text())
def test_a_parsed_request_line_reads_like_the_line(line: str) -> None:
    try:
        parsed = parse_request_start_line(line)
    except HTTPInputError:
        return
    assert " ".join(parsed) == line


def test_a_message_shows_at_most_80_characters_of_the_line() -> None:
    with pytest.raises(HTTPInputError) as caught:
        parse_request_start_line("a" * 5000)
    assert len(str(caught.value)) < 130


def test_who_is_at_fault() -> None:
    assert issubclass(HTTPInputError, RemoteProtocolError)
    assert HTTPInputError.status == 400
    assert issubclass(HTTPOutputError, LocalProtocolError)
