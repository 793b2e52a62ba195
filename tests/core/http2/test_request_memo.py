"""What a connection keeps of one request never shows in another: every stream of blocks with and without it.

A proxy's connection carries the requests of many people. A memo that survives a change of the table of fields would
hand one of them the cookies of another.
"""

from __future__ import annotations

import hpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.core.http.fields import Field
from bridge.core.http.limits import Limits
from bridge.core.http2 import hpack as own_hpack
from bridge.core.http2.codes import ConnectionFault
from bridge.core.http2.request import HeadReader, StreamHead
from bridge.errors import RemoteProtocolError

pytestmark = pytest.mark.usefixtures("either_decoder")


class Forgetful(HeadReader):
    """Reads as a HeadReader that keeps nothing but the table of fields."""

    __slots__ = ()

    def read(self, block: bytes, ended: bool) -> StreamHead:
        self.on_idle()
        self._decoder._tail_size = own_hpack._NO_TAIL
        return super().read(block, ended)


class PureDecoder(own_hpack.FieldDecoder):
    """Decodes as without the compiled functions."""

    __slots__ = ()

    def decode(self, block: bytes) -> list[Field]:
        return self._decode(block)

    def read_request(self, block: bytes, ended: bool, limits: tuple[int, int, int, int]) -> None:
        return None


def outcome(reader: HeadReader, block: bytes, ended: bool) -> object:
    """Return all that reading *block* has given: the values of the head, or what was raised."""
    try:
        head = reader.read(block, ended)
    except RemoteProtocolError as exc:
        return type(exc), exc.status, str(exc)
    line = head.line
    return (
        *(line.method, line.target, line.path, line.query, line.version, line.plain),
        *(head.fields, head.host, head.content_length, head.expect_continue, head.upgrade, head.size),
        *(head.urgency, head.incremental, head.keep_alive),
    )


# Parts of blocks: few of them, so that blocks come again, and that what they mean depends on what came before.
TEXTS = st.sampled_from([b"", b"a", b"b", b"/", b"/a", b"a.test", b"5", b"u=1", b" x", b"v" * 1000, b"100-continue"])
NAMES = st.sampled_from(
    [b"x", b"cookie", b"authorization", b"host", b"priority", b"expect", b"content-length", b"X", b"te"]
)
START = st.sampled_from(
    [
        b"\x82\x86\x84\x41\x01a",
        b"\x82\x86\x84\x01\x01a",
        b"\x82\x86\x84\xbe",
        b"\x82\x86\x84\xbf",
        b"\x83\x86\x04\x02/a\x01\x01a",
    ]
)


def string(text: bytes) -> bytes:
    return hpack.hpack.encode_integer(len(text), 7) + text


PARTS = (
    st.sampled_from([b"\x82", b"\x84", b"\xbe", b"\xbf", b"\xc0", b"\xc5"])
    | st.tuples(st.sampled_from([b"\x40", b"\x00", b"\x10"]), NAMES, TEXTS).map(
        lambda part: part[0] + string(part[1]) + string(part[2])
    )
    | st.tuples(
        st.sampled_from([b"\x60", b"\x0f\x11", b"\x1f\x11", b"\x7e", b"\x41"]), TEXTS
    ).map(  # cookie, :authority
        lambda part: part[0] + string(part[1])
    )
)
UPDATES = st.sampled_from([b"", b"", b"", b"", b"\x20", b"\x3f\xe1\x1f", b"\x20\x3f\x81\x01", b"\x3f\x21"])
BLOCKS = st.tuples(UPDATES, START, st.lists(PARTS, max_size=4)).map(
    lambda block: block[0] + block[1] + b"".join(block[2])
)


@settings(deadline=None, max_examples=150)
@given(st.lists(BLOCKS, min_size=1, max_size=4), st.data())
def test_every_stream_of_blocks_gives_the_same_with_and_without_memos(blocks: list[bytes], data: st.DataObject) -> None:
    limits = Limits(field_line=1200)
    usual, forgetful = HeadReader(limits, 4000), Forgetful(limits, 4000)
    order = data.draw(st.lists(st.tuples(st.sampled_from(blocks), st.booleans()), max_size=12))
    for block, ended in order:
        found = outcome(usual, block, ended)
        assert found == outcome(forgetful, block, ended)
        if isinstance(found[0], type) and issubclass(found[0], ConnectionFault):
            return


USERS = st.sampled_from(["anna", "bert", "cora"])
FIELDS_OF = {
    user: [
        ("cookie", f"id={user}"),
        ("authorization", f"Bearer {user}"),
        ("x-user", user),
        ("accept", "*/*"),
        ("user-agent", f"agent of {user}"),
    ]
    for user in ("anna", "bert", "cora")
}


@settings(deadline=None, max_examples=80)
@given(
    st.lists(
        st.tuples(
            USERS,
            st.sets(st.integers(0, 4)),
            st.sampled_from(["/", "/account", "/account?page=2"]),
            st.sampled_from([None, None, None, 0, 100, 4096]),
            st.booleans(),
        ),
        min_size=2,
        max_size=25,
    )
)
def test_requests_of_several_people_on_one_connection(
    requests: list[tuple[str, set[int], str, int | None, bool]],
) -> None:
    reader, encoder = HeadReader(Limits()), hpack.Encoder()
    for user, chosen, path, table_size, secret in requests:
        if table_size is not None:
            encoder.header_table_size = table_size
        fields = [field for at, field in enumerate(FIELDS_OF[user]) if at in chosen]
        pseudo = [(":method", "GET"), (":scheme", "https"), (":path", path), (":authority", "a.test")]
        wire = [hpack.NeverIndexedHeaderTuple(*field) if secret else field for field in fields]
        head = reader.read(encoder.encode([*pseudo, *wire]), True)
        assert head.target == path.encode()
        expected: list[Field] = [(name.encode(), value.encode()) for name, value in fields]
        assert head.fields == ((b"host", b"a.test"), *expected)


def kept(reader: HeadReader) -> set[bytes]:
    return {block for memo in reader._memos for block in memo}


START_PLAIN = b"\x82\x86\x84\x01\x01a"


def test_which_blocks_are_kept() -> None:
    reader = HeadReader(Limits())
    plain = START_PLAIN + b"\x00\x01x\x01y"
    first = reader.read(plain, True)
    assert kept(reader) == {plain}
    assert reader.read(plain, True) is first
    for secret in (
        START_PLAIN + b"\x10\x01x\x01y",  # never indexed
        START_PLAIN + b"\x0f\x11\x03a=b",  # cookie
        START_PLAIN + b"\x0f\x08\x03abc",  # authorization
        START_PLAIN + b"\x00" + string(b"proxy-authorization") + string(b"x"),
        START_PLAIN + b"\x00\x01x" + string(b"y" * 2100),
    ):
        reader.read(secret, True)
        assert kept(reader) == {plain}
    with pytest.raises(RemoteProtocolError):
        reader.read(b"\x82\x86\x84", True)
    assert kept(reader) == {plain}
    reader.on_idle()
    assert kept(reader) == set()


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(START_PLAIN + b"\x40\x01x\x01z", id="an entry is inserted"),
        pytest.param(b"\x20" + START_PLAIN, id="a size update"),
        pytest.param(START_PLAIN + b"\x40\x01x" + string(b"v" * 5000), id="an entry that empties the table"),
        pytest.param(b"\x82" + START_PLAIN + b"\x40\x01x\x01z", id="a malformed request that inserts"),
        pytest.param(
            START_PLAIN + b"\x40\x01x\x01z" + b"\x00\x01x" + string(b"v" * 9000), id="a list that is too large"
        ),
    ],
)
def test_any_change_of_the_table_drops_all_blocks(change: bytes) -> None:
    for read in ("head", "trailers"):
        reader = HeadReader(Limits(), 8000)
        block = START_PLAIN + b"\x00\x01x\x01y"
        reader.read(block, True)
        reader.read(block, False)
        assert kept(reader) == {block}
        try:
            reader.read(change, True) if read == "head" else reader.trailers(change)
        except ConnectionFault:
            raise
        except RemoteProtocolError:
            pass
        assert block not in kept(reader)


def test_the_blocks_are_bounded() -> None:
    reader = HeadReader(Limits())
    for number in range(1000):
        reader.read(START_PLAIN + b"\x00\x01x" + string(b"%d" % number), True)
    assert len(kept(reader)) <= 16


def test_a_head_of_a_connection_is_not_that_of_another() -> None:
    one, two = HeadReader(Limits()), HeadReader(Limits())
    one.read(START_PLAIN[:3] + b"\x41\x01a\x40\x01x\x04anna", True)
    two.read(START_PLAIN[:3] + b"\x41\x01a\x40\x01x\x04bert", True)
    block = b"\x82\x86\x84\xbf\xbe"
    for _ in range(3):
        assert one.read(block, True).fields[1] == (b"x", b"anna")
        assert two.read(block, True).fields[1] == (b"x", b"bert")


def test_an_extended_connect_does_not_take_the_head_of_a_request() -> None:
    reader = HeadReader(Limits(), extended_connect=True)
    encoder = hpack.Encoder()
    rest = [(":scheme", "https"), (":path", "/"), (":authority", "a.test")]
    for _ in range(3):
        assert reader.read(encoder.encode([(":method", "GET"), *rest, ("x", "y")]), True).upgrade == b""
        for ended in (True, False):
            connect = encoder.encode([(":method", "CONNECT"), (":protocol", "websocket"), *rest, ("x", "y")])
            assert reader.read(connect, ended).upgrade == b"websocket"
