"""Count the instructions of one request inside bridge: ``python -m benchmarks.instructions plaintext``.

| kind | what is counted |
|---|---|
| plaintext | an ASGI request, 13 bytes of text |
| browser | the same with a browser's 11 fields, other values in every request |
| mixed | the same with the requests of benchmarks/mixed.py, no head of which comes twice |
| wsgi | a WSGI request, 13 bytes of text, with the pool of threads; one at a time |
| wsgi-mixed | the same with the requests of benchmarks/mixed.py |
| websocket | a WebSocket message of 64 bytes of text and its echo, through ASGI |
| h2-plaintext | an ASGI request over HTTP/2, 13 bytes of text; 32 come in one read |
| h2-paths | the same with a browser's 10 fields and 500 paths, which alone differ |
| h2-mixed | the same with the requests of benchmarks/mixed.py, no field block of which comes twice |

One process, one connection, a transport that only counts: no socket, no timer that runs out, and no system call but
those that wake a thread or the loop. So the figure holds on a busy machine too: one and the same code gives the same
figure to one part in ten thousand, with threads to three in a thousand. Another code lies elsewhere in memory, which
alone can change it by one in a hundred: a smaller difference between two commits says nothing.

valgrind's callgrind counts two runs of different length, whose difference cancels the start, and two in which bridge
gets no request, which cancels making the requests and turning the loop. ``--run NUMBER`` is such a run, without
valgrind. What a WSGI request needs to wake a thread and then the loop, whose turns those are, is part of its figure.
"""

import argparse
import asyncio
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.answers import PLAINTEXT
from benchmarks.apps import asgi, wsgi
from benchmarks.client import TEXT, WEBSOCKET_REQUEST, Requests, masked
from benchmarks.http2 import Frames, RepeatedFrames, opening
from benchmarks.measure import browser_lines
from benchmarks.process import PATHS
from benchmarks.socketless import ASGIDelegate, HTTPServer, Transport, WSGIDelegate, connect, parameters

ASGI = {
    "plaintext": asgi.plaintext,
    "browser": asgi.plaintext,
    "mixed": asgi.taking,
    "websocket": asgi.websocket_text_echo,
}
WSGI = {"wsgi": wsgi.plaintext, "wsgi-mixed": wsgi.taking}
SENDS = {"browser": "browser", "mixed": "mixed", "wsgi-mixed": "mixed"}  # of the others: get
HTTP2 = {"h2-plaintext": asgi.plaintext, "h2-paths": asgi.plaintext, "h2-mixed": asgi.taking}
KINDS = ["plaintext", "browser", "mixed", "wsgi", "wsgi-mixed", "websocket", *HTTP2]
STREAMS = 32  # requests of HTTP/2 that come in one read
TEMPLATES = 400  # of the mixed ones: to encode them takes long with valgrind
MESSAGE = b"0123456789abcdef" * 4
SHORT = 500  # requests
COUNTED = re.compile(rb"Collected : (\d+)")


class AwaitedTransport(Transport):
    """Tells when it was written to."""

    answered: asyncio.Future[None]

    def write(self, data: Any) -> None:
        super().write(data)
        self.answered.set_result(None)


async def run(what: str, number: int, idle: bool, metrics: bool = False) -> None:
    """Serve *number* requests, or messages, on one connection, perhaps with metrics; or only make them."""
    if what in HTTP2:
        await run_http2(what, number, idle, metrics)
        return
    threads = WSGIDelegate(WSGI[what]) if what in WSGI else None
    transport = AwaitedTransport() if threads else Transport()
    delegate = threads or ASGIDelegate(ASGI[what])
    params = parameters(delegate, metrics=metrics)
    connect(HTTPServer(delegate, server_name=b"bridge", params=params), transport)
    make = Requests(SENDS.get(what, "get")).next
    if what == "websocket":
        transport.protocol.data_received(WEBSOCKET_REQUEST)
        await asyncio.sleep(0)
        make = partial(bytes, masked(TEXT, MESSAGE))
    before = transport.writes
    if isinstance(transport, AwaitedTransport):
        await serve_by_threads(transport, make, number, idle)
    else:
        await serve_on_the_loop(transport, make, number, idle)
    answers = transport.writes - before
    if answers != (0 if idle else number):
        raise SystemExit(f"{answers} answers to {number} requests")
    transport.protocol.connection_lost(None)
    await asyncio.sleep(0)
    if threads:
        await threads.close()


async def serve_on_the_loop(transport: Transport, make: Callable[[], bytes], number: int, idle: bool) -> None:
    """Give each request a turn of the loop, which is enough for its answer, and another where it has content."""
    receive = transport.protocol.data_received
    for _ in range(number):
        data = make()
        if not idle:
            receive(data)
        await asyncio.sleep(0)
        if data.startswith(b"POST "):
            await asyncio.sleep(0)
    await asyncio.sleep(0)  # responses go out at the end of the turn in which they are complete


async def serve_by_threads(transport: AwaitedTransport, make: Callable[[], bytes], number: int, idle: bool) -> None:
    """Send each request when the answer to the one before was written.

    valgrind makes a request last longer than the 5 ms after which a thread that waits takes the interpreter from the
    one that has it, which never happens without valgrind: so they are a second here.
    """
    sys.setswitchinterval(1.0)
    loop = asyncio.get_running_loop()
    receive = transport.protocol.data_received
    for _ in range(number):
        data = make()
        transport.answered = loop.create_future()
        if idle:
            loop.call_soon(transport.answered.set_result, None)
        else:
            receive(data)
        await transport.answered


class CountingTransport(Transport):
    """Counts the answers, of which one write has many."""

    answers = 0

    def write(self, data: Any) -> None:
        self.answers += data.count(PLAINTEXT)


async def run_http2(what: str, number: int, idle: bool, metrics: bool) -> None:
    """Serve *number* requests on one connection of HTTP/2, as many in a read as a client has streams."""
    delegate = ASGIDelegate(HTTP2[what])
    params = parameters(delegate, metrics=metrics, http2=True)
    transport = CountingTransport()
    connect(HTTPServer(delegate, server_name=b"bridge", params=params), transport)
    frames: Frames | RepeatedFrames
    if what == "h2-mixed":
        frames = Frames(0, TEMPLATES)
    else:
        lines = [line.split(": ", 1) for line in browser_lines()]
        fields = [(name.lower(), value) for name, value in lines]
        frames = RepeatedFrames(PATHS, fields) if what == "h2-paths" else RepeatedFrames(["/"], [])
    receive = transport.protocol.data_received
    receive(opening() + b"".join(frames.first))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    transport.answers = 0
    stream = 2 * len(frames.first) + 1
    for begun in range(0, number, STREAMS):
        streams = range(stream, stream + 2 * min(STREAMS, number - begun), 2)
        data = b"".join([frames.next(one) for one in streams])
        stream = streams.stop
        if not idle:
            receive(data)
        for _ in range(4):
            await asyncio.sleep(0)
    answers = transport.answers
    if answers != (0 if idle else number):
        raise SystemExit(f"{answers} answers to {number} requests")
    transport.protocol.connection_lost(None)
    await asyncio.sleep(0)


def per_request(what: str, requests: int, *more: str) -> float:
    """Return the instructions per request, from two runs."""
    with tempfile.TemporaryDirectory(prefix="bridge-instructions-") as directory:
        short, long = (counted(directory, what, number, *more) for number in (SHORT, SHORT + requests))
    return (long - short) / requests


def counted(directory: str, what: str, number: int, *more: str) -> int:
    """Return the instructions of a run of *number* requests."""
    command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={directory}/out", sys.executable]
    command += ["-m", "benchmarks.instructions", what, "--run", str(number), *more]
    environment = os.environ | {"PYTHONHASHSEED": "0"}
    done = subprocess.run(command, env=environment, cwd=Path.cwd(), capture_output=True, timeout=900, check=False)
    found = COUNTED.search(done.stderr)
    if done.returncode or found is None:
        raise SystemExit(done.stderr.decode(errors="replace")[-2000:])
    return int(found[1])


def main() -> None:
    """Parse the command line, run or count."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.instructions", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("what", choices=KINDS)
    parser.add_argument("--requests", type=int, default=2000, help="counted ones (default: 2000)")
    parser.add_argument("--run", type=int, metavar="NUMBER", help="only serve that many requests, without valgrind")
    parser.add_argument("--metrics", action="store_true", help="count exchanges, as with --admin-bind")
    parser.add_argument("--idle", action="store_true", help="with --run: bridge gets no request")
    options = parser.parse_args()
    if options.run is not None:
        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(run(options.what, options.run, options.idle, options.metrics))
        return
    if not shutil.which("valgrind"):
        raise SystemExit("valgrind is not installed")
    more = ["--metrics"] if options.metrics else []
    number = per_request(options.what, options.requests, *more)
    number -= per_request(options.what, options.requests, "--idle", *more)
    print(f"{' '.join([options.what, *more])}: {number:,.0f} instructions per request")


def new_loop() -> asyncio.AbstractEventLoop:
    """Return a loop, uvloop's where it is installed, whose timers do not run out.

    How often they would depends on how long valgrind takes, and so on what else the machine does.
    """
    try:
        from uvloop import Loop as Base
    except ImportError:
        from asyncio import SelectorEventLoop as Base

    class Loop(Base):
        def call_later(self, delay: float, *args: Any, **more: Any) -> asyncio.TimerHandle:
            return super().call_later(delay + 86400, *args, **more)

    return Loop()


if __name__ == "__main__":
    main()
