"""What is accepted here is accepted by two other parsers too, and read as the same message.

Two readers of one message that disagree about it are what request smuggling is made of, so every exception below says
why nothing hangs on it.
"""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.peers import PeerMessage, read_with_h11, read_with_httptools
from tests.support.reader import Message, read_message

GET = b"GET / HTTP/1.1\r\nHost: a\r\n"
POST = b"POST /p?q HTTP/1.1\r\nHost: a.test:80\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
SEEDS = [
    GET + b"\r\n",
    GET + b"X: y\r\nX-Y: \tz \r\nAccept: */*\r\nCookie: a=b; c=d\r\n\r\n",
    b"GET http://b.test:80/x?y HTTP/1.1\r\nHost: a\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: [::1]:80\r\n\r\n",
    b"HEAD /a/b%20c HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    b"GET / HTTP/1.0\r\n\r\n",
    b"GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n",
    POST + b"Content-Length: 5\r\n\r\nhello",
    POST + b"Content-Length: 0\r\n\r\n",
    b"POST / HTTP/1.0\r\nContent-Length: 3\r\n\r\nabc",
    POST + b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\nhello",
    CHUNKED + b"5\r\nhello\r\n0\r\n\r\n",
    CHUNKED + b"5;a=b\r\nhello\r\n06\r\n world\r\n0\r\n\r\n",
    CHUNKED + b"5\r\nhello\r\n0\r\nX-T: v\r\nY: z\r\n\r\n",
    POST + b"transfer-encoding: Chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
    POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
]
PIECES = [
    *(b"\r\n", b"\n", b"\r", b" ", b"\t", b":", b",", b";", b"\x00", b"\x0b", b"\x1c", b"\x7f", b"\xa0", b"\xff",
        b"0", b"5"),
    *(b"chunked", b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"Host: b\r\n", b"\r\n\r\n",
        b"X: y\r\n", b"-"),
    *(b"+", b"_", b"0x", b'"', b"HTTP/1.1", b"close", b"a", b"/", b"#", b"@"),
]  # fmt: skip


@st.composite
def spoilt(draw: st.DrawFn) -> bytes:
    """A good request with up to four edits."""
    wire = bytearray(draw(st.sampled_from(SEEDS)))
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, len(wire)))
        end = min(len(wire), start + draw(st.sampled_from([0, 0, 0, 1, 1, 2, 5])))
        piece = draw(st.one_of(st.sampled_from(PIECES), st.binary(max_size=2), st.just(bytes(wire[start : start + 8]))))
        wire[start:end] = piece
    return bytes(wire)


def fields_of(message: Message) -> list[tuple[bytes, bytes]]:
    return list(message.head[9])  # type: ignore[call-overload, no-any-return]


def same_fields(ours: list[tuple[bytes, bytes]], theirs: list[tuple[bytes, bytes]], message: Message) -> bool:
    if message.head[5]:  # in absolute-form the authority is put in the place of Host here (RFC 9112 section 3.2.2)
        ours, theirs = ([field for field in fields if field[0] != b"host"] for fields in (ours, theirs))
    # h11 writes the one coding in lower case.
    return [(name, value.lower() if name == b"transfer-encoding" else value) for name, value in ours] == [
        (name, value.lower() if name == b"transfer-encoding" else value) for name, value in theirs
    ]


# Why a message is accepted here and refused by the peer: pattern of the wire, pattern of the peer's complaint, reason.
H11_REFUSES = [
    (rb"^(\r\n){1,4}", "no request line", "empty lines in front of a request are skipped (RFC 9112 section 2.2)"),
    (rb"(?i)transfer-encoding:[\t ]*(,|\r\n)|chunked[\t ]*,", "Only Transfer-Encoding",
        "empty members of a list are no members"),
    (rb"(?i)\r\n0[^\r]*\r\n(.|\r\n)*(transfer-encoding|content-length|host)", "",
        "such fields are dropped from a trailer section"),
    (rb"\r\n[0-9A-Fa-f]+[^\r\n]*;", "illegal chunk header",
        "white space around extensions (BWS), which are ignored anyway"),
]  # fmt: skip
HTTPTOOLS_REFUSES = [
    (rb"", "HttpParserInvalidMethodError", "it knows a list of methods, the grammar has tokens"),
    (rb"", "Expected .* after method|Invalid method", "the same"),
    (rb"HTTP/1\.[2-9]", "Invalid HTTP version", "a higher minor version is served as 1.1 (RFC 9110 section 2.5)"),
    (rb"\r\n[0-9A-Fa-f]+[^\r\n]*;", "chunk extension|chunk size",
        "white space and odd octets in extensions, which are ignored"),
    (rb"(?i)transfer-encoding:[^\r]*[\t ,]", "Transfer-Encoding",
        "white space and empty members around the one coding"),
    (rb"(?i)\r\n0[^\r]*\r\n(.|\r\n)*(transfer-encoding|content-length|upgrade)", "",
        "such fields are dropped from a trailer section"),
    (rb"(?i)content-length:[^\r]*[\t ]", "Content-Length", "white space behind the number"),
]  # fmt: skip


def excused(wire: bytes, complaint: str, reasons: list[tuple[bytes, str, str]]) -> bool:
    return any(re.search(pattern, wire) and re.search(text, complaint) for pattern, text, _ in reasons)


def compare_with_h11(wire: bytes) -> None:
    ours = read_message([wire])
    if not isinstance(ours, Message):
        return
    theirs = read_with_h11(wire)
    if isinstance(theirs, str):
        assert excused(wire, theirs, H11_REFUSES), theirs
        return
    assert isinstance(theirs, PeerMessage), "here it is complete"
    head = ours.head
    assert (head[0], head[1], ours.content, ours.rest) == (theirs.method, theirs.target, theirs.content, theirs.rest)
    assert same_fields(fields_of(ours), theirs.fields, ours)
    # h11 closes after every HTTP/1.0 message, and leaves it open while another protocol is asked for.
    if theirs.version != b"1.0" and not any(name == b"upgrade" for name, _ in theirs.fields):
        assert head[12] == theirs.keep_alive


def compare_with_httptools(wire: bytes) -> None:
    ours = read_message([wire])
    if not isinstance(ours, Message):
        return
    wire = wire[: len(wire) - len(ours.rest)]
    theirs = read_with_httptools(wire)
    if isinstance(theirs, str):
        assert excused(wire, theirs, HTTPTOOLS_REFUSES), theirs
        return
    assert isinstance(theirs, PeerMessage), "here it is complete"
    assert (ours.head[0], ours.head[1], ours.content) == (theirs.method, theirs.target, theirs.content)
    # Its values keep the white space behind them, and its list goes on with the trailer section.
    found = [(name, value.rstrip(b" \t")) for name, value in theirs.fields]
    assert same_fields(
        fields_of(ours), found[: len(fields_of(ours)) + bool(ours.head[5] and theirs.version == b"1.0")], ours
    )


@settings(max_examples=600)
@given(spoilt())
def test_what_is_accepted_here_is_the_same_message_to_h11(wire: bytes) -> None:
    compare_with_h11(wire)


@settings(max_examples=600)
@given(spoilt())
def test_what_is_accepted_here_is_the_same_message_to_httptools(wire: bytes) -> None:
    compare_with_httptools(wire)


@pytest.mark.parametrize("wire", SEEDS, ids=range(len(SEEDS)))
def test_good_requests_are_read_by_all_three(wire: bytes) -> None:
    ours = read_message([wire])
    if isinstance(ours, Message):
        assert isinstance(read_with_h11(wire), PeerMessage)
        assert isinstance(read_with_httptools(wire), PeerMessage)
    compare_with_h11(wire)
    compare_with_httptools(wire)


def test_the_comparison_can_fail() -> None:
    # A peer that reads another message is noticed: here by the length of the content.
    wire = SEEDS[7]
    ours = read_message([wire])
    theirs = read_with_h11(wire.replace(b"Content-Length: 5", b"Content-Length: 4"))
    assert isinstance(ours, Message)
    assert isinstance(theirs, PeerMessage)
    assert (ours.content, ours.rest) != (theirs.content, theirs.rest)
