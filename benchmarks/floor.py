"""The floor: a protocol on uvloop that answers fixed bytes and checks nothing.

No server written in Python can be cheaper per request, so bridge's distance from it is what its work costs.
"""

import asyncio
import ssl

from benchmarks.answers import CHUNK, CHUNKS, DELAY, PLAINTEXT, TEN_KILOBYTES, UPLOAD_SIZE


def answer(content: bytes) -> bytes:
    """Return a whole response with *content*, of the fields that the servers under measure send."""
    return (
        b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: %d\r\n"
        b"date: Thu, 01 Jan 2026 00:00:00 GMT\r\n\r\n%b" % (len(content), content)
    )


class FixedAnswer(asyncio.Protocol):
    """Answer every request head; a request head is taken to be whole, as the load generators send it."""

    def __init__(self, content: bytes) -> None:
        self.response = answer(content)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        if data.endswith(b"\r\n\r\n"):
            self.transport.write(self.response)


class DelayedAnswer(FixedAnswer):
    """Answer after 10 ms: one timer per request."""

    def data_received(self, data: bytes) -> None:
        if data.endswith(b"\r\n\r\n"):
            asyncio.get_running_loop().call_later(DELAY, self.transport.write, self.response)


class MixedAnswer(FixedAnswer):
    """Answer requests with little content too: head and content come in one piece, as the load generators send them."""

    def data_received(self, data: bytes) -> None:
        if b"\r\n\r\n" in data:
            self.transport.write(self.response)


class UploadAnswer(FixedAnswer):
    """Answer the content of a request of known size."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.pieces: list[bytes] = []
        self.missing = 0

    def data_received(self, data: bytes) -> None:
        if not self.missing:
            _, separator, data = data.partition(b"\r\n\r\n")
            if not separator:
                return
            self.missing = UPLOAD_SIZE
        self.pieces.append(data)
        self.missing -= len(data)
        if not self.missing:
            self.transport.write(answer(b"".join(self.pieces)))
            self.pieces.clear()


KINDS = {
    "plaintext": lambda: FixedAnswer(PLAINTEXT),
    "mixed": lambda: MixedAnswer(PLAINTEXT),
    "10k": lambda: FixedAnswer(TEN_KILOBYTES),
    "stream": lambda: FixedAnswer(CHUNK * CHUNKS),
    "wait": lambda: DelayedAnswer(PLAINTEXT),
    "upload": lambda: UploadAnswer(PLAINTEXT),
}


async def serve(kind: str, port: int, context: ssl.SSLContext | None) -> None:
    """Serve until cancelled."""
    server = await asyncio.get_running_loop().create_server(KINDS[kind], "127.0.0.1", port, ssl=context)
    async with server:
        await server.serve_forever()
