"""What ``start_response`` takes, and what it refuses."""

from __future__ import annotations

import pytest

from bridge.adapters.wsgi import start_response as response
from bridge.adapters.wsgi.start_response import check_headers, check_status, response_head
from bridge.errors import LocalProtocolError

GOOD = [
    ("200 OK", (200, b"OK")),
    ("204 ", (204, b"")),
    ("299 Na ja", (299, b"Na ja")),
    ("404 Nicht gefunden \xe4", (404, b"Nicht gefunden \xe4")),
    ("999 \t", (999, b"\t")),
]
BAD_STATUSES = [
    200,
    b"200 OK",
    None,
    "",
    "200",
    "20 OK",
    "2000 OK",
    "OK 200",
    "+20 OK",
    "\u0662\u0660\u0660 OK",
    "100 Continue",
    "101 Switching Protocols",
    "099 Low",
    "200 OK\r\nX: y",
    "200 OK\n",
    "200 O\x00K",
    "200 O\x7fK",
    "200 O\u20acK",
    " 200 OK",
    "200\tOK",
]
BAD_HEADERS = [
    None,
    (),
    {"a": "b"},
    [("a", "b", "c")],
    [("a",)],
    ["ab"],
    [["a", "b"]],
    [("a", 1)],
    [(b"a", b"b")],
    [("a", b"b")],
    [("a", None)],
    [("", "b")],
    [("a b", "c")],
    [("a:", "b")],
    [("a\r\nb", "c")],
    [("\xe4", "b")],
    [("\u20ac", "b")],
    [("a", "b\r\nc: d")],
    [("a", "b\nc")],
    [("a", "b\rc")],
    [("a", "b\x00c")],
    [("a", "b\x7f")],
    [("a", "\u20ac")],
    [("a", "b"), ("a", "c\n")],
]
HOP_BY_HOP = [
    ("Connection", "close"),
    ("connection", "keep-alive"),
    ("Keep-Alive", "timeout=5"),
    ("Proxy-Authenticate", "Basic"),
    ("Proxy-Authorization", "x"),
    ("TE", "trailers"),
    ("Trailer", "x"),
    ("Trailers", "x"),
    ("Transfer-Encoding", "chunked"),
    ("TRANSFER-ENCODING", "identity"),
    ("Upgrade", "websocket"),
]


@pytest.mark.parametrize(("status", "expected"), GOOD)
def test_status(status: str, expected: tuple[int, bytes]) -> None:
    assert check_status(status) == expected


@pytest.mark.parametrize("status", BAD_STATUSES, ids=repr)
def test_status_that_is_refused(status: object) -> None:
    with pytest.raises(LocalProtocolError, match="status"):
        response_head(status, [])


@pytest.mark.parametrize("headers", BAD_HEADERS, ids=repr)
def test_headers_that_are_refused(headers: object) -> None:
    with pytest.raises(LocalProtocolError, match="header"):
        response_head("200 OK", headers)


@pytest.mark.parametrize("header", HOP_BY_HOP, ids=repr)
def test_hop_by_hop_headers_are_the_servers(header: tuple[str, str]) -> None:
    with pytest.raises(LocalProtocolError, match="hop-by-hop"):
        response_head("200 OK", [header])


@pytest.mark.parametrize("value", ["", "x", "1.0", "-1", "+1", "1_0", "\xb2", "0x10", "1 2", "9" * 30])
def test_content_length_is_a_number(value: str) -> None:
    with pytest.raises(LocalProtocolError, match="Content-Length"):
        response_head("200 OK", [("Content-Length", value)])


def test_two_content_lengths() -> None:
    with pytest.raises(LocalProtocolError, match="Content-Length"):
        response_head("200 OK", [("Content-Length", "1"), ("content-length", "2")])
    assert response_head("200 OK", [("Content-Length", "1"), ("content-length", "1")]).length == 1


def test_headers_keep_order_spelling_and_repetition() -> None:
    headers = [("b", "1"), ("A", "\xe4\t"), ("b", "2"), ("Empty", "")]
    assert check_headers(headers) == [(b"b", b"1"), (b"A", b"\xe4\t"), (b"b", b"2"), (b"Empty", b"")]


def test_a_head_that_comes_again_is_not_made_again() -> None:
    headers = [("Content-Type", "text/plain"), ("Content-Length", "5")]
    first = response_head("200 OK", headers)
    assert response_head("200 OK", list(headers)) is first
    assert response_head("201 OK", headers) is not first
    assert response_head("200 OK", headers[:1]) is not first


def test_cookies_and_long_heads_are_not_kept() -> None:
    for headers in ([("Set-Cookie", "session=secret")], [("set-cookie", "x")], [("X", "y" * 5000)]):
        assert response_head("200 OK", headers) is not response_head("200 OK", headers)


def test_what_is_kept_is_bounded() -> None:
    for number in range(3000):
        response_head("200 OK", [("X", str(number))])
    assert len(response._heads) <= 512
