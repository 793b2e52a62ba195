from __future__ import annotations

import tracemalloc
import zlib

import pytest

from bridge.core.websocket.extensions import DeflateParameters
from bridge.core.websocket.frames import WebSocketError, encode_close, is_close_code
from bridge.core.websocket.receiver import NO_STATUS, UNPACKED, Close, Ping, Pong, Receiver
from tests.support.table import table
from tests.support.websocket_peer import CUTS, bytewise, frame, read, whole

TEXT, BINARY, CONTINUATION, CLOSE, PING, PONG = 0x81, 0x82, 0x80, 0x88, 0x89, 0x8A
FIRST_TEXT, FIRST_BINARY, MORE = 0x01, 0x02, 0x00
EURO = "€".encode()

ACCEPTED = [
    pytest.param(b"", [], id="nothing"),
    # RFC 6455 section 5.7.
    pytest.param(b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58", ["Hello"], id="masked text of the RFC"),
    pytest.param(frame(TEXT), [""], id="empty text"),
    pytest.param(frame(BINARY), [b""], id="empty binary"),
    pytest.param(frame(TEXT, "é€\U0001f600\0\uffff".encode()), ["é€\U0001f600\0\uffff"], id="text beyond ASCII"),
    pytest.param(frame(BINARY, b"\xff\xfe", key=b"\0\0\0\0"), [b"\xff\xfe"], id="binary, mask of zeros"),
    pytest.param(frame(TEXT, b"a") + frame(BINARY, b"b") + frame(TEXT, b"c"), ["a", b"b", "c"], id="three messages"),
    *(
        pytest.param(frame(BINARY, b"x" * size), [b"x" * size], id=f"binary of {size} bytes")
        for size in (125, 126, 127, 255, 256, 65535, 65536)
    ),
    pytest.param(frame(TEXT, b"x" * 126), ["x" * 126], id="text of 126 bytes"),
    pytest.param(frame(TEXT, b"x" * 65536), ["x" * 65536], id="text of 65536 bytes"),
    pytest.param(frame(FIRST_TEXT, b"Hel") + frame(CONTINUATION, b"lo"), ["Hello"], id="two fragments"),
    pytest.param(
        frame(FIRST_BINARY, b"\x00") + frame(MORE) + frame(MORE, b"\x01" * 300) + frame(CONTINUATION),
        [b"\x00" + b"\x01" * 300],
        id="four fragments, two empty",
    ),
    pytest.param(frame(FIRST_TEXT) + frame(MORE) + frame(CONTINUATION), [""], id="fragments of an empty text"),
    pytest.param(frame(FIRST_BINARY) + frame(CONTINUATION), [b""], id="fragments of an empty binary"),
    pytest.param(
        frame(FIRST_TEXT, EURO[:1]) + frame(MORE, EURO[1:2]) + frame(MORE) + frame(CONTINUATION, EURO[2:] + b"!"),
        ["€!"],
        id="a character across four fragments",
    ),
    pytest.param(
        frame(FIRST_TEXT, b"a") + frame(CONTINUATION, b"b") + frame(FIRST_BINARY, b"c") + frame(CONTINUATION, b"d"),
        ["ab", b"cd"],
        id="a fragmented message after another",
    ),
    pytest.param(
        frame(FIRST_TEXT, b"a") + frame(CONTINUATION, b"b") + frame(TEXT, b"c"), ["ab", "c"], id="whole after fragments"
    ),
    pytest.param(
        frame(FIRST_TEXT, b"a") + frame(PING, b"p") + frame(MORE, b"b") + frame(PONG) + frame(CONTINUATION, b"c"),
        [Ping(b"p"), Pong(b""), "abc"],
        id="control frames between fragments",
    ),
    pytest.param(frame(PING), [Ping(b"")], id="empty ping"),
    pytest.param(frame(PING, b"\xff" * 125), [Ping(b"\xff" * 125)], id="longest ping"),
    pytest.param(frame(PONG, b"x"), [Pong(b"x")], id="pong nobody asked for"),
    pytest.param(frame(CLOSE), [Close(NO_STATUS, "")], id="empty close"),
    pytest.param(frame(CLOSE, b"\x03\xe8"), [Close(1000, "")], id="close without reason"),
    pytest.param(frame(CLOSE, b"\x03\xe9" + "é".encode()), [Close(1001, "é")], id="close with reason"),
    pytest.param(frame(CLOSE, b"\x13\x87" + b"x" * 123), [Close(4999, "x" * 123)], id="longest close"),
    pytest.param(frame(FIRST_TEXT, b"a") + frame(CLOSE), [Close(NO_STATUS, "")], id="close inside a message"),
    # Section 1.4: what follows a close frame is discarded, whatever it is.
    pytest.param(
        frame(CLOSE) + frame(TEXT, b"late") + frame(CLOSE) + b"\xff\xff",
        [Close(NO_STATUS, "")],
        id="frames after the close",
    ),
]

# What came before the fault is delivered; the second value is the close code.
REFUSED = [
    *(
        pytest.param(frame(0x80 | opcode, b"x"), 1002, [], id=f"reserved opcode {opcode}")
        for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)
    ),
    *(
        pytest.param(frame(TEXT, b"ok") + frame(first | bit, b"x"), 1002, ["ok"], id=f"{name} with bit {bit:#x}")
        for bit in (0x10, 0x20, 0x30, 0x40, 0x50, 0x70)
        for name, first in (("text", TEXT), ("binary fragment", FIRST_BINARY), ("ping", PING), ("close", CLOSE))
    ),
    pytest.param(frame(FIRST_TEXT, b"x") + frame(CONTINUATION | 0x10), 1002, [], id="reserved bit in a continuation"),
    pytest.param(frame(FIRST_TEXT, b"x") + frame(CONTINUATION | 0x40), 1002, [], id="RSV1 in a continuation"),
    pytest.param(b"\x81\x02hi", 1002, [], id="unmasked text"),
    pytest.param(b"\x81\x00", 1002, [], id="unmasked empty text"),
    pytest.param(b"\x89\x00", 1002, [], id="unmasked ping"),
    pytest.param(b"\x82\x7e\xff\xff", 1002, [], id="unmasked head of a long frame"),
    pytest.param(frame(TEXT, b"a") + b"\x01\x01b", 1002, ["a"], id="unmasked fragment"),
    *(pytest.param(frame(first & 0x7F, b"x"), 1002, [], id=f"fragmented {first:#x}") for first in (CLOSE, PING, PONG)),
    *(
        pytest.param(frame(first, b"x" * 126), 1002, [], id=f"control frame {first:#x} of 126 bytes")
        for first in (CLOSE, PING, PONG)
    ),
    pytest.param(frame(PING, b"x" * 65536), 1002, [], id="ping of 65536 bytes"),
    pytest.param(frame(PING, b"x", form=126), 1002, [], id="ping in the long form"),
    *(
        pytest.param(frame(TEXT, b"x" * size, form=126), 1002, [], id=f"{size} bytes as 16 bits")
        for size in (0, 1, 125)
    ),
    *(
        pytest.param(frame(BINARY, b"x" * size, form=127), 1002, [], id=f"{size} bytes as 64 bits")
        for size in (0, 125, 126, 65535)
    ),
    pytest.param(b"\x82\xff\x80\0\0\0\0\0\0\x01\0\0\0\0x", 1002, [], id="64 bits with the top bit set"),
    pytest.param(b"\x82\xff" + b"\xff" * 8 + b"\0\0\0\0", 1002, [], id="64 bits all set"),
    pytest.param(b"\x82\xff\0\0\x01\0\0\0\0\0\0\0\0\0xx", 1009, [], id="a frame of one terabyte"),
    pytest.param(b"\x82\xff\x7f" + b"\xff" * 7 + b"\0\0\0\0", 1009, [], id="the largest frame"),
    pytest.param(frame(CONTINUATION, b"x"), 1002, [], id="continuation of nothing"),
    pytest.param(frame(MORE, b"x"), 1002, [], id="fragment of nothing"),
    pytest.param(frame(TEXT, b"a") + frame(CONTINUATION, b"b"), 1002, ["a"], id="continuation of a whole message"),
    pytest.param(
        frame(FIRST_TEXT, b"a") + frame(CONTINUATION, b"b") + frame(CONTINUATION, b"c"),
        1002,
        ["ab"],
        id="continuation of a finished message",
    ),
    *(
        pytest.param(frame(FIRST_TEXT, b"a") + frame(first, b"b"), 1002, [], id=f"{first:#x} inside a fragmented text")
        for first in (TEXT, BINARY, FIRST_TEXT, FIRST_BINARY)
    ),
    pytest.param(frame(CLOSE, b"\x03"), 1002, [], id="close of one byte"),
    *(
        pytest.param(frame(CLOSE, code.to_bytes(2, "big")), 1002, [], id=f"close code {code}")
        for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535)
    ),
    pytest.param(frame(CLOSE, b"\x03\xe8\xff"), 1007, [], id="close reason not UTF-8"),
    pytest.param(frame(CLOSE, b"\x03\xe8\xe2\x82"), 1007, [], id="close reason cut inside a character"),
    *(
        pytest.param(frame(TEXT, text), 1007, [], id=f"text {text!r}")
        for text in (
            b"\xff\xfe",
            b"\xc3",
            b"ok\x80",
            b"\xc0\x80",  # overlong
            b"\xe0\x80\xaf",
            b"\xed\xa0\x80",  # a surrogate
            b"\xf4\x90\x80\x80",  # above U+10FFFF
            b"\xf8\x88\x80\x80\x80",
            b"x" * 200 + b"\xe2\x82",
        )
    ),
    pytest.param(frame(FIRST_TEXT, b"ok") + frame(CONTINUATION, b"\xc3"), 1007, [], id="text cut inside a character"),
    pytest.param(frame(FIRST_TEXT, b"\xc3") + frame(CONTINUATION), 1007, [], id="text cut, empty last frame"),
    pytest.param(frame(FIRST_TEXT, b"\xc3") + frame(CONTINUATION, b"a"), 1007, [], id="character not completed"),
    # Found with its frame, not with the end of the message.
    pytest.param(frame(FIRST_TEXT, b"\xff"), 1007, [], id="first fragment not UTF-8"),
    pytest.param(frame(FIRST_TEXT, EURO[:2]) + frame(MORE, b"\xff"), 1007, [], id="second fragment not UTF-8"),
]


def in_every_cut(rows):
    return [(cut, *row.values) for cut in CUTS.values() for row in rows]


@table("cut, wire, events", in_every_cut(ACCEPTED))
def test_accepts(wire, events, cut):
    found, code = read(Receiver(), cut(wire))
    assert (found, code) == (events, None)
    assert [type(event) for event in found] == [type(event) for event in events]


@table("cut, wire, code, events", in_every_cut(REFUSED))
def test_refuses(wire, code, events, cut):
    receiver = Receiver()
    assert read(receiver, cut(wire)) == (events, code)
    assert receiver.closed
    receiver.feed(frame(TEXT, b"late"))
    assert receiver.next_event() is None


# The head alone is enough: nothing of the content is waited for.
REFUSED_BY_THE_HEAD = [
    pytest.param(b"\x83\x80", 1002, id="reserved opcode"),
    pytest.param(b"\xa1\x80", 1002, id="reserved bit"),
    pytest.param(b"\x81\x00", 1002, id="no mask"),
    pytest.param(b"\x89\xfe", 1002, id="long control frame"),
    pytest.param(b"\x80\x80", 1002, id="continuation of nothing"),
    pytest.param(b"\x82\xfe\x00\x7d", 1002, id="long form of a short length"),
    pytest.param(b"\x82\xff\x80\0\0\0\0\0\0\0", 1002, id="top bit set"),
    pytest.param(b"\x82\xfe\x03\xe9\0\0\0\0", 1009, id="above the limit"),
]


@pytest.mark.parametrize(("head", "code"), REFUSED_BY_THE_HEAD)
def test_refuses_by_the_head(head, code):
    receiver = Receiver(max_size=1000)
    *almost, last = bytewise(head)
    assert read(receiver, iter(almost)) == ([], None)
    assert read(receiver, iter([last])) == ([], code)


def test_events_come_one_by_one():
    receiver = Receiver()
    receiver.feed(frame(TEXT, b"a") + frame(TEXT, b"b") + frame(TEXT, b"c")[:3])
    assert receiver.next_event() == "a"
    receiver.feed(frame(TEXT, b"c")[3:])  # the application was slow, more came meanwhile
    assert receiver.next_event() == "b"
    assert receiver.next_event() == "c"
    assert receiver.next_event() is None
    assert receiver.next_event() is None


def test_counts_control_frames():
    receiver = Receiver()
    read(receiver, whole(frame(PING) + frame(TEXT) + frame(PONG) + frame(PING, b"x")))
    assert receiver.control_frames == 3


@pytest.mark.parametrize("code", [code for code in range(1000, 5001) if is_close_code(code)][::97])
def test_close_is_answered_with_its_code(code):
    events, _ = read(Receiver(), whole(frame(CLOSE, code.to_bytes(2, "big") + b"bye")))
    assert events == [Close(code, "bye")]
    assert events[0].answer() == encode_close(code)


def test_close_without_code_is_answered_without():
    assert Close(NO_STATUS, "").answer() == b"\x88\x00"


# --- limits -----------------------------------------------------------------------------------------------------------

LIMITED = [
    pytest.param(frame(BINARY, b"x" * 1000), None, id="whole at the limit"),
    pytest.param(frame(BINARY, b"x" * 1001), 1009, id="whole above the limit"),
    pytest.param(frame(FIRST_TEXT, b"x" * 400) + frame(CONTINUATION, b"x" * 600), None, id="fragments at the limit"),
    pytest.param(frame(FIRST_TEXT, b"x" * 400) + frame(CONTINUATION, b"x" * 601), 1009, id="fragments above the limit"),
    pytest.param(
        frame(FIRST_BINARY, b"x" * 1000) + frame(PING, b"x" * 125) + frame(CONTINUATION), None, id="ping at the limit"
    ),
    pytest.param(frame(FIRST_BINARY, b"x" * 1000) + frame(MORE, b"x"), 1009, id="one byte too many"),
    pytest.param(
        frame(FIRST_TEXT, b"x" * 1000) + frame(CONTINUATION) + frame(BINARY, b"x" * 1000), None, id="two messages"
    ),
    pytest.param(frame(FIRST_TEXT) + frame(MORE) * 3 + frame(CONTINUATION), None, id="five fragments"),
    pytest.param(frame(FIRST_TEXT) + frame(MORE) * 4 + frame(CONTINUATION), 1009, id="six fragments"),
    pytest.param((frame(FIRST_TEXT) + frame(MORE) * 3 + frame(CONTINUATION)) * 2, None, id="twice five fragments"),
    # The limit counts bytes, not characters.
    pytest.param(frame(TEXT, EURO * 334), 1009, id="334 characters of three bytes"),
    pytest.param(frame(TEXT, EURO * 333), None, id="333 characters of three bytes"),
]


@table("cut, wire, code", in_every_cut(LIMITED))
def test_limits(wire, code, cut):
    assert read(Receiver(max_size=1000, max_fragments=5), cut(wire))[1] == code


def test_content_above_the_limit_is_not_kept():
    receiver = Receiver(max_size=1000)
    tracemalloc.start()
    code = None
    try:
        for _ in range(100):
            receiver.feed(b"\x82\xff\0\0\0\0\x10\0\0\0\0\0\0\0" + bytes(100_000))
            try:
                receiver.next_event()
            except WebSocketError as exc:
                assert code is None
                code = exc.code
        assert code == 1009
        assert tracemalloc.get_traced_memory()[0] < 10_000
    finally:
        tracemalloc.stop()


def test_many_tiny_fragments_cost_little_memory():
    receiver = Receiver()
    wire = frame(FIRST_TEXT, EURO[:1])
    cycle = frame(MORE, EURO[1:2]) + frame(MORE, EURO[2:]) + frame(MORE, EURO[:1])
    tracemalloc.start()
    try:
        assert read(receiver, whole(wire)) == ([], None)
        for _ in range(20_000):
            assert read(receiver, whole(cycle)) == ([], None)
        assert tracemalloc.get_traced_memory()[1] < 6_000_000
        events, _ = read(receiver, whole(frame(CONTINUATION, EURO[1:])))
    finally:
        tracemalloc.stop()
    assert events == ["€" * 20_001]


def test_large_frame_in_small_pieces_is_held_once():
    size = 4 * 1024 * 1024
    wire = frame(BINARY, b"", key=b"\0\0\0\0")[:1] + b"\xff" + size.to_bytes(8, "big") + bytes(4)
    receiver = Receiver()
    piece = bytes(1000)
    tracemalloc.start()
    try:
        assert read(receiver, whole(wire)) == ([], None)
        assert tracemalloc.get_traced_memory()[1] < 10_000  # nothing is reserved on the head's word
        for _ in range(size // 1000):
            assert read(receiver, whole(piece)) == ([], None)
        assert tracemalloc.get_traced_memory()[1] < 1.3 * size
    finally:
        tracemalloc.stop()
    events, code = read(receiver, whole(bytes(size % 1000) + frame(TEXT, b"next")))
    assert (events, code) == ([bytes(size), "next"], None)


def test_a_compressed_message_that_is_not_complete_holds_an_inflater():
    receiver = Receiver(deflate=DeflateParameters())
    read(receiver, whole(frame(COMPRESSED_FIRST, HELLO)))
    assert receiver.held > 40_000
    assert read(receiver, whole(frame(CONTINUATION, b""))) == (["Hello"], None)
    assert receiver.held == 0


def test_idle_connection_holds_nothing():
    receiver = Receiver()
    wire = frame(TEXT, b"x" * 60_000) + frame(TEXT, b"y")[:-1]
    tracemalloc.start()
    try:
        receiver.feed(b"".join([wire]))
        while receiver.next_event() is not None:
            pass
        receiver.feed(b"".join([frame(TEXT, b"y")[-1:], frame(BINARY, bytes(60_000)), b"\x81"]))
        while receiver.next_event() is not None:
            pass
        assert tracemalloc.get_traced_memory()[0] < 5000
    finally:
        tracemalloc.stop()


# --- compressed messages ----------------------------------------------------------------------------------------------

COMPRESSED_TEXT, COMPRESSED_BINARY, COMPRESSED_FIRST = 0xC1, 0xC2, 0x41
HELLO = b"\xf2\x48\xcd\xc9\xc9\x07\x00"  # "Hello", RFC 7692 section 7.2.3.1
HELLO_AGAIN = b"\xf2\x00\x11\x00\x00"  # with the window of the message before, section 7.2.3.2


def packed(payload: bytes, level: int = 6) -> bytes:
    coder = zlib.compressobj(level, zlib.DEFLATED, -15)
    return (coder.compress(payload) + coder.flush(zlib.Z_SYNC_FLUSH))[:-4]


COMPRESSED = [
    pytest.param(frame(COMPRESSED_TEXT, HELLO), ["Hello"], None, id="one frame, section 7.2.3.1"),
    pytest.param(frame(COMPRESSED_BINARY, HELLO), [b"Hello"], None, id="binary"),
    pytest.param(
        frame(COMPRESSED_FIRST, HELLO[:3]) + frame(CONTINUATION, HELLO[3:]), ["Hello"], None, id="two fragments"
    ),
    pytest.param(
        frame(COMPRESSED_TEXT, HELLO) + frame(COMPRESSED_TEXT, HELLO_AGAIN), ["Hello", "Hello"], None, id="same window"
    ),
    pytest.param(
        frame(COMPRESSED_TEXT, b"\x00\x05\x00\xfa\xff\x48\x65\x6c\x6c\x6f\x00"), ["Hello"], None, id="stored block"
    ),
    pytest.param(
        frame(COMPRESSED_TEXT, b"\xf3\x48\xcd\xc9\xc9\x07\x00\x00") + frame(COMPRESSED_TEXT, HELLO),
        ["Hello", "Hello"],
        None,
        id="final block, section 7.2.3.4",
    ),
    pytest.param(
        frame(COMPRESSED_TEXT, b"\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00"),
        ["Hello"],
        None,
        id="two blocks, section 7.2.3.5",
    ),
    pytest.param(frame(COMPRESSED_TEXT, b"\x00"), [""], None, id="empty, section 7.2.3.6"),
    pytest.param(frame(TEXT, b"plain") + frame(COMPRESSED_TEXT, HELLO), ["plain", "Hello"], None, id="plain first"),
    pytest.param(
        frame(FIRST_TEXT, b"pl") + frame(CONTINUATION, b"ain") + frame(COMPRESSED_TEXT, HELLO),
        ["plain", "Hello"],
        None,
        id="plain fragments first",
    ),
    pytest.param(
        frame(COMPRESSED_TEXT, HELLO) + frame(FIRST_TEXT, b"pl") + frame(CONTINUATION, b"ain"),
        ["Hello", "plain"],
        None,
        id="plain fragments after",
    ),
    pytest.param(
        frame(COMPRESSED_FIRST, HELLO[:3]) + frame(PING, b"p") + frame(CONTINUATION, HELLO[3:]),
        [Ping(b"p"), "Hello"],
        None,
        id="ping between",
    ),
    pytest.param(frame(COMPRESSED_TEXT, packed(EURO)), ["€"], None, id="text beyond ASCII"),
    pytest.param(frame(COMPRESSED_TEXT, packed(b"\xff")), [], 1007, id="not UTF-8"),
    pytest.param(frame(COMPRESSED_TEXT, packed(EURO[:2])), [], 1007, id="UTF-8 cut"),
    pytest.param(frame(COMPRESSED_TEXT, b"\xff\xff\xff"), [], 1007, id="not DEFLATE"),
    pytest.param(frame(COMPRESSED_TEXT, HELLO_AGAIN), [], 1007, id="window of no message"),
    pytest.param(frame(COMPRESSED_FIRST, HELLO[:3]) + frame(0xC0, HELLO[3:]), [], 1002, id="RSV1 in a continuation"),
    pytest.param(frame(PING | 0x40), [], 1002, id="RSV1 in a ping"),
    pytest.param(frame(CLOSE | 0x40), [], 1002, id="RSV1 in a close"),
    pytest.param(frame(CONTINUATION | 0x40), [], 1002, id="RSV1 in a continuation of nothing"),
    pytest.param(frame(COMPRESSED_TEXT | 0x20, HELLO), [], 1002, id="RSV1 and RSV2"),
    pytest.param(frame(FIRST_TEXT, b"a") + frame(COMPRESSED_TEXT, HELLO), [], 1002, id="inside a fragmented text"),
    pytest.param(frame(COMPRESSED_BINARY, packed(bytes(1000))), [bytes(1000)], None, id="at the limit"),
    pytest.param(frame(COMPRESSED_BINARY, packed(bytes(1001))), [], 1009, id="above the limit"),
    pytest.param(
        frame(COMPRESSED_BINARY, packed(bytes(range(250)) * 4, 0)), [bytes(range(250)) * 4], None, id="stored, limit"
    ),
    pytest.param(frame(COMPRESSED_BINARY, bytes(1315)), [], 1009, id="packed form above the limit"),
    pytest.param(
        frame(COMPRESSED_FIRST, packed(bytes(900)) + b"\0\0\xff\xff") + frame(CONTINUATION, packed(bytes(101))),
        [],
        1009,
        id="fragments above the limit",
    ),
    pytest.param(
        frame(COMPRESSED_FIRST, packed(bytes(900)) + b"\0\0\xff\xff") + frame(CONTINUATION, packed(bytes(100))),
        ["\0" * 1000],
        None,
        id="fragments at the limit",
    ),
]


@table("cut, wire, events, code", in_every_cut(COMPRESSED))
def test_compressed(wire, events, code, cut):
    receiver = Receiver(max_size=1000, deflate=DeflateParameters())
    assert read(receiver, cut(wire)) == (events, code)
    assert receiver.closed == (code is not None)


def test_window_is_dropped_without_takeover():
    receiver = Receiver(deflate=DeflateParameters(client_no_context_takeover=True))
    wire = frame(COMPRESSED_TEXT, HELLO)
    assert read(receiver, whole(wire + wire)) == (["Hello", "Hello"], None)
    assert read(receiver, whole(frame(COMPRESSED_TEXT, HELLO_AGAIN))) == ([], 1007)


def test_waiting_messages_stay_packed():
    """A slow application must not make one read of 64 KiB grow to gigabytes."""
    size = 1_000_000
    wire = frame(COMPRESSED_BINARY, packed(bytes(size))) * 50
    receiver = Receiver(max_size=size, deflate=DeflateParameters())
    tracemalloc.start()
    try:
        receiver.feed(wire)
        while (event := receiver.next_event()) is UNPACKED:
            pass
        assert event == bytes(size)
        assert tracemalloc.get_traced_memory()[1] < 5 * size
    finally:
        tracemalloc.stop()


def test_a_large_message_in_small_pieces():
    # Case 9.3.1 of the Autobahn suite: 4 MiB in pieces of 64 bytes, and an empty one for the end.
    piece = frame(MORE, b"x" * 64)
    receiver = Receiver()
    wire = frame(FIRST_TEXT, b"x" * 64) + piece * 65535 + frame(CONTINUATION)
    ((text,), code) = read(receiver, whole(wire))
    assert (len(text), code) == (4 << 20, None)


@pytest.mark.parametrize(
    ("wire", "text"),
    [
        (frame(0x83), "reserved opcode 3"),
        (frame(0x03), "reserved opcode 3"),
        (frame(PING & 0x7F), "fragmented control frame"),
        (frame(PING & 0x7F | 0x20), "fragmented control frame"),
        (frame(PING | 0x20), "reserved bit set"),
        (frame(TEXT | 0x10), "reserved bit set"),
        (frame(FIRST_TEXT | 0x10), "reserved bit set"),
        (b"\x81\x00", "frame without mask"),
        (b"\x01\x00", "frame without mask"),
        (b"\x89\x00", "frame without mask"),
        (frame(TEXT | 0x40), "compression bit where it may not be"),
        (frame(PING | 0x40), "compression bit where it may not be"),
        (frame(CONTINUATION), "continuation of no message"),
        (frame(MORE), "continuation of no message"),
        (frame(FIRST_TEXT, b"a") + frame(TEXT, b"b"), "new message inside a fragmented one"),
    ],
)
def test_a_fault_is_named(wire: bytes, text: str) -> None:
    receiver = Receiver()
    receiver.feed(wire)
    with pytest.raises(WebSocketError, match=f"^{text}$"):
        while receiver.next_event() is not None:
            pass
