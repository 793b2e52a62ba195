"""A quick client beside hundreds of slow ones: ``python -m benchmarks.wsgi_slow_clients``.

Eight threads. Some clients ask for 1 MiB and do not read, others send 1 MiB at 1 KiB a second. Measured: how long
another client's requests take, each on a connection of its own, and what the server's memory grows by for each slow
client. Markdown goes to standard output.
"""

import argparse
import contextlib
import socket
import sys
import threading
import time
from collections.abc import Iterator

from benchmarks.client import percentile
from benchmarks.machine import version
from benchmarks.process import Files, ServerProcess
from benchmarks.servers import HOST, SERVERS, Target

TARGET = Target("wsgi", "benchmarks.apps.wsgi_slow:app", default_threads=True)
COMMANDS = {
    "bridge": "bridge+--threads+8",
    "gunicorn gthread": "gunicorn+--threads+8",
    "waitress": "waitress+--threads=8+--connection-limit=2000",
    "granian": "granian+--blocking-threads+8",
}
PATIENCE = 5.0  # seconds that the quick client waits for one answer
SETTLE = 2.0  # seconds from the last slow client's start to the first measured request


def quick(port: int, seconds: float) -> tuple[list[float], int]:
    """Ask again and again for *seconds*; return how long each took and how many failed."""
    times, failed = [], 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        start = time.perf_counter()
        try:
            with socket.create_connection((HOST, port), timeout=PATIENCE) as sock:
                sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
                answer = b""
                while data := sock.recv(65536):
                    answer += data
        except OSError:
            answer = b""
        if answer.startswith(b"HTTP/1.1 200 ") and answer.endswith(b"hello"):
            times.append(time.perf_counter() - start)
        else:
            failed += 1
        time.sleep(0.002)
    return sorted(times), failed


class Slow:
    """The slow clients."""

    def __init__(self, port: int, readers: int, senders: int) -> None:
        self.sockets: list[socket.socket] = []
        self.senders: list[socket.socket] = []
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self.trickle)
        for number in range(readers + senders):
            sock = socket.create_connection((HOST, port), timeout=PATIENCE)
            self.sockets.append(sock)
            if number < readers:
                sock.sendall(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n")
            else:
                sock.sendall(b"POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 1048576\r\n\r\n")
                self.senders.append(sock)

    def trickle(self) -> None:
        while not self.stopped.wait(1.0):
            for sock in self.senders:
                with contextlib.suppress(OSError):
                    sock.send(bytes(1024))

    def close(self) -> None:
        self.stopped.set()
        self.thread.join()
        for sock in self.sockets:
            sock.close()


@contextlib.contextmanager
def slow_clients(port: int, readers: int, senders: int) -> Iterator[None]:
    clients = Slow(port, readers, senders)
    clients.thread.start()
    try:
        yield
    finally:
        clients.close()


def milliseconds(times: list[float], part: float) -> str:
    return f"{percentile(times, part) * 1000:.1f}" if times else "none"


def measure(name: str, readers: int, senders: int, seconds: float) -> list[str]:
    with ServerProcess(COMMANDS[name], TARGET, None, Files()) as server:
        server.check_answer(b"hello")
        quick(server.port, 1.0)
        idle, _ = quick(server.port, seconds / 2)
        before = server.memory()
        with slow_clients(server.port, readers, senders):
            time.sleep(SETTLE)
            times, failed = quick(server.port, seconds)
            growth = (server.memory() - before) / (readers + senders) / 1024
        ratio = percentile(times, 0.99) / percentile(idle, 0.99) if times else None
    return [
        name,
        milliseconds(idle, 0.5),
        milliseconds(idle, 0.99),
        milliseconds(times, 0.5),
        milliseconds(times, 0.99),
        f"{ratio:.1f}" if ratio else "none",
        f"{len(times)} / {failed}",
        f"{growth:.0f}",
    ]


def main() -> int:
    """Measure each server, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--servers", default=",".join(COMMANDS))
    parser.add_argument("--readers", type=int, default=400, help="clients that do not read (400)")
    parser.add_argument("--senders", type=int, default=100, help="clients that send 1 KiB a second (100)")
    parser.add_argument("--seconds", type=float, default=8.0, help="how long to measure (8)")
    options = parser.parse_args()
    names = options.servers.split(",")
    print(
        "| Server | idle p50 ms | idle p99 ms | p50 ms | p99 ms | p99 to idle | answered / failed | KiB a slow client |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for name in names:
        print("| " + " | ".join(measure(name, options.readers, options.senders, options.seconds)) + " |", flush=True)
    found = {d: version(d) for name in names for d in SERVERS[COMMANDS[name].split("+")[0]].distributions}
    print("\n" + ", ".join(f"{name} {number}" for name, number in sorted(found.items()) if number))
    return 0


if __name__ == "__main__":
    sys.exit(main())
