"""Show the way of one exchange through bridge, call by call: ``python -m benchmarks.walk``.

Every call of a Python function that is defined in bridge counts, in all threads; a coroutine or generator that goes on
counts again. The table tells for each kind of exchange how many calls there are, of how many functions in how many
files, how often the next call is in another file than the one before, and how often that is a file which was left
before: a walk that goes to and fro is hard to follow. ``--list KIND`` prints the walk itself.

The figures are the same each time: there is no socket, the loop's time stands still, so that no timer runs out, and a
call that a thread makes on the loop waits until that thread rests. An upload's next piece waits until what has come is
written, as with a fast disk; or nothing is written while the client may send, as with a slow one. What happens only
once in a process, such as imports and the first sight of a field's name, has happened before. Comprehensions do not
count, which are functions up to CPython 3.11. A WebSocket message takes one call more where no C function for masks is
installed.
"""

import argparse
import asyncio
import gc
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import bridge
from benchmarks import mixed
from benchmarks.answers import PLAINTEXT
from benchmarks.apps import asgi, wsgi
from benchmarks.client import TEXT, WEBSOCKET_REQUEST, Requests, masked
from benchmarks.socketless import (
    ASGIDelegate,
    HTTPHeaders,
    HTTPServer,
    ResponseStartLine,
    Transport,
    WSGIDelegate,
    connect,
)

ROOT = Path(bridge.__file__).parent
PACKAGE = f"{ROOT}/"
COMPREHENSIONS = {"<listcomp>", "<setcomp>", "<dictcomp>"}  # calls of their own up to CPython 3.11
WAITS = {"acquire", "eventfd_read", "get"}  # in which a thread rests: of a lock, of a pool, of asyncio's executor
WRITE, WRITTEN = "ContentReceiver._write", "ContentReceiver._written"  # start a write to a file, end it
WAIT_LIMIT = 10.0  # seconds for a thread to rest
PIECE = 65536  # bytes that a socket gives at once
TURNS = 5  # of the loop, after the answer


class Call(NamedTuple):
    """A call of a function that is defined in *file*, a path inside bridge."""

    file: str
    function: str


class Recorder:
    """A profile function for all threads: it keeps the calls, and knows which threads rest."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.recording = False
        self.called: dict[int, str] = {}  # thread -> the function in C in which it is
        self.writing = 0  # files that threads are writing to

    def __call__(self, frame: FrameType, event: str, arg: Any) -> None:
        if event == "call":
            code = frame.f_code
            if code.co_qualname == WRITE:
                self.writing += 1
            if self.recording and code.co_filename.startswith(PACKAGE) and code.co_name not in COMPREHENSIONS:
                self.calls.append(Call(code.co_filename.removeprefix(PACKAGE), code.co_qualname))
        elif event == "c_call":
            self.called[threading.get_ident()] = arg.__name__
        elif event != "return":
            self.called.pop(threading.get_ident(), None)

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Profile this thread, and those that are started meanwhile.

        No thread loses the interpreter to another one before it waits for something.
        """
        before = sys.getprofile(), threading.getprofile(), sys.getswitchinterval()
        threading.setprofile(self)
        sys.setprofile(self)
        sys.setswitchinterval(WAIT_LIMIT)
        try:
            yield
        finally:
            sys.setprofile(before[0])
            threading.setprofile(before[1])
            sys.setswitchinterval(before[2])

    @contextmanager
    def recorded(self) -> Iterator[None]:
        """Keep the calls; no object that is not needed any more is finalised meanwhile."""
        gc.collect()
        gc.disable()
        self.calls = []
        self.recording = True
        try:
            yield
        finally:
            self.recording = False
            gc.enable()

    def wait_for(self, thread: int) -> None:
        """Wait, blocking, until another thread rests or has ended."""
        _wait_while(lambda: self.called.get(thread) not in WAITS and thread in sys._current_frames())

    def wait_for_files(self) -> None:
        """Wait, blocking, until nothing is being written to a file."""
        _wait_while(lambda: self.writing > 0)


def _wait_while(busy: Callable[[], bool]) -> None:
    end = time.monotonic() + WAIT_LIMIT
    while busy():
        if time.monotonic() > end:
            raise TimeoutError(f"a thread does not rest within {WAIT_LIMIT} s")
        time.sleep(0.0005)


class Loop(asyncio.SelectorEventLoop):
    """A loop whose time stands still, and that lets a thread which calls it come to rest first.

    Attributes:
        recorder: Knows which threads rest.
        disk_waits: Tells whether the end of a write to a file has to wait.
    """

    recorder: Recorder
    disk_waits: Callable[[], bool]

    def time(self) -> float:
        return 1000.0

    def call_soon_threadsafe(self, callback: Any, *args: Any, context: Any = None) -> asyncio.Handle:
        caller = threading.get_ident()
        if getattr(callback, "__qualname__", "") == WRITTEN:
            self.recorder.writing -= 1
        return super().call_soon_threadsafe(self._call, caller, callback, args, context=context)

    def _call(self, caller: int, callback: Any, args: tuple[Any, ...]) -> None:
        if getattr(callback, "__qualname__", "") == WRITTEN and self.disk_waits():
            self.call_soon(self._call, caller, callback, args)
            return
        if caller != threading.get_ident():
            self.recorder.wait_for(caller)
        callback(*args)


class Peer(Transport):
    """A transport with something to read: a piece in each turn of the loop, or in each second turn with a fast disk."""

    def __init__(self, recorder: Recorder, slow_disk: bool) -> None:
        super().__init__()
        self.loop = asyncio.get_running_loop()
        self.recorder = recorder
        self.slow_disk = slow_disk
        self.waiting = b""
        self.paused = False
        self.answered: asyncio.Future[None] = self.loop.create_future()

    async def send(self, data: bytes) -> None:
        """Send *data* and wait for an answer, and until nothing more is done about it."""
        self.answered = self.loop.create_future()
        self.waiting = data
        self.loop.call_soon(self.deliver)
        await self.answered
        for _ in range(TURNS):
            await asyncio.sleep(0)

    def may_send(self) -> bool:
        return bool(self.waiting) and not self.paused

    def deliver(self) -> None:
        if not self.slow_disk:
            self.recorder.wait_for_files()
        self.loop.call_soon(self.deliver_piece)  # behind what a thread has told the loop meanwhile

    def deliver_piece(self) -> None:
        if self.may_send():
            piece, self.waiting = self.waiting[:PIECE], self.waiting[PIECE:]
            self.loop.call_soon(self.deliver)
            self.protocol.data_received(piece)

    def write(self, data: Any) -> None:
        super().write(data)
        if not self.answered.done():
            self.answered.set_result(None)

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        if self.paused:
            self.paused = False
            self.loop.call_soon(self.deliver)


def take_all(environ: wsgi.Environ, start_response: wsgi.StartResponse) -> list[bytes]:
    """Read the content and answer."""
    environ["wsgi.input"].read()
    start_response("200 OK", wsgi.PLAINTEXT_FIELDS)
    return [PLAINTEXT]


def answer(request: Any) -> None:
    """Answer as Tornado's callables do."""
    fields = {"Content-Type": "text/plain", "Content-Length": str(len(PLAINTEXT))}
    request.connection.write_headers(ResponseStartLine("HTTP/1.1", 200, "OK"), HTTPHeaders(fields))
    request.connection.write(PLAINTEXT)
    request.connection.finish()


GET = Requests("get").next()
POST = b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000000\r\n\r\n" + b"u" * 1_000_000
MIXED = [next(requests) for requests in [mixed.requests()] for _ in range(3)]
CHANGING = [b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: */*\r\nCookie: number=%d\r\n\r\n" % n for n in range(3)]


class Kind(NamedTuple):
    """A kind of exchange.

    Attributes:
        text: What it is.
        application: Makes what a server serves.
        sent: What a peer sends on one connection, each when the one before was answered; the last one is looked at.
        slow_disk: Nothing is written to files while the peer may send.
    """

    text: str
    application: Callable[[], Any]
    sent: list[bytes]
    slow_disk: bool = False


KINDS = {
    "asgi-first": Kind("ASGI GET, first of a connection", lambda: ASGIDelegate(asgi.plaintext), [GET]),
    "asgi": Kind("ASGI GET, third, one field changed", lambda: ASGIDelegate(asgi.plaintext), CHANGING),
    "asgi-mixed": Kind("ASGI GET, third, each of another client", lambda: ASGIDelegate(asgi.plaintext), MIXED),
    "wsgi": Kind("WSGI GET, third, the same head", lambda: WSGIDelegate(wsgi.plaintext), [GET] * 3),
    "wsgi-mixed": Kind("WSGI GET, third, each of another client", lambda: WSGIDelegate(wsgi.plaintext), MIXED),
    "wsgi-upload": Kind("WSGI POST of 1,000,000 bytes, third", lambda: WSGIDelegate(take_all), [POST] * 3),
    "wsgi-upload-slow": Kind("the same, with a slow disk", lambda: WSGIDelegate(take_all), [POST] * 3, slow_disk=True),
    "callable": Kind("Tornado's callable, GET, third, one field changed", lambda: answer, CHANGING),
    "websocket-open": Kind(
        "WebSocket, handshake and accept", lambda: ASGIDelegate(asgi.websocket_text_echo), [WEBSOCKET_REQUEST]
    ),
    "websocket": Kind(
        "WebSocket, message and its echo",
        lambda: ASGIDelegate(asgi.websocket_text_echo),
        [WEBSOCKET_REQUEST, *[masked(TEXT, b"0123456789abcdef" * 4)] * 2],
    ),
}


def walk(kind: Kind) -> list[Call]:
    """Return the calls of one exchange, in their order."""
    recorder = Recorder()
    with asyncio.Runner(loop_factory=Loop) as runner:
        loop = runner.get_loop()
        assert isinstance(loop, Loop)
        loop.recorder = recorder
        with recorder.installed():
            runner.run(exchange(kind, recorder))
            runner.run(loop.shutdown_default_executor())
    return recorder.calls


async def exchange(kind: Kind, recorder: Recorder) -> None:
    """Make the exchanges of a kind on two connections one after the other, and record the last one."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, Loop)
    application = kind.application()
    server = HTTPServer(application, server_name=b"bridge")
    for _ in range(2):
        peer = Peer(recorder, kind.slow_disk)
        loop.disk_waits = peer.may_send if kind.slow_disk else lambda: False
        connect(server, peer)
        *before, last = kind.sent
        for data in before:
            await peer.send(data)
        with recorder.recorded():
            await peer.send(last)
        peer.protocol.connection_lost(None)
        await asyncio.sleep(0)
    if isinstance(application, WSGIDelegate):
        await application.close()


class Figures(NamedTuple):
    """What is counted of a walk."""

    calls: int
    functions: int
    files: int
    changes: int
    returns: int

    @classmethod
    def of(cls, calls: list[Call]) -> "Figures":
        """Count."""
        files = len({call.file for call in calls})
        changes = sum(call.file != before.file for before, call in pairwise(calls))
        return cls(len(calls), len(set(calls)), files, changes, changes - max(files - 1, 0))


def table(walks: dict[str, list[Call]]) -> str:
    """Return the figures of walks, by the names of their kinds, as a table in Markdown."""
    lines = [
        "| kind | | calls | functions | files | changes of file | returns to a file already left |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for name, calls in walks.items():
        lines.append("| " + " | ".join([name, KINDS[name].text, *map(str, Figures.of(calls))]) + " |")
    return "\n".join(lines)


def main() -> None:
    """Parse the command line, walk, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.walk", description=(__doc__ or "").partition(":")[0])
    parser.add_argument("--list", metavar="KIND", choices=KINDS, help=f"print the walk itself: {', '.join(KINDS)}")
    options = parser.parse_args()
    if options.list:
        for call in walk(KINDS[options.list]):
            print(f"{call.file}:{call.function}")
    else:
        print(table({name: walk(kind) for name, kind in KINDS.items()}))


if __name__ == "__main__":
    main()
