"""How long another client waits while hostile clients flood the server: ``python -m benchmarks.floods``.

For each flood and each loop: a server in a process of its own, clients that send as fast as the server takes it, and
one good client that asks for a page again and again. Its longest wait is printed, in milliseconds, beside the median;
and the longest in processor time of the server, which other work on the machine does not lengthen (Linux only).
Names of floods as arguments choose among them; ``--seconds N`` sets how long each takes.
"""

from __future__ import annotations

import argparse
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
from pathlib import Path

from benchmarks.held import KINDS, UPGRADE, held

__all__ = ["FLOODS", "longest_wait", "main"]

_APP = """
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        return
    if scope["type"] == "websocket":
        await send({"type": "websocket.accept"})
        while (await receive())["type"] != "websocket.disconnect":
            pass
        return
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"ok"})
"""
_DEFLATE = UPGRADE + b"Sec-WebSocket-Extensions: permessage-deflate\r\n"
_CHUNKED = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


def _frame(first: int, payload: bytes = b"") -> bytes:
    size = len(payload)
    head = bytes([first, 0x80 | size]) if size < 126 else bytes([first, 0xFE]) + size.to_bytes(2, "big")
    return head + bytes(4) + payload


def _bomb(size: int) -> bytes:
    coder = zlib.compressobj(9, zlib.DEFLATED, -15)
    return (coder.compress(bytes(size)) + coder.flush(zlib.Z_SYNC_FLUSH))[:-4]


FLOODS = {
    # name: (clients, what each sends first, what each sends then, how often)
    "pings": (9, UPGRADE + b"\r\n", _frame(0x89) * 10_000, 100),
    "pongs": (9, UPGRADE + b"\r\n", _frame(0x8A) * 10_000, 100),
    "fragments": (9, UPGRADE + b"\r\n" + _frame(0x02), _frame(0x00) * 10_000, 12),
    "messages": (9, UPGRADE + b"\r\n", _frame(0x81) * 10_000, 100),
    "bombs": (20, _DEFLATE + b"\r\n", _frame(0xC2, _bomb(15 << 20)), 20),
    "chunks": (200, _CHUNKED, b"1\r\na\r\n" * 20_000, 1),
    "chunks of 1000": (1000, _CHUNKED, b"1\r\na\r\n" * 20_000, 1),
    "pipelined": (20, b"", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 4000, 5),
}


def _flood(port: int, clients: int, first: bytes, then: bytes, times: int, seconds: float) -> None:
    """Send on all connections what they take, and read what comes, until the time is over."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    end = time.monotonic() + seconds
    selector = selectors.DefaultSelector()
    pieces = {}
    for _ in range(clients):
        sock = socket.create_connection(("127.0.0.1", port))
        sock.setblocking(False)
        pieces[sock] = [memoryview(first), *[memoryview(then)] * times]
        selector.register(sock, selectors.EVENT_READ | selectors.EVENT_WRITE)
    while time.monotonic() < end and pieces:
        for key, events in selector.select(0.1):
            sock = key.fileobj
            try:
                if events & selectors.EVENT_READ and not sock.recv(262144):
                    raise ConnectionError
                if events & selectors.EVENT_WRITE:
                    left = pieces[sock]
                    if not left[0]:
                        left.pop(0)
                    if left:
                        left[0] = left[0][sock.send(left[0]) :]
                    else:
                        selector.modify(sock, selectors.EVENT_READ)
            except BlockingIOError:
                pass
            except OSError:
                selector.unregister(sock)
                sock.close()
                del pieces[sock]


def _busy(pid: int) -> float:
    """Return the processor time of a process's first thread, in seconds."""
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9
    except OSError:
        return 0.0


def longest_wait(flood: str, loop: str, seconds: float) -> tuple[float, float, float, int]:
    """Return the good client's longest and median wait, the longest in processor time, and how often it asked."""
    clients, first, then, times = FLOODS[flood]
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "flooded.py").write_text(_APP)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = [sys.executable, "-m", "bridge", "run", "flooded:app", "--app-dir", folder, "--port", str(port)]
        server = subprocess.Popen(
            [*command, "--loop", loop, "--no-access-log"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        waits = []
        busy = []
        try:
            for _ in range(200):
                try:
                    good = socket.create_connection(("127.0.0.1", port))
                    break
                except OSError:
                    time.sleep(0.05)  # until the server listens
            with socket.create_connection(("127.0.0.1", port)) as warm:  # what the first WebSocket imports
                warm.sendall(UPGRADE + b"\r\n" + _frame(0xC1))
                while warm.recv(65536):
                    pass
            flooder = multiprocessing.Process(target=_flood, args=(port, clients, first, then, times, seconds))
            end = time.monotonic() + seconds
            flooder.start()
            while time.monotonic() < end:
                begun, worked = time.monotonic(), _busy(server.pid)
                good.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                good.recv(65536)
                waits.append(time.monotonic() - begun)
                busy.append(_busy(server.pid) - worked)
                time.sleep(0.001)  # a client that asks without a pause would be a flood of its own
            flooder.join()
        finally:
            server.kill()
            server.wait()
    return max(waits), sorted(waits)[len(waits) // 2], max(busy), len(waits)


def _print_held(kinds: list[str], loops: list[str], seconds: float) -> None:
    for kind in kinds or KINDS:
        for loop in loops:
            most, left, files, files_left = held(kind, loop, seconds)
            line = (
                f"memory {most:7.1f} MiB, at the end {left:7.1f}  files {files:6.1f} MiB, at the end {files_left:6.1f}"
            )
            print(f"{kind:20} {loop:8} {line}", flush=True)


def main() -> None:
    """Measure, and print a line for each flood and loop."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.floods", description=__doc__)
    parser.add_argument("flood", nargs="*", help=f"one of: {', '.join(FLOODS)}")
    parser.add_argument("--seconds", type=float, default=4.0, help="how long each flood takes")
    parser.add_argument("--loop", action="append", help="asyncio or uvloop; both by default")
    parser.add_argument("--held", action="store_true", help="measure what a thousand hostile clients make it hold")
    arguments = parser.parse_args()
    if arguments.held:
        _print_held(arguments.flood, arguments.loop or ["asyncio", "uvloop"], max(arguments.seconds, 8.0))
        return
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors")
    for flood in arguments.flood or FLOODS:
        for loop in arguments.loop or ("asyncio", "uvloop"):
            longest, median, busy, count = longest_wait(flood, loop, arguments.seconds)
            times = f"longest {longest * 1e3:7.1f} ms  median {median * 1e3:5.1f} ms  processor {busy * 1e3:6.1f} ms"
            print(f"{flood:15} {loop:8} {times}  {count} requests", flush=True)


if __name__ == "__main__":
    main()
