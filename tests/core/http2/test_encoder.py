from __future__ import annotations

import hpack
import ngh2
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.core.http.fields import Field, encode_fields
from bridge.core.http.message import ResponseHead
from bridge.core.http2 import frames
from bridge.core.http2.encoder import FieldEncoder
from bridge.core.http2.hpack import FieldDecoder


class Readers:
    """Three decoders that have to agree on each block: ours, and two of other people."""

    def __init__(self) -> None:
        self.ours = FieldDecoder(1 << 20)
        self.hpack = hpack.Decoder(max_header_list_size=1 << 20)
        self.ngh2 = ngh2.Connection(ngh2.Role.CLIENT)
        self.ngh2.initiate_connection()
        self.ngh2.receive_data(frames.settings_frame([]))
        self.ngh2.events()

    def decode(self, block: bytes) -> list[Field]:
        """Return the fields of a final response."""
        fields = self.ours.decode(block)
        assert [(bytes(name), bytes(value)) for name, value in self.hpack.decode(block, raw=True)] == fields
        request = [(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/"), (b":authority", b"a")]
        stream = self.ngh2.send_request(request, end_stream=True)
        self.ngh2.data_to_send()
        self.ngh2.receive_data(frames.headers_frame(stream, block, False))
        (found,) = [event for event in self.ngh2.events() if isinstance(event, ngh2.ResponseReceived)]
        assert [(bytes(name), bytes(value)) for name, value in found.headers] == fields
        return fields


COMMON = b"date: Mon, 30 Nov 2026 12:00:00 GMT\r\nserver: bridge\r\n"
COMMON_FIELDS = [(b"date", b"Mon, 30 Nov 2026 12:00:00 GMT"), (b"server", b"bridge")]


def test_a_response() -> None:
    response = ResponseHead(200, [(b"Content-Type", b"text/plain"), (b"X-Custom", b" v "), (b"connection", b"close")])
    fields = [(b":status", b"200"), *COMMON_FIELDS, (b"content-type", b"text/plain"), (b"x-custom", b"v")]
    encoder, readers = FieldEncoder(), Readers()
    sizes = []
    for _ in range(5):
        block = encoder.head(response, COMMON)
        assert readers.decode(block) == fields
        sizes.append(len(block))
    # As literals, as literals that are put into the table, out of the table.
    assert sizes[0] > sizes[1] > sizes[2] == 5
    assert sizes[2:] == [5, 5, 5]
    assert encoder.head(response, COMMON) is encoder.head(response, COMMON)


def test_the_length_is_added_and_left_out() -> None:
    encoder, readers = FieldEncoder(), Readers()
    plain = ResponseHead(200, [])
    assert readers.decode(encoder.head(plain, b"", 13)) == [(b":status", b"200"), (b"content-length", b"13")]
    assert readers.decode(encoder.head(plain, b"", 14)) == [(b":status", b"200"), (b"content-length", b"14")]
    assert readers.decode(encoder.head(plain, b"")) == [(b":status", b"200")]
    declared = ResponseHead(204, [(b"content-length", b"0"), (b"a", b"b")])
    assert readers.decode(encoder.head(declared, b"")) == [(b":status", b"204"), (b"a", b"b")]
    declared = ResponseHead(304, [(b"content-length", b"7")])
    assert readers.decode(encoder.head(declared, b"")) == [(b":status", b"304"), (b"content-length", b"7")]


def test_other_common_fields_are_not_taken_from_the_memo() -> None:
    encoder, readers = FieldEncoder(), Readers()
    response = ResponseHead(200, [])
    for second in (0, 0, 0, 1, 1, 1, 0, 0, 2):
        common = b"date: %d\r\n" % second
        for _ in range(2):
            assert readers.decode(encoder.head(response, common)) == [(b":status", b"200"), (b"date", b"%d" % second)]


def test_secrets_are_never_indexed_and_not_kept() -> None:
    encoder, readers = FieldEncoder(), Readers()
    response = ResponseHead(200, [(b"Set-Cookie", b"id=1")])
    for _ in range(3):
        block = encoder.head(response, b"")
        assert readers.decode(block) == [(b":status", b"200"), (b"set-cookie", b"id=1")]
        assert readers.ours.never_indexed
    assert encoder.generation == 0
    assert encoder.head(response, b"") is not encoder.head(response, b"")


def test_trailers_and_interim_responses() -> None:
    encoder, ours = FieldEncoder(), FieldDecoder()
    trailers = encode_fields([(b"Grpc-Status", b"0"), (b"grpc-message", b"")])
    for _ in range(3):
        assert ours.decode(encoder.fields(trailers)) == [(b"grpc-status", b"0"), (b"grpc-message", b"")]
        assert ours.decode(encoder.fields(b"link: </a>\r\n", 103)) == [(b":status", b"103"), (b"link", b"</a>")]
    assert ours.decode(encoder.fields(b"", 100)) == [(b":status", b"100")]
    assert encoder.fields(b"") == b""


def test_a_connection_with_one_response_needs_no_table() -> None:
    encoder = FieldEncoder()
    encoder.head(ResponseHead(200, [(b"a", b"b"), (b"c", b"d")]), COMMON)
    assert encoder.generation == 0


FIELD = st.tuples(
    st.sampled_from([b"a", b"etag", b"server", b"set-cookie", b"X-B", b"vary"]),
    st.sampled_from([b"", b"1", b"0" * 600, b"text/html; charset=utf-8", b"\xe4\x80\xff", b"v" * 300])
    | st.text("abc \x7e\xff", max_size=50).map(lambda text: text.strip().encode("latin-1")),
)


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from([200, 404, 201, 999]), st.lists(FIELD, max_size=6), st.sampled_from([-1, 0, 12345]))
        | st.integers(0, 6000),
        max_size=12,
    ),
    st.integers(1, 3),
)
def test_any_responses_and_table_sizes(steps: list[tuple[int, list[Field], int] | int], times: int) -> None:
    encoder, readers = FieldEncoder(), Readers()
    for step in steps:
        if isinstance(step, int):
            encoder.set_limit(step)
            continue
        status, fields, length = step
        response = ResponseHead(status, fields)
        expected = [(b":status", b"%d" % status), *COMMON_FIELDS, *((name.lower(), value) for name, value in fields)]
        if length >= 0:
            expected.append((b"content-length", b"%d" % length))
        for _ in range(times):
            assert readers.decode(encoder.head(response, COMMON, length)) == expected
        encoder.on_idle()
        assert readers.decode(encoder.head(response, COMMON, length)) == expected


def test_sizes_that_the_peer_sets_are_announced() -> None:
    encoder, ours = FieldEncoder(), FieldDecoder()
    encoder.set_limit(65536)
    encoder.set_limit(4096)
    assert encoder.fields(b"") == b""  # 4096 at first, and at most
    for sizes, announced in (
        ((100,), [100]),
        ((100,), []),
        ((50, 200), [50, 200]),
        ((1000, 10, 300, 20, 9999), [10, 4096]),
        ((5, 4096), [5, 4096]),
        ((0,), [0]),
        ((4096,), [4096]),
        ((10, 5), [5]),
    ):
        for size in sizes:
            encoder.set_limit(size)
        block = encoder.fields(b"")
        ours.decode(block)
        found = []
        while block:
            size, used = hpack.hpack.decode_integer(block, 5)
            found.append(size)
            block = block[used:]
        assert found == announced


def test_a_table_that_the_peer_makes_small_evicts() -> None:
    encoder, readers = FieldEncoder(), Readers()
    response = ResponseHead(200, [(b"a", b"b"), (b"c", b"d")])
    for _ in range(3):
        readers.decode(encoder.head(response, b""))
    encoder.set_limit(40)
    for _ in range(4):
        assert readers.decode(encoder.head(response, b""))[1:] == [(b"a", b"b"), (b"c", b"d")]
    encoder.set_limit(0)
    for _ in range(4):
        assert len(encoder.head(response, b"")) >= 11
        assert readers.decode(encoder.head(response, b""))[1:] == [(b"a", b"b"), (b"c", b"d")]
