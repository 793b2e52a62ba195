"""What hostile clients make a server hold: ``python -m benchmarks.floods --held``.

For each kind and each loop: a server in a process of its own, and a thousand clients that begin something and never
end it. Printed are the memory and the temporary files of the server above what it had before they came: the most, and
what is left at the end. Linux only.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import resource
import selectors
import socket
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

__all__ = ["KINDS", "UPGRADE", "held"]

_APP = """
PIECE = 65536

async def asgi(scope, receive, send):
    if scope["type"] == "lifespan":
        return
    if scope["type"] == "websocket":
        await send({"type": "websocket.accept"})
        if scope["path"] == "/big":
            for i in range(256):
                await send({"type": "websocket.send", "bytes": bytes(PIECE)})
        while (await receive())["type"] != "websocket.disconnect":
            pass
        return
    if scope["path"] == "/unread":
        import asyncio
        await asyncio.sleep(60)
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": []})
    if scope["path"] == "/big":
        for i in range(256):
            await send({"type": "http.response.body", "body": bytes(PIECE), "more_body": True})
    if scope["path"] == "/bigger":
        for i in range(16):
            await send({"type": "http.response.body", "body": bytes(16 * PIECE), "more_body": True})
    await send({"type": "http.response.body", "body": b"ok"})


def wsgi(environ, start_response):
    while environ["wsgi.input"].read(PIECE):
        pass
    start_response("200 OK", [])
    if environ["PATH_INFO"] == "/big":
        return (bytes(PIECE) for i in range(256))
    return [b"ok"]


async def function(request):
    from bridge.core.httputil import ResponseStartLine, HTTPHeaders

    connection = request.connection
    fields = HTTPHeaders({"Content-Length": "16777216"})
    await connection.write_headers(ResponseStartLine("HTTP/1.1", 200, "OK"), fields)
    for i in range(256):
        await connection.write(bytes(PIECE))
    connection.finish()
"""
UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)
_DEFLATE = UPGRADE + b"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
_MIB = 1 << 20


def _frame(first: int, payload: bytes = b"") -> bytes:
    size = len(payload)
    if size < 126:
        head = bytes([first, 0x80 | size])
    elif size < 65536:
        head = bytes([first, 0xFE]) + size.to_bytes(2, "big")
    else:
        head = bytes([first, 0xFF]) + size.to_bytes(8, "big")
    return head + bytes(4) + payload


def _bomb(size: int) -> bytes:
    coder = zlib.compressobj(9, zlib.DEFLATED, -15)
    return (coder.compress(bytes(size)) + coder.flush(zlib.Z_SYNC_FLUSH))[:-4]


def _http2(path: bytes, streams: int) -> bytes:
    def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
        return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload

    # :method GET, :scheme http, :path without an index, :authority a (RFC 7541).
    fields = b"\x82\x86\x04" + bytes([len(path)]) + path + b"\x41\x01a"
    heads = b"".join(frame(1, 5, 2 * number + 1, fields) for number in range(streams))
    return b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b"") + heads


_FIELDS = b"GET / HTTP/1.1\r\nHost: a\r\n" + b"".join(b"x%d: %b\r\n" % (i, b"y" * 7900) for i in range(7))
_POST = b"POST %b HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n"
KINDS = {
    # name: (interface, what each client sends at once, how often, what it sends each second, whether it reads)
    "slow heads": ("asgi", _FIELDS, b"", 0, b"z", True),
    "slow content": ("asgi", _POST % b"/", b"x" * 65536, 1, b"x", True),
    "unread content": ("asgi", _POST % b"/unread", b"x" * 65536, 200, b"x", True),
    "slow small uploads": ("wsgi", _POST % b"/", b"x" * 65000, 1, b"x", True),
    "spooled uploads": ("wsgi", _POST % b"/", b"x" * 65536, 160, b"x", True),
    "fragments": ("asgi", UPGRADE + b"\r\n", _frame(0x02, bytes(65536)) + _frame(0, bytes(65536)) * 200, 1, b"", True),
    "half a frame": ("asgi", UPGRADE + b"\r\n", _frame(0x82, bytes(15 * _MIB))[:-1], 1, b"", True),
    "unfinished bombs": ("asgi", _DEFLATE, _frame(0x42, _bomb(15 * _MIB)), 1, b"", True),
    "readers, ASGI": ("asgi", b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n", b"", 0, b"", False),
    "readers of more": ("asgi", b"GET /bigger HTTP/1.1\r\nHost: a\r\n\r\n", b"", 0, b"", False),
    "readers, WebSocket": ("asgi", UPGRADE.replace(b"/", b"/big", 1) + b"\r\n", b"", 0, b"", False),
    "readers, Tornado": ("function", b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n", b"", 0, b"", False),
    "readers, WSGI": ("wsgi", b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n", b"", 0, b"", False),
    "pipelining readers": ("asgi", b"", b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n" * 1000, 20, b"", False),
    "HTTP/2 readers": ("asgi", _http2(b"/big", 100), b"", 0, b"", False),
    "HTTP/2 readers, WSGI": ("wsgi", _http2(b"/big", 100), b"", 0, b"", False),
}


def _pieces(first: bytes, then: bytes, times: int) -> Iterator[memoryview]:
    if first:
        yield memoryview(first)
    for _ in range(times):
        yield memoryview(then)


def _attack(port: int, kind: str, clients: int, seconds: float) -> None:
    """Be the clients; who is closed by the server comes again."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    _, first, then, times, trickle, reads = KINDS[kind]
    end = time.monotonic() + seconds
    selector = selectors.DefaultSelector()
    sends: dict[socket.socket, list[object]] = {}
    trickles_at = time.monotonic() + 1

    def connect() -> None:
        sock = socket.create_connection(("127.0.0.1", port))
        sock.setblocking(False)
        pieces = _pieces(first, then, times)
        sends[sock] = [next(pieces, b""), pieces]
        selector.register(sock, selectors.EVENT_WRITE | (selectors.EVENT_READ if reads else 0))

    for _ in range(clients):
        connect()
    while time.monotonic() < end:
        if trickle and time.monotonic() > trickles_at:
            trickles_at += 1
            for sock, state in sends.items():
                if not state[0]:
                    with contextlib.suppress(OSError):
                        sock.send(trickle)
        for key, events in selector.select(0.1):
            sock = key.fileobj
            state = sends[sock]
            try:
                if events & selectors.EVENT_READ and not sock.recv(65536):
                    raise ConnectionError
                if events & selectors.EVENT_WRITE:
                    if not state[0]:
                        state[0] = next(state[1], b"")
                    if state[0]:
                        state[0] = state[0][sock.send(state[0]) :]
                    elif reads:
                        selector.modify(sock, selectors.EVENT_READ)
                    else:
                        selector.unregister(sock)
            except BlockingIOError:
                pass
            except OSError:
                selector.unregister(sock)
                sock.close()
                del sends[sock]
                connect()


def _memory(pid: int) -> float:
    """Return the memory of a process in MiB."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize() / _MIB


def _files(pid: int) -> float:
    """Return the room that the temporary files of a process take on the disk, in MiB."""
    room = 0
    for name in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):
            target = os.readlink(f"/proc/{pid}/fd/{name}")
            if target.endswith("(deleted)") and "/memfd:" not in target:
                room += os.stat(f"/proc/{pid}/fd/{name}").st_blocks * 512
    return room / _MIB


def held(kind: str, loop: str, seconds: float, clients: int = 1000, options: list[str] | None = None) -> list[float]:
    """Return the most memory, the memory at the end, the most room in files, and that at the end: MiB above idle."""
    interface = KINDS[kind][0]
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "held_app.py").write_text(_APP)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = [sys.executable, "-m", "bridge", "run", f"held_app:{interface}", "--app-dir", folder]
        command += ["--port", str(port), "--loop", loop, "--no-access-log", *(options or ())]
        server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            for _ in range(200):
                try:
                    with socket.create_connection(("127.0.0.1", port)) as sock:
                        sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                        sock.recv(65536)
                    break
                except OSError:
                    time.sleep(0.05)  # until the server listens
            idle, files = _memory(server.pid), _files(server.pid)
            attacker = multiprocessing.Process(target=_attack, args=(port, kind, clients, seconds))
            attacker.start()
            memory, room = [idle], [files]
            while attacker.is_alive():
                time.sleep(0.1)
                memory.append(_memory(server.pid))
                room.append(_files(server.pid))
            attacker.join()
        finally:
            server.kill()
            server.wait()
    return [max(memory) - idle, memory[-3] - idle, max(room) - files, room[-3] - files]
