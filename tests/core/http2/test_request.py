from __future__ import annotations

import hpack
import pytest

from bridge.core.http.fields import Field
from bridge.core.http.limits import Limits
from bridge.core.http2.codes import PROTOCOL_ERROR, CompressionError, MalformedRequest
from bridge.core.http2.request import HeadReader, StreamHead
from bridge.errors import FramingError, LimitExceeded, RemoteProtocolError, RequestSyntaxError, UnsupportedFeature

pytestmark = pytest.mark.usefixtures("either_decoder")

PSEUDO: list[Field] = [(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/a?b=c"), (b":authority", b"a.test")]


def encoded(fields: list[Field], encoder: hpack.Encoder | None = None) -> bytes:
    return (encoder or hpack.Encoder()).encode(fields)


def read(fields: list[Field], *, ended: bool = True, **options: bool) -> StreamHead:
    return HeadReader(Limits(), **options).read(encoded(fields), ended)


def without(name: bytes) -> list[Field]:
    return [field for field in PSEUDO if field[0] != name]


def replaced(name: bytes, value: bytes) -> list[Field]:
    return [(name, value) if field[0] == name else field for field in PSEUDO]


def test_a_request() -> None:
    block = encoded([*PSEUDO, (b"accept", b"*/*"), (b"x", b"")])
    head = HeadReader(Limits()).read(block, True)
    assert head.fields == ((b"host", b"a.test"), (b"accept", b"*/*"), (b"x", b""))
    assert (head.method, head.target, head.path, head.query, head.version) == (b"GET", b"/a?b=c", b"/a", b"b=c", b"2")
    line = head.line
    assert (line.method_text, line.path_text, line.version_text, line.protocol_text) == ("GET", "/a", "2", "HTTP/2.0")
    assert line.plain
    assert line.authority == b""
    assert head.host == b"a.test"
    assert head.content_length == 0
    assert (head.keep_alive, head.expect_continue, head.upgrade) == (True, False, b"")
    assert head.size == len(block)
    assert (head.urgency, head.incremental) == (3, True)


NO_NAMES = [b"", b"A", b"aB", b"a:b", b"a b", b" a", b"a ", b"a\n", b"a\r\nb", b"a\x00", b"\x80", b"a\x7f", b"a("]
NO_VALUES = [
    *(b" a", b"a ", b"\ta", b"a\t", b" ", b"\t"),
    *(b"a\r\nb: c", b"a\nb", b"a\rb", b"a\x00b", b"\x7f", b"\x1f"),
]
NO_PATHS = [
    *(b"", b"*", b"a", b"?a", b"http://a.test/", b"/a b", b"/a#b", b"/\xe9", b"/\x00", b"/a\r\nb: c", b" /"),
]
NO_SCHEMES = [b"", b"ftp", b"http:", b"http "]
NO_METHODS = [b"", b"G T", b"GET\n", b"G:T"]
MALFORMED = [
    *(pytest.param(without(name), id=f"without {name.decode()}") for name in (b":method", b":scheme", b":path")),
    *(pytest.param([*PSEUDO, field], id=f"{field[0].decode()} twice") for field in PSEUDO),
    *(pytest.param([PSEUDO[0], (b"a", b"b"), *PSEUDO[1:]], id="behind a field") for _ in range(1)),
    pytest.param([*PSEUDO, (b"a", b"b"), PSEUDO[2]], id="twice and behind a field"),
    pytest.param([*PSEUDO, (b":foo", b"b")], id="unknown pseudo-field"),
    pytest.param([*PSEUDO, (b":status", b"200")], id=":status"),
    pytest.param([*PSEUDO, (b"a", b"b"), (b":status", b"200")], id=":status behind a field"),
    pytest.param([*PSEUDO[:3], (b":status", b"200"), (b"host", b"a.test")], id=":status in place of :authority"),
    pytest.param([*PSEUDO, (b":", b"200")], id="a colon"),
    pytest.param([*PSEUDO, (b":protocol", b"websocket")], id=":protocol that was not announced"),
    *(
        pytest.param([*PSEUDO, (name, b"x")], id=f"name {name!r}")
        for name in NO_NAMES
    ),
    *(
        pytest.param([*PSEUDO, (b"a", value)], id=f"value {value!r}")
        for value in NO_VALUES
    ),
    *(
        pytest.param([*PSEUDO, (name, b"x")], id=name.decode())
        for name in (b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade")
    ),
    *(
        pytest.param([*PSEUDO, (b"te", value)], id=f"te {value!r}")
        for value in (b"", b"gzip", b"trailers, gzip", b"trailers;q=1", b"chunked")
    ),
    *(
        pytest.param(replaced(b":path", value), id=f":path {value!r}")
        for value in NO_PATHS
    ),
    *(pytest.param(replaced(b":method", value), id=f":method {value!r}") for value in NO_METHODS),
    *(pytest.param(replaced(b":scheme", value), id=f":scheme {value!r}") for value in NO_SCHEMES),
    pytest.param(replaced(b":authority", b""), id="empty :authority"),
    pytest.param([*without(b":authority"), (b"host", b"")], id="empty Host"),
    pytest.param([*PSEUDO, (b"host", b"b.test")], id="Host is not :authority"),
    pytest.param([*PSEUDO, (b"host", b"")], id="empty Host beside :authority"),
    pytest.param([*PSEUDO, (b"content-length", b"1")], id="content-length, but no content"),
    pytest.param([(b":method", b"CONNECT"), *PSEUDO[1:]], id="CONNECT with path and scheme"),
    pytest.param([(b":method", b"CONNECT")], id="CONNECT without authority"),
    pytest.param([], id="nothing"),
]  # fmt: skip


@pytest.mark.parametrize("fields", MALFORMED)
def test_malformed_requests(fields: list[Field]) -> None:
    reader = HeadReader(Limits())
    encoder = hpack.Encoder()
    for _ in range(3):  # as literals, then out of the table
        with pytest.raises(MalformedRequest) as caught:
            reader.read(encoded(fields, encoder), True)
        assert caught.value.code == PROTOCOL_ERROR
    assert reader.read(encoded(PSEUDO, encoder), True).host == b"a.test"


@pytest.mark.parametrize(
    ("fields", "error", "status"),
    [
        (without(b":authority"), RequestSyntaxError, 400),
        *(
            (replaced(b":authority", host), RequestSyntaxError, 400)
            for host in (b"u@a", b"a,b", b"a/", b"a:b", b"[::1")
        ),
        ([*PSEUDO, (b"host", b"a.test"), (b"host", b"a.test")], RequestSyntaxError, 400),
        *(([*PSEUDO, (b"content-length", value)], FramingError, 400) for value in (b"", b"+1", b"a", b"1,1", b"0x1")),
        ([*PSEUDO, (b"content-length", b"1"), (b"content-length", b"1")], FramingError, 400),
        ([*PSEUDO, (b"content-length", b"1" * 19)], LimitExceeded, 413),
        ([(b":method", b"CONNECT"), (b":authority", b"a.test:1")], UnsupportedFeature, 501),
        (replaced(b":path", b"/" + b"a" * 8190), LimitExceeded, 414),
        ([*PSEUDO, (b"a", b"b" * 8190)], LimitExceeded, 431),
        ([*PSEUDO, *((b"x%d" % number, b"") for number in range(100))], LimitExceeded, 431),
        ([*PSEUDO, *((b"cookie", b"c" * 100) for _ in range(100))], LimitExceeded, 431),
        ([*PSEUDO, *((b"a", b"b" * 8000) for _ in range(5))], LimitExceeded, 431),
    ],
)
def test_refusals_that_have_a_status(fields: list[Field], error: type[RemoteProtocolError], status: int) -> None:
    reader = HeadReader(Limits())
    encoder = hpack.Encoder()
    for _ in range(3):
        with pytest.raises(error) as caught:
            reader.read(encoded(fields, encoder), False)
        assert type(caught.value) is error
        assert caught.value.status == status
    assert reader.read(encoded(PSEUDO, encoder), True).host == b"a.test"


def test_what_just_fits() -> None:
    assert read(replaced(b":path", b"/" + b"a" * (8190 - 14))).path == b"/" + b"a" * 8176
    assert read([*PSEUDO, (b"a", b"b" * 8187)]).fields[1][1] == b"b" * 8187
    assert len(read([*PSEUDO, *((b"x%d" % number, b"") for number in range(99))]).fields) == 100
    assert len(read([*PSEUDO, *((b"cookie", b"c=d") for _ in range(200))]).fields) == 2


def test_a_broken_block() -> None:
    with pytest.raises(CompressionError):
        HeadReader(Limits()).read(b"\x80", True)


@pytest.mark.parametrize(
    ("fields", "ended", "length"),
    [
        ([], True, 0),
        ([], False, None),
        ([(b"content-length", b"0")], True, 0),
        ([(b"content-length", b"0")], False, 0),
        ([(b"content-length", b"12")], False, 12),
    ],
)
def test_the_content_length(fields: list[Field], ended: bool, length: int | None) -> None:
    assert read([*PSEUDO, *fields], ended=ended).content_length == length


def test_the_same_block_with_and_without_content() -> None:
    reader = HeadReader(Limits())
    block = b"\x82\x86\x84\x01\x01a"
    for _ in range(3):
        assert reader.read(block, True).content_length == 0
        assert reader.read(block, False).content_length is None


def test_other_fields_that_are_looked_at() -> None:
    assert read([*PSEUDO, (b"expect", b"100-continue")], ended=False).expect_continue
    assert not read([*PSEUDO, (b"expect", b"100-continue")]).expect_continue
    assert read([*PSEUDO, (b"te", b"Trailers")]).fields[1:] == ((b"te", b"Trailers"),)
    head = read([*PSEUDO, (b"priority", b"u=1, i")])
    assert (head.urgency, head.incremental) == (1, True)
    head = read([*PSEUDO, (b"priority", b"u=5")])
    assert (head.urgency, head.incremental) == (5, False)


def test_the_host() -> None:
    for fields in (
        [*PSEUDO, (b"x", b"y"), (b"host", b"A.test")],
        [*without(b":authority"), (b"x", b"y"), (b"host", b"a.test")],
    ):
        head = read(fields)
        assert head.host == b"a.test"
        assert head.fields == ((b"host", b"a.test"), (b"x", b"y"))
    assert read(replaced(b":authority", b"[::1]:8000")).host == b"[::1]:8000"


def test_cookies_are_joined() -> None:
    head = read(
        [*PSEUDO, (b"a", b"1"), (b"cookie", b"b=c"), (b"x", b"y"), (b"cookie", b"d=e"), (b"cookie", b"f=g; h=i")]
    )
    assert head.fields == ((b"host", b"a.test"), (b"a", b"1"), (b"cookie", b"b=c; d=e; f=g; h=i"), (b"x", b"y"))
    assert read([*PSEUDO, (b"cookie", b"b=c")]).fields[1:] == ((b"cookie", b"b=c"),)


def test_methods_and_targets() -> None:
    assert not read(replaced(b":method", b"HEAD")).line.plain
    assert read(replaced(b":method", b"X-Y")).line.method_text == "X-Y"
    star = [(b":method", b"OPTIONS"), (b":scheme", b"HTTPS"), (b":path", b"*"), (b":authority", b"a.test")]
    assert (read(star).path, read(star).query) == (b"*", b"")
    assert read(replaced(b":path", b"/%C3%A9?")).line.path_text == "/\xe9"
    assert read(replaced(b":path", b"//x/../y")).path == b"//x/../y"


WEBSOCKET = [
    *((b":method", b"CONNECT"), (b":protocol", b"WebSocket"), (b":scheme", b"https"), (b":path", b"/chat")),
    *((b":authority", b"a.test"), (b"sec-websocket-version", b"13")),
]


def test_extended_connect() -> None:
    head = read(WEBSOCKET, ended=False, extended_connect=True)
    assert (head.method, head.path, head.upgrade, head.content_length) == (b"CONNECT", b"/chat", b"websocket", 0)
    for at in range(2, 5):
        with pytest.raises(MalformedRequest):
            read(WEBSOCKET[:at] + WEBSOCKET[at + 1 :], ended=False, extended_connect=True)
    for field in ((b":protocol", b""), (b":protocol", b"a b"), (b":protocol", b"a,b")):
        with pytest.raises(MalformedRequest):
            read([WEBSOCKET[0], field, *WEBSOCKET[2:]], ended=False, extended_connect=True)
    with pytest.raises(MalformedRequest):
        read([PSEUDO[0], *WEBSOCKET[1:]], ended=False, extended_connect=True)
    with pytest.raises(UnsupportedFeature):
        read([(b":method", b"CONNECT"), (b":authority", b"a.test:1")], extended_connect=True)


def test_trailers() -> None:
    reader = HeadReader(Limits())
    assert reader.trailers(encoded([(b"a", b"b"), (b"c", b"")])) == ((b"a", b"b"), (b"c", b""))
    assert reader.trailers(b"") == ()


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ([PSEUDO[0]], MalformedRequest),
        ([(b"a", b"b"), PSEUDO[0]], MalformedRequest),
        ([(b"connection", b"close")], MalformedRequest),
        ([(b"A", b"b")], MalformedRequest),
        ([(b"a", b"b\n")], MalformedRequest),
        ([(b"host", b"a,b")], RequestSyntaxError),
        ([(b"a", b"")] * 101, LimitExceeded),
        ([(b"a", b"b" * 9000)], LimitExceeded),
    ],
)
def test_trailers_that_are_refused(fields: list[Field], error: type[RemoteProtocolError]) -> None:
    reader = HeadReader(Limits())
    encoder = hpack.Encoder()
    for _ in range(2):
        with pytest.raises(error):
            reader.trailers(encoded(fields, encoder))
    assert reader.trailers(encoded([(b"a", b"b")], encoder)) == ((b"a", b"b"),)
