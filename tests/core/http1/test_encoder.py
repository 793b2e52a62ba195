from __future__ import annotations

import re
from http import HTTPStatus

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.core.http.fields import NO_LENGTH
from bridge.core.http.limits import Limits
from bridge.core.http.message import RequestLine, ResponseHead, request_line
from bridge.core.http1.decoder import ChunkedDecoder, FixedDecoder
from bridge.core.http1.encoder import (
    BODILESS,
    CONTINUE,
    LAST_CHUNK,
    BodilessEncoder,
    ChunkedEncoder,
    CloseEncoder,
    Encoder,
    FixedEncoder,
    WrongLength,
    chunk,
    encode_head,
    encode_interim,
    encode_refusal,
    encode_start,
    encode_whole,
    raw_status,
    says_close,
    status_line,
)
from bridge.errors import LocalProtocolError
from tests.support.hostile import CONTROLS
from tests.support.reader import Content, read_content
from tests.support.responses import read_responses
from tests.support.table import table

Pairs = list[tuple[bytes, bytes]]
DEFAULT = b"date: today\r\nserver: bridge\r\n"


def asked(method: str = "GET", version: bytes = b"1.1") -> RequestLine:
    return request_line(method.encode(), method, b"/", version, b"/", b"", b"")


def fixed(length: int, sent: int = 0) -> FixedEncoder:
    encoder = FixedEncoder()
    encoder.length = length
    encoder.sent = sent
    return encoder


# ---------------------------------------------------------------------- status lines


@table("status", list(HTTPStatus))
def test_registered_phrases(status: HTTPStatus) -> None:
    line = b"HTTP/1.1 %d %b\r\n" % (status.value, status.phrase.encode())
    assert status_line(status.value) == line
    assert status_line(status) == line


@pytest.mark.parametrize(
    ("status", "reason", "line"),
    [
        (200, b"Fine", b"HTTP/1.1 200 Fine\r\n"),
        (200, b"a\tb \xe9", b"HTTP/1.1 200 a\tb \xe9\r\n"),
        (299, b"", b"HTTP/1.1 299 \r\n"),
        (599, b"Odd", b"HTTP/1.1 599 Odd\r\n"),
        (100, b"x", b"HTTP/1.1 100 x\r\n"),
        (999, b"", b"HTTP/1.1 999 \r\n"),
    ],
)
def test_status_lines(status: int, reason: bytes, line: bytes) -> None:
    assert status_line(status, reason) == line


@pytest.mark.parametrize("status", [0, 1, 42, 99, 1000, 2000, -200, 10**9, True, "200", b"200", None, 299.5])
def test_what_is_no_status(status: int) -> None:
    for reason in (b"", b"Odd"):
        with pytest.raises(LocalProtocolError):
            status_line(status, reason)


@table(
    "reason",
    [
        *(b"OK" + bytes([octet]) for octet in CONTROLS),
        *(bytes([octet]) for octet in CONTROLS),
        *(b"OK\r\nInjected: yes", b"OK\nInjected: yes", b"OK\rInjected: yes", b"OK\r\n\r\n<b>", b"\r\n"),
    ],
)
def test_reasons_that_would_split_the_response(reason: bytes) -> None:
    with pytest.raises(LocalProtocolError):
        status_line(200, reason)


# ---------------------------------------------------------------------- heads of the server's own


def test_an_interim_response_is_a_head_alone() -> None:
    link = [(b"link", b"</a>"), (b"content-length", b"5"), (b"connection", b"close")]
    assert encode_interim(103, link) == b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n"
    assert encode_interim(100, []) == CONTINUE
    for status, fields in ((99, []), (103, [(b"a", b"b\r\nc: d")])):
        with pytest.raises(LocalProtocolError):
            encode_interim(status, fields)


@pytest.mark.parametrize("head_only", [False, True])
@pytest.mark.parametrize("fields", [[], [(b"allow", b"GET")]])
def test_a_refusal_says_its_status_and_that_it_is_the_last(fields: Pairs, head_only: bool) -> None:
    wire = encode_refusal(405, DEFAULT, own_fields=fields, head_only=head_only)
    (response,) = read_responses(wire, ["HEAD" if head_only else "GET"], ended=False)
    text = b"405 Method Not Allowed\r\n"
    assert (response.status, response.content) == (405, b"" if head_only else text)
    assert response.closes
    assert response[b"content-length"] == b"%d" % len(text)
    assert response[b"server"] == b"bridge"
    assert response[b"allow"] == (b"GET" if fields else None)


def test_a_refusal_without_a_registered_phrase_has_content_all_the_same() -> None:
    (response,) = read_responses(encode_refusal(599, b""), ended=False)
    assert (response.status, response.content) == (599, b"599 \r\n")


# ---------------------------------------------------------------------- heads of responses


@pytest.mark.parametrize(
    ("status", "reason", "fields", "data", "wire"),
    [
        (200, b"", [], b"hello", b"HTTP/1.1 200 OK\r\n%bcontent-length: 5\r\n\r\nhello"),
        (200, b"", [], b"", b"HTTP/1.1 200 OK\r\n%bcontent-length: 0\r\n\r\n"),
        (200, b"Fine", [(b"X", b"y")], b"a", b"HTTP/1.1 200 Fine\r\n%bX: y\r\ncontent-length: 1\r\n\r\na"),
        (599, b"", [(b"Content-Length", b"1")], b"a", b"HTTP/1.1 599 \r\n%bContent-Length: 1\r\n\r\na"),
    ],
)
def test_a_whole_response(status: int, reason: bytes, fields: Pairs, data: bytes, wire: bytes) -> None:
    head = ResponseHead(status, fields, reason)
    for _ in range(2):  # made, and known from before
        assert encode_whole(head, DEFAULT, data) == wire % DEFAULT
    later = DEFAULT.replace(b"today", b"tomorrow")
    for default in (later, later, b"", DEFAULT):
        assert encode_whole(head, default, data) == wire % default


def test_what_a_response_starts_with_is_kept_in_its_head() -> None:
    for fields, end in (([], b""), ([(b"content-length", b"5")], b"content-length: 5\r\n\r\n")):
        head = ResponseHead(200, fields)
        start = encode_start(head, DEFAULT)
        assert start == b"HTTP/1.1 200 OK\r\n" + DEFAULT + end
        assert head.encoded == (DEFAULT, start)


CHUNKS = b"transfer-encoding: chunked\r\n"
CLOSE = b"connection: close\r\n"
KEEP = b"connection: Keep-Alive\r\n"


@pytest.mark.parametrize(
    ("line", "status", "fields", "last", "close", "lines", "kind", "ends"),
    [
        # the framing: declared, all at once, in chunks, to the end of the connection
        (asked(), 200, [(b"Content-Length", b"5")], True, False, b"Content-Length: 5\r\n", FixedEncoder, False),
        (asked(), 200, [(b"Content-Length", b"5")], False, False, b"Content-Length: 5\r\n", FixedEncoder, False),
        (asked(), 200, [], True, False, b"content-length: 3\r\n", FixedEncoder, False),
        (asked(), 200, [], False, False, CHUNKS, ChunkedEncoder, False),
        (asked(version=b"1.0"), 200, [], True, False, b"content-length: 3\r\n" + KEEP, FixedEncoder, False),
        (asked(version=b"1.0"), 200, [], False, False, b"", CloseEncoder, True),
        # the end of the connection
        (asked(), 200, [], True, True, b"content-length: 3\r\n" + CLOSE, FixedEncoder, True),
        (asked(), 200, [], False, True, CHUNKS + CLOSE, ChunkedEncoder, True),
        (asked(version=b"1.0"), 200, [], True, True, b"content-length: 3\r\n", FixedEncoder, True),
        (asked(), 200, [(b"Connection", b"close")], False, False, CHUNKS + CLOSE, ChunkedEncoder, True),
        (asked(), 200, [(b"Connection", b"keep-alive")], False, False, CHUNKS, ChunkedEncoder, False),
        # no content by definition
        (asked("HEAD"), 200, [], False, False, b"", BodilessEncoder, False),
        (asked("HEAD"), 200, [(b"content-length", b"5")], True, False,
            b"content-length: 5\r\n", BodilessEncoder, False),
        (asked("HEAD"), 204, [(b"content-length", b"5"), (b"x", b"y")], True, False,
            b"x: y\r\n", BodilessEncoder, False),
        (asked(), 204, [(b"content-length", b"0")], True, False, b"", BodilessEncoder, False),
        (asked(), 304, [(b"content-length", b"5")], True, False, b"content-length: 5\r\n", BodilessEncoder, False),
        (asked(), 304, [], False, True, CLOSE, BodilessEncoder, True),
        (asked("HEAD", b"1.0"), 200, [], False, False, KEEP, BodilessEncoder, False),
        # upgrades (RFC 9110 sections 7.8 and 15.5.22)
        (asked(), 101, [(b"Upgrade", b"x/1")], True, False,
            b"connection: upgrade\r\nupgrade: x/1\r\n", BodilessEncoder, True),
        (asked(), 426, [(b"Upgrade", b"x")], True, False,
            b"content-length: 3\r\nconnection: upgrade\r\nupgrade: x\r\n", FixedEncoder, False),
        (asked(), 426, [(b"Upgrade", b"x")], True, True,
            b"content-length: 3\r\nconnection: upgrade, close\r\nupgrade: x\r\n", FixedEncoder, True),
        (asked(), 426, [], True, False, b"content-length: 3\r\n", FixedEncoder, False),
        (asked(), 200, [(b"Upgrade", b"x")], True, False, b"content-length: 3\r\n", FixedEncoder, False),
    ],
)  # fmt: skip
def test_a_head_and_the_encoder_behind_it(
    line: RequestLine,
    status: int,
    fields: Pairs,
    last: bool,
    close: bool,
    lines: bytes,
    kind: type[Encoder],
    ends: bool,
) -> None:
    wire, encoder, closes = encode_head(ResponseHead(status, fields), line, DEFAULT, 3, last=last, close=close)
    assert wire == status_line(status) + DEFAULT + lines + b"\r\n"
    assert type(encoder) is kind
    assert closes is ends
    declared = re.search(rb"(?i)content-length: (\d+)", lines)
    if isinstance(encoder, FixedEncoder):
        assert declared is not None
        assert (encoder.length, encoder.sent) == (int(declared[1]), 0)
    else:
        assert encoder.length == NO_LENGTH


def test_a_head_has_its_own_reason() -> None:
    wire, _, _ = encode_head(ResponseHead(200, [], b"Fine"), asked(), b"", 0, last=True, close=False)
    assert wire.startswith(b"HTTP/1.1 200 Fine\r\n")


# ---------------------------------------------------------------------- responses that an application frames itself


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"HTTP/1.1 200 OK\r\n", 200),
        (b"HTTP/1.0 404 Not Found\r\n", 404),
        (b"HTTP/1.1 999\r\n", 999),
        (b"HTTP/1.1 200", 0),
        (b"HTTP/1.1 099 X\r\n", 0),
        (b"HTTP/1.1 2000 X\r\n", 0),
        (b"HTTP/1.2 200 OK\r\n", 0),
        (b"HTTP/2 200 OK\r\n", 0),
        (b"http/1.1 200 OK\r\n", 0),
        (b" HTTP/1.1 200 OK\r\n", 0),
        (b"hello", 0),
        (b"", 0),
    ],
)
def test_the_status_of_a_raw_response(data: bytes, status: int) -> None:
    assert raw_status(data) == status


@pytest.mark.parametrize(
    ("lines", "closes"),
    [
        (b"Connection: close\r\n", True),
        (b"CONNECTION:CLOSE\r\n", True),
        (b"a: b\r\nconnection: \tclose \t\r\nc: d\r\n", True),
        (b"Connection: keep-alive, Close\r\n", True),
        (b"Connection: close, x\r\n", True),
        (b"Connection: x,close,y\r\n", True),
        (b"Connection: keep-alive\r\nConnection: close\r\n", True),
        (b"Connection: keep-alive\r\n", False),
        (b"Connection: closed\r\n", False),
        (b"Connection: x close\r\n", False),
        (b"Connection: un-close\r\n", False),
        (b"X-Connection: close\r\n", False),
        (b"X: connection: close\r\n", False),
        (b"", False),
    ],
)
def test_whether_a_raw_response_is_the_last(lines: bytes, closes: bool) -> None:
    head = b"HTTP/1.1 200 OK\r\n" + lines + b"\r\n"
    for content in (b"", b"close", b"\r\nconnection: close\r\n\r\n"):  # which is no head
        assert says_close(head + content) is closes


# ---------------------------------------------------------------------- content


@given(st.lists(st.binary(min_size=1, max_size=100), max_size=8))
def test_chunks_can_be_read(parts: list[bytes]) -> None:
    wire = b"".join(chunk(part) for part in parts) + LAST_CHUNK
    assert read_content(ChunkedDecoder(Limits(), 1 << 20), [wire]) == Content(b"".join(parts), (), b"")


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_content_of_a_declared_length(kind: type[bytes]) -> None:
    encoder = fixed(5)
    assert encoder.encode(kind(b"he"), False) == b"he"
    assert encoder.encode(kind(b""), False) == b""
    assert encoder.encode(kind(b"llo"), False) == b"llo"
    assert (encoder.sent, encoder.delimits) == (5, True)
    assert encoder.encode(kind(b""), True) == b""
    assert fixed(5).encode(kind(b"hello"), True) == b"hello"
    assert fixed(0).encode(kind(b""), True) == b""


def test_content_of_a_declared_length_is_not_copied() -> None:
    data = b"x" * 100000
    assert fixed(100000).encode(data, True) is data
    assert fixed(100000).encode(data, False) is data


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize(
    ("length", "sent", "data", "fits"),
    [(5, 0, b"hello!", b"hello"), (5, 3, b"lo!", b"lo"), (5, 5, b"!", b""), (0, 0, b"hello", b"")],
)
def test_of_content_that_is_too_long_what_fits_is_told(
    length: int, sent: int, data: bytes, fits: bytes, last: bool
) -> None:
    for kind in (bytes, bytearray, memoryview):
        encoder = fixed(length, sent)
        with pytest.raises(WrongLength, match=f"longer than its Content-Length of {length} bytes") as caught:
            encoder.encode(kind(data), last)
        assert (caught.value.fits, caught.value.complete) == (fits, True)
        assert type(caught.value.fits) is bytes
        assert encoder.sent == length  # whoever goes on all the same sends nothing
        with pytest.raises(WrongLength) as caught:
            encoder.encode(b"more", False)
        assert caught.value.fits == b""


@pytest.mark.parametrize(("length", "sent", "data"), [(5, 0, b"hell"), (5, 3, b"l"), (5, 0, b""), (5, 4, b"")])
def test_of_content_that_is_too_short_all_is_told(length: int, sent: int, data: bytes) -> None:
    encoder = fixed(length, sent)
    with pytest.raises(WrongLength, match=f"content of {sent + len(data)} bytes, its Content-Length is 5") as caught:
        encoder.encode(data, True)
    assert (caught.value.fits, caught.value.complete) == (data, False)
    assert encoder.sent == sent + len(data)


def test_a_wrong_length_is_the_applications_fault() -> None:
    assert issubclass(WrongLength, LocalProtocolError)


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("data", [b"a", b"hello", b"0\r\n\r\n", b"x" * 100000])
def test_a_chunk_in_parts_is_the_same_chunk(data: bytes, last: bool) -> None:
    encoder = ChunkedEncoder()
    parts = encoder.parts(data, last)
    assert parts[1] is data
    assert b"".join(parts) == encoder.encode(data, last) == chunk(data) + (LAST_CHUNK if last else b"")


def test_an_empty_chunk_would_be_the_last() -> None:
    encoder = ChunkedEncoder()
    assert encoder.encode(b"", False) == b""
    assert encoder.encode(b"", True) == LAST_CHUNK
    assert encoder.end(b"") == LAST_CHUNK
    assert (encoder.delimits, encoder.length) == (True, NO_LENGTH)


def test_the_last_chunk_has_room_for_trailers() -> None:
    wire = ChunkedEncoder().encode(b"hello", False) + ChunkedEncoder().end(b"x-t: v\r\ny: z\r\n")
    assert wire == b"5\r\nhello\r\n0\r\nx-t: v\r\ny: z\r\n\r\n"
    trailers = ((b"x-t", b"v"), (b"y", b"z"))
    assert read_content(ChunkedDecoder(Limits(), 100), [wire]) == Content(b"hello", trailers, b"")


def test_content_that_ends_with_the_connection_goes_out_as_it_is() -> None:
    encoder = CloseEncoder()
    data = b"x" * 100
    assert encoder.encode(data, False) is data
    assert encoder.encode(data, True) is data
    assert (encoder.delimits, encoder.length) == (False, NO_LENGTH)


def test_content_that_there_must_not_be_is_dropped() -> None:
    for last in (False, True):
        assert BODILESS.encode(b"hello", last) == b""
    assert (BODILESS.delimits, BODILESS.length) == (True, NO_LENGTH)


# ---------------------------------------------------------------------- round trips


class Peer:
    """A client that reads with h11 what it is sent."""

    def __init__(self, line: RequestLine) -> None:
        self.connection = h11.Connection(h11.CLIENT)
        request = h11.Request(method=line.method, target=b"/", headers=[(b"host", b"a")])
        self.connection.send(request)
        self.connection.send(h11.EndOfMessage())
        self.http_1_0 = line.version == b"1.0"

    def read(self, wire: bytes) -> tuple[h11.Response, bytes, list[tuple[bytes, bytes]]]:
        self.connection.receive_data(wire)
        self.connection.receive_data(b"")
        response = self.connection.next_event()
        assert isinstance(response, h11.Response)
        content = b""
        while isinstance(event := self.connection.next_event(), h11.Data):
            content += bytes(event.data)
        assert isinstance(event, h11.EndOfMessage)
        return response, content, list(event.headers)


PARTS = st.lists(st.one_of(st.binary(max_size=20), st.just(b"x" * 300)), min_size=1, max_size=5)


@given(
    parts=PARTS,
    method=st.sampled_from(["GET", "HEAD"]),
    version=st.sampled_from([b"1.1", b"1.0"]),
    status=st.sampled_from([200, 204, 304, 404]),
    declared=st.booleans(),
    trailers=st.booleans(),
    close=st.booleans(),
)
def test_what_is_encoded_is_read_back(
    parts: list[bytes], method: str, version: bytes, status: int, declared: bool, trailers: bool, close: bool
) -> None:
    content = b"".join(parts)
    line = asked(method, version)
    head = ResponseHead(status, [(b"x", b"y"), *([(b"content-length", b"%d" % len(content))] if declared else ())])
    once = len(parts) == 1 and not trailers
    wire, encoder, closes = encode_head(head, line, DEFAULT, len(parts[0]), last=once, close=close)
    block = b"x-t: v\r\n" if trailers else b""
    body = b""
    for number, part in enumerate(parts, 1):
        body += encoder.encode(part, number == len(parts) and not trailers)
    if trailers:
        body += encoder.end(block) if isinstance(encoder, ChunkedEncoder) else encoder.encode(b"", True)
    expected = b"" if encoder is BODILESS else content
    # by a strict reader of responses
    (response,) = read_responses(wire + body, [method], ended=closes)
    assert (response.status, response.content, response.complete) == (status, expected, True)
    assert response.closes is (closes and version == b"1.1")
    # by a peer
    theirs, found, theirs_trailers = Peer(line).read(wire + body)
    assert (theirs.status_code, found) == (status, expected)
    chunked = isinstance(encoder, ChunkedEncoder)
    assert theirs_trailers == ([(b"x-t", b"v")] if chunked and trailers else [])
    # and by our own decoder, which reads not a byte more
    if chunked or (isinstance(encoder, FixedEncoder) and content):
        decoder = ChunkedDecoder(Limits(), 1 << 20) if chunked else FixedDecoder(len(content))
        read = ((b"x-t", b"v"),) if chunked and trailers else ()
        assert read_content(decoder, [body + b"rest"]) == Content(content, read, b"rest")


@given(data=st.binary(max_size=50), declared=st.booleans(), reason=st.sampled_from([b"", b"Fine"]))
def test_a_whole_response_says_the_same_as_one_of_head_and_content(data: bytes, declared: bool, reason: bytes) -> None:
    head = ResponseHead(200, [(b"content-length", b"%d" % len(data))] if declared else [], reason)
    wire, encoder, closes = encode_head(head, asked(), DEFAULT, len(data), last=True, close=False)
    assert not closes
    assert encode_whole(head, DEFAULT, data) == wire + encoder.encode(data, True)
