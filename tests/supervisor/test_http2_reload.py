"""Reloads under clients of HTTP/2 that honour GOAWAY: no request is lost (RFC 9113 section 6.8)."""

from __future__ import annotations

import asyncio
import struct

import pytest

from tests.support.http2 import DATA, GOAWAY, HEADERS, PING, PREFACE, RST_STREAM, SETTINGS, WINDOW_UPDATE, frame, head
from tests.support.running import Running

pytestmark = [pytest.mark.slow, pytest.mark.long]

BEGIN = PREFACE + frame(SETTINGS, 0, 0) + frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 1 << 30))
AT_ONCE = 16
REFUSED = 7


class Clients:
    """Send requests over connections of their own, on new ones after a GOAWAY.

    Attributes:
        answered: Complete responses.
        lost: Requests that got none, although the server had not said that it would not answer.
        left: Requests that are still to be sent.
    """

    def __init__(self, address: tuple[str, int], requests: int) -> None:
        self._address = address
        self.answered = self.lost = self.connections = 0
        self.left = requests

    async def run(self) -> None:
        while self.left > 0:
            reader, writer = await asyncio.open_connection(*self._address)
            self.connections += 1
            try:
                await self._use(reader, writer)
            finally:
                writer.close()

    async def _use(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(BEGIN)
        waiting: set[int] = set()
        following = 1
        ending = False
        while True:
            while not ending and self.left > 0 and len(waiting) < AT_ONCE:
                writer.write(frame(HEADERS, 5, following, head()))
                waiting.add(following)
                following += 2
                self.left -= 1
            if not waiting:
                return
            try:
                first = await reader.readexactly(9)
                payload = await reader.readexactly(int.from_bytes(first[:3], "big"))
            except (asyncio.IncompleteReadError, ConnectionError):
                self.lost += len(waiting)
                return
            kind, flags, stream = first[3], first[4], int.from_bytes(first[5:], "big")
            if kind == GOAWAY:
                ending = True
                last = int.from_bytes(payload[:4], "big")
                refused = {number for number in waiting if number > last}
                waiting -= refused
                self.left += len(refused)
            elif kind == PING and not flags:
                writer.write(frame(PING, 1, 0, payload))
            elif kind == SETTINGS and not flags:
                writer.write(frame(SETTINGS, 1, 0))
            elif kind == RST_STREAM and stream in waiting:
                waiting.discard(stream)
                if int.from_bytes(payload, "big") == REFUSED:
                    self.left += 1
                else:
                    self.lost += 1
            elif kind in {HEADERS, DATA} and flags & 1:
                waiting.discard(stream)
                self.answered += 1


@pytest.mark.parametrize("argv", [("--workers", "2"), ("--workers", "2", "--preload")], ids=["workers", "preload"])
def test_reloads_lose_no_request(argv: tuple[str, ...]) -> None:
    requests, reloads = 20_000, 5
    with Running("plain:asgi", "--no-access-log", *argv) as server:
        address = server.address()

        async def main() -> list[Clients]:
            clients = [Clients(address, requests // 4) for _ in range(4)]
            tasks = [asyncio.ensure_future(client.run()) for client in clients]
            for number in range(reloads):
                await asyncio.to_thread(server.messages.wait, r"is ready", 2 * number + 2)
                server.signal("SIGHUP")
            async with asyncio.timeout(60):
                await asyncio.gather(*tasks)
            return clients

        clients = asyncio.run(main())
        assert sum(client.lost for client in clients) == 0
        assert sum(client.answered for client in clients) == requests
        assert sum(client.connections for client in clients) > len(clients)
        assert server.end() == 0
