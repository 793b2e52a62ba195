"""The HTTP/2 client of the benchmarks: blocks that a foreign decoder reads, none twice; streams that never rest."""

import itertools
import struct

import pytest

from benchmarks import h2client, http2, measure, mixed
from benchmarks.client import Totals
from benchmarks.process import BenchmarkError

hpack = pytest.importorskip("hpack", reason="hpack is not installed")


def frames_of(data: bytes):
    """Return kind, flags, stream and payload of each frame."""
    found = []
    while data:
        size = int.from_bytes(data[:3], "big")
        found.append((data[3], data[4], int.from_bytes(data[5:9], "big"), data[9 : 9 + size]))
        data = data[9 + size :]
    return found


def test_the_opening_gives_windows():
    data = http2.opening(window=5)
    assert data.startswith(http2.PREFACE)
    (kind, _, _, settings), (other, _, _, increment) = frames_of(data.removeprefix(http2.PREFACE))
    assert (kind, other) == (http2.SETTINGS, http2.WINDOW_UPDATE)
    assert struct.unpack(">HIHI", settings) == (2, 0, 4, 5)
    assert int.from_bytes(increment, "big") + 65_535 == http2.MAX_WINDOW


@pytest.mark.parametrize(("value", "octets"), [(10, b"\x0a"), (31, b"\x1f\x00"), (1337, b"\x1f\x9a\x0a")])
def test_integers_of_the_specification(value, octets):
    assert http2.integer(value, 5, 0) == octets


def test_mixed_requests_are_decoded_and_differ():
    frames = http2.Frames(part=2)
    decoder = hpack.Decoder()
    for _, flags, _, block in frames_of(b"".join(frames.first)):
        assert flags == http2.END_HEADERS | http2.END_STREAM
        names = [name for name, _ in decoder.decode(block)]
        assert len(set(names)) == len(names)
    table = list(decoder.header_table.dynamic_entries)
    assert len(table) > 20
    blocks, heads, sizes = set(), set(), []
    for stream in range(101, 6101, 2):
        (kind, flags, number, block), *content = frames_of(frames.next(stream))
        assert (kind, number) == (http2.HEADERS, stream)
        lines = decoder.decode(block)
        fields = dict(lines)
        assert {":method", ":scheme", ":authority", ":path"} == {name for name, _ in lines if name[0] == ":"}
        assert not {"connection", "host"} & fields.keys()
        assert [name[0] == ":" for name, _ in lines[:4]] == [True] * 4
        if fields[":method"] == "POST":
            [(_, end, _, data)] = content
            assert (flags, end) == (http2.END_HEADERS, http2.END_STREAM)
            assert int(fields["content-length"]) == len(data)
        else:
            assert not content
            assert flags == http2.END_HEADERS | http2.END_STREAM
        blocks.add(block)
        heads.add(tuple(line for line in lines if line[0] != ":path"))
        sizes.append(len(block))
    assert len(blocks) == len(heads) == 3000
    assert list(decoder.header_table.dynamic_entries) == table  # so that a block means the same in any order
    assert sum(sizes) / len(sizes) < 450


def test_templates_have_the_lines_of_the_requests():
    template = next(one for one in mixed.templates() if b"ookie" in one and b"; " in one)
    for number in (0, 1):
        lines, _ = http2.request_lines(template, number)
        crumbs = [value for name, value in lines if name == "cookie"]
        assert ("; ".join(crumbs)).encode() in template
        assert (len(crumbs) > 1) == bool(number)


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        (b"\x88", True),
        (b"\x20\x3f\xe1\x1f\x88\x5f", True),
        (b"\x08\x03200", True),
        (b"\x48\x82\x10\x01", True),
        (b"\x8d", False),
        (b"\x08\x03404", False),
        (b"", False),
    ],
)
def test_a_status_is_read(block, expected):
    assert http2.says_200(block) is expected


class Sink:
    def __init__(self) -> None:
        self.written: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.written.append(data)


def ok(stream: int) -> bytes:
    head = http2.frame(http2.HEADERS, http2.END_HEADERS, stream, b"\x88")
    return head + http2.frame(http2.DATA, http2.END_STREAM, stream, b"Hello")


@pytest.mark.parametrize("size", [3, 10_000])
def test_the_load_keeps_its_streams_busy(size):
    totals, sink = Totals(), Sink()
    load = h2client.HTTP2Load(totals, http2.Frames(0), 5)
    load.connection_made(sink)
    first = len(load.frames.first)
    assert len(sink.written) == 1
    answers = http2.frame(http2.SETTINGS, 0, 0) + b"".join(ok(1 + 2 * number) for number in range(first))
    for at in range(0, len(answers), size):
        load.data_received(answers[at : at + size])
    sent = [frame for data in sink.written[1:] for frame in frames_of(data)]
    assert sent[0][:2] == (http2.SETTINGS, http2.ACK)
    streams = [stream for kind, _, stream, _ in sent if kind == http2.HEADERS]
    assert streams == [2 * first + 1 + 2 * number for number in range(5)]
    sink.written.clear()
    load.data_received(ok(streams[1]) + ok(streams[3]))
    again = [stream for kind, _, stream, _ in frames_of(b"".join(sink.written)) if kind == http2.HEADERS]
    assert again == [streams[-1] + 2, streams[-1] + 4]
    assert len(totals.latencies) == first + 2
    assert not any(totals.errors.values())


@pytest.mark.parametrize(
    ("frame", "error"),
    [
        (http2.frame(http2.RST_STREAM, 0, 1, b"\0\0\0\1"), "read"),
        (http2.frame(http2.GOAWAY, 0, 0, b"\0" * 8), "read"),
        (http2.frame(http2.HEADERS, http2.END_HEADERS, 1, b"\x8d"), "status"),
    ],
)
def test_the_load_counts_errors(frame, error):
    totals = Totals()
    load = h2client.HTTP2Load(totals, http2.Frames(0), 5)
    load.connection_made(Sink())
    load.data_received(frame)
    assert totals.errors[error] == 1


def test_what_h2load_prints_is_read(tmp_path):
    log = tmp_path / "log"
    log.write_text("".join(f"17\t200\t{latency}\n" for latency in range(1, 101)))
    output = (
        "finished in 3.00s, 33.33 req/s, 1.00KB/s\n"
        "requests: 100 total, 132 started, 100 done, 99 succeeded, 3 failed, 1 errored, 0 timeout\n"
    )
    counted = measure.read_h2load(output, log)
    assert (counted["requests"], counted["seconds"]) == (97, 3.0)
    assert counted["errors"] == {"status": 2, "read": 1, "timeout": 0}
    assert counted["p50"] == pytest.approx(51e-6)
    assert not log.exists()
    with pytest.raises(BenchmarkError, match="h2load: no server"):
        measure.read_h2load("no server", log)


def test_a_request_with_content_ends_its_stream_once():
    frames = frames_of(http2.plain_request(3, "POST", b"u" * 40_000))
    assert [flags & http2.END_STREAM for _, flags, _, _ in frames] == [0, 0, 0, 1]
    assert sum(len(payload) for kind, _, _, payload in frames if kind == http2.DATA) == 40_000
    [(_, flags, _, block)] = frames_of(http2.plain_request(1))
    assert flags & http2.END_STREAM
    assert dict(hpack.Decoder().decode(block))[":path"] == "/"


def test_numbers_are_the_parts_own():
    one, two = http2.Frames(1), http2.Frames(2)
    pairs = [(one.next(stream), two.next(stream)) for stream in range(101, 201, 2)]
    assert len(set(itertools.chain.from_iterable(pairs))) == 100
