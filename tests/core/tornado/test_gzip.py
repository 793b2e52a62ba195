"""gzip content of requests: decoded in bounded pieces, or refused."""

from __future__ import annotations

import asyncio
import gzip
import itertools
import logging
from typing import Any

import pytest

from bridge.core.httputil import HTTPInputError
from bridge.core.tornado.gzip import GzipDecoder, GzipDelegate
from bridge.errors import LimitExceeded
from tests.support.asgi import connect
from tests.support.tornadostyle import Application, Message, answer, echo, serving

CONTENT = b"".join(b"%d hello\n" % number for number in range(5000))


def request(wire: bytes, *fields: str, coding: str = "gzip") -> bytes:
    head = [
        "POST / HTTP/1.1",
        "Host: a",
        f"Content-Encoding: {coding}",
        f"Content-Length: {len(wire)}",
        *fields,
        "",
        "",
    ]
    return "\r\n".join(head).encode() + wire


@pytest.mark.parametrize("size", [1, 7, 100, 1 << 20])
@pytest.mark.parametrize("cut", [1, 13, 1 << 20])
def test_pieces(size: int, cut: int) -> None:
    wire = gzip.compress(CONTENT[:2000]) + gzip.compress(b"") + gzip.compress(CONTENT[2000:4000])
    decoder = GzipDecoder(size, 4000)
    pieces = [piece for at in range(0, len(wire), cut) for piece in decoder.pieces(wire[at : at + cut])]
    decoder.finish()
    assert b"".join(pieces) == CONTENT[:4000]
    assert max(map(len, pieces)) <= size


def test_output_that_stays_in_the_decoder() -> None:
    """One long match decodes to more than a piece from no further input."""
    wire = gzip.compress(b"x" * 1_000_000)
    decoder = GzipDecoder(1000, None)
    assert b"".join(decoder.pieces(wire)) == b"x" * 1_000_000
    decoder.finish()


@pytest.mark.parametrize(
    "wire",
    [
        pytest.param(b"not gzip at all", id="no gzip"),
        pytest.param(gzip.compress(CONTENT)[:-1], id="cut off"),
        pytest.param(gzip.compress(CONTENT) + b"x", id="trailing byte"),
        pytest.param(gzip.compress(CONTENT) + gzip.compress(b"y")[:5], id="second member cut off"),
        pytest.param(gzip.compress(CONTENT)[:-8] + bytes(8), id="wrong checksum"),
    ],
)
def test_refuses(wire: bytes) -> None:
    decoder = GzipDecoder(65536, None)
    with pytest.raises(HTTPInputError, match="invalid gzip data"):
        for _ in decoder.pieces(wire):
            pass
        decoder.finish()


def test_limit() -> None:
    decoder = GzipDecoder(100, 1000)
    taken = 0
    with pytest.raises(LimitExceeded, match="limit 1000") as caught:
        for piece in decoder.pieces(gzip.compress(bytes(10_000_000))):
            taken += len(piece)
    assert caught.value.status == 413
    assert taken == 1000


async def test_requests() -> None:
    async with serving(echo, decompress_request=True) as port, connect(port) as client:
        for coding in ("gzip", "GZIP"):
            client.send(request(gzip.compress(CONTENT), coding=coding))
            assert (await client.response())[2] == CONTENT
        client.send(request(b"as it is", coding="br"))
        assert (await client.response())[2] == b"as it is"


async def test_without_the_option_content_stays_as_it_is() -> None:
    wire = gzip.compress(CONTENT)
    async with serving(echo) as port, connect(port) as client:
        client.send(request(wire))
        assert (await client.response())[2] == wire


async def test_delegates_see_what_was_consumed_and_pieces_of_chunk_size() -> None:
    app = Application()
    async with serving(app, decompress_request=True, chunk_size=1000) as port, connect(port) as client:
        client.send(request(gzip.compress(CONTENT)))
        assert (await client.response())[2] == CONTENT
    message = app.messages[0]
    assert "Content-Encoding" not in message.headers
    assert message.headers["X-Consumed-Content-Encoding"] == "gzip"
    assert max(message.chunks) <= 1000
    assert message.calls[-1] == "finish"


async def test_the_next_piece_waits_for_the_delegate() -> None:
    running = 0

    def slowly(message: Message) -> Any:
        async def wait() -> None:
            nonlocal running
            running += 1
            assert running == 1
            await asyncio.sleep(0)
            running -= 1

        return wait()

    app = Application(on_data=slowly)
    async with serving(app, decompress_request=True, chunk_size=1000) as port, connect(port) as client:
        client.send(request(gzip.compress(CONTENT)))
        assert (await client.response())[2] == CONTENT
    assert len(app.messages[0].chunks) > 10


@pytest.mark.parametrize(
    ("wire", "status"),
    [(b"not gzip", 400), (gzip.compress(CONTENT)[:-4], 400), (gzip.compress(bytes(100_000)), 413)],
)
@pytest.mark.parametrize("slow", [False, True])
async def test_refused_content(wire: bytes, status: int, slow: bool, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    app = Application(**({"on_data": lambda message: asyncio.sleep(0)} if slow else {}))
    async with serving(app, decompress_request=True, max_body_size=60_000) as port, connect(port) as client:
        client.send(request(wire))
        assert (await client.response())[0] == status
    assert app.messages[0].calls[-1] == "close"
    assert [record.levelno for record in caplog.records] == [logging.INFO]


async def test_the_limit_of_one_request_holds_for_what_is_decoded() -> None:
    def allow(message: Message) -> None:
        message.connection.set_max_body_size(1 << 20)

    app = Application(on_headers=allow, on_finish=lambda message: answer(message.connection, b"ok"))
    async with serving(app, decompress_request=True, max_body_size=100) as port, connect(port) as client:
        client.send(request(gzip.compress(bytes(100_000))))
        assert (await client.response())[2] == b"ok"


@pytest.mark.parametrize(
    "wire",
    [
        pytest.param(gzip.compress(bytes(8 << 20)), id="content that inflates"),
        pytest.param(gzip.compress(b"") * 3000, id="members without content"),
        pytest.param(gzip.compress(b"x") * 3000, id="members of a byte"),
    ],
)
async def test_little_gzip_for_much_content_lets_others_run(wire: bytes) -> None:
    size = 0
    turns: list[int] = []
    running = True

    class Counter:
        def data_received(self, chunk: bytes) -> None:
            nonlocal size
            size += len(chunk)

    async def others() -> None:
        while running:
            turns.append(size)
            await asyncio.sleep(0)

    expected = len(gzip.decompress(wire))
    beside = asyncio.create_task(others())
    waiting = GzipDelegate(Counter(), GzipDecoder(65536, None)).data_received(wire)
    assert waiting is not None
    await waiting
    running = False
    await beside
    assert size == expected
    assert len(turns) >= 7
    assert max(after - before for before, after in itertools.pairwise([0, *turns, size])) <= 16 * 65536
