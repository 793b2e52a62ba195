"""The small server for probes and commands, on a selector and on a loop: it answers, and no client holds it up."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bridge.operations import listener as module
from bridge.operations.listener import Listener, LoopWatch, SelectorWatch, Watch
from bridge.operations.messages import Answer, Request, Respond
from tests.support.running import PATIENCE, Client, get

LARGE = Answer(200, b"x" * (8 << 20))
#: What clients send that hold a connection.
HOLDERS = {
    "nothing": b"",
    "a part of a head": b"GET / HTTP/1.1\r\n",
    "a part of the content": b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n1",
    "a request, and no end": b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "a request, whose answer it does not read": b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n",
    "a request for what is late": b"GET /late HTTP/1.1\r\nHost: a\r\n\r\n",
}


class Running:
    """A listener in a thread of its own: on a selector, as in a master, or on an event loop."""

    def __init__(self, sock: socket.socket, *, control: bool = False, loop: bool = False) -> None:
        self.sock = sock
        self.control = control
        self.requests: list[Request] = []
        self.responds: list[Respond] = []
        self._ends, self._end = socket.socketpair()
        self._began = threading.Event()
        self._thread = threading.Thread(target=self._run_loop if loop else self._run)
        self._thread.start()
        assert self._began.wait(10)

    def _answer(self, request: Request, respond: Respond) -> None:
        self.requests.append(request)
        if request.path == "/late":
            self.responds.append(respond)
        elif request.path == "/large":
            respond(LARGE)
        elif request.path == "/fault":
            raise ValueError("a fault of the test's own")
        else:
            respond(Answer(200, b"fine", fields=((b"x-more", b"1"),)))

    def _begin(self, watch: Watch) -> None:
        self.listener = Listener(watch, self._answer)
        self.listener.add([self.sock], control=self.control)
        self._began.set()

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector:
            self._begin(SelectorWatch(selector))
            selector.register(self._ends, selectors.EVENT_READ, None)
            ends = False
            while not ends:
                due = self.listener.next_event()
                events = selector.select(None if due is None else max(due - time.monotonic(), 0.0))
                for key, _ in events:
                    if key.data is None:
                        ends = True
                    elif selector.get_map().get(key.fd) is key:
                        key.data()
                self.listener.check(time.monotonic())
            self.listener.close()

    def _run_loop(self) -> None:
        async def run() -> None:
            loop = asyncio.get_running_loop()
            self._begin(LoopWatch(loop))
            ended = loop.create_future()
            loop.add_reader(self._ends, lambda: ended.done() or ended.set_result(None))
            while not ended.done():
                self.listener.check(time.monotonic())
                await asyncio.wait([ended], timeout=0.01)
            loop.remove_reader(self._ends)
            self.listener.close()

        with asyncio.Runner() as runner:
            runner.run(run())

    def connections(self) -> int:
        """Return how many connections there are."""
        return sum(len(crowd.connections) for crowd in self.listener._crowds)

    def close(self) -> None:
        self._end.close()
        self._thread.join(10)
        self._ends.close()


@pytest.fixture(params=["selector", "loop"])
def running(request: pytest.FixtureRequest) -> Iterator[tuple[Running, tuple[str, int]]]:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        server = Running(sock, loop=request.param == "loop")
        try:
            yield server, sock.getsockname()
        finally:
            server.close()


@pytest.fixture(params=["selector", "loop"])
def controlled(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Running, str]]:
    path = str(tmp_path / "control.sock")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(path)
        sock.listen(128)
        server = Running(sock, control=True, loop=request.param == "loop")
        try:
            yield server, path
        finally:
            server.close()


Server = tuple[Running, tuple[str, int]]
Controlled = tuple[Running, str]


def test_it_answers_and_closes(running: Server) -> None:
    with Client(running[1]) as client:
        assert client.get("/a%20b?x=1&y=&x=2") == (
            200,
            {
                "content-type": "text/plain; charset=utf-8",
                "x-more": "1",
                "connection": "close",
                "content-length": "4",
            },
            b"fine",
        )
        assert client.closed()
    (request,) = running[0].requests
    assert (request.path, request.query, request.control) == ("/a b", {"x": "2", "y": ""}, False)


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", 200),
        (b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n", 200),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello", 200),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n", 200),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 70000\r\n\r\n", 413),
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET /" + b"a" * 5000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"a: b\r\n" * 100 + b"\r\n", 431),
        (b"GET /fault HTTP/1.1\r\nHost: a\r\n\r\n", 500),
    ],
)
@pytest.mark.parametrize("cut", [False, True])
def test_what_clients_send(running: Server, sent: bytes, status: int, cut: bool, caplog: Any) -> None:
    with socket.create_connection(running[1], 10) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with contextlib.suppress(ConnectionError):
            for piece in [sent[i : i + 1] for i in range(len(sent))] if cut and len(sent) < 200 else [sent]:
                sock.sendall(piece)
        received = b""
        with contextlib.suppress(ConnectionError):
            while data := sock.recv(65536):
                received += data
    assert received.startswith(b"HTTP/1.1 %d " % status)
    if sent.startswith(b"HEAD"):
        assert received.endswith(b"\r\n\r\n")


def test_a_slow_client_is_cut_off(running: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PATIENCE", 0.1)
    with socket.create_connection(running[1], 10) as sock, socket.create_connection(running[1], 10) as other:
        sock.sendall(b"GET / HT")
        assert sock.recv(1) == b""
        assert other.recv(1) == b""
    assert get(running[1])[0] == 200


def test_a_client_that_does_not_read_is_cut_off(running: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PATIENCE", 0.2)
    with socket.create_connection(running[1], 10) as sock:
        sock.sendall(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n")
        assert get(running[1])[0] == 200  # nobody waits for it
        until(lambda: not running[0].connections())
        with contextlib.suppress(ConnectionError):
            received = 0
            while data := sock.recv(1 << 20):
                received += len(data)
            assert received < 8 << 20


def test_a_large_answer_arrives_whole(running: Server) -> None:
    assert len(get(running[1], "/large")[2]) == 8 << 20


def test_an_answer_that_comes_late(running: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PATIENCE", 0.05)
    with Client(running[1]) as client, Client(running[1]) as leaver:
        client.send("/late")
        leaver.send("/late")
        until(lambda: len(running[0].responds) == 2)
        leaver.sock.close()
        assert get(running[1])[0] == 200
        time.sleep(0.1)  # longer than a client may be slow
        for respond in running[0].responds:
            respond(Answer(409, b"late"))
            respond(Answer(200, b"a second answer is none"))
        assert client.read()[::2] == (409, b"late")


def test_commands_keep_their_places(controlled: Controlled, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full control socket lets the next client wait until a command has ended."""
    monkeypatch.setattr(module, "_MOST", 3)
    server, path = controlled
    with contextlib.ExitStack() as stack:
        clients = []
        for index in range(3):
            clients.append(stack.enter_context(Client(path)))
            clients[index].send("/late")
            asked(server, index + 1)
        clients += [stack.enter_context(Client(path)) for _ in range(2)]
        clients[4].send("/")
        server.responds[0](Answer(200, b"late"))
        assert clients[0].read()[::2] == (200, b"late")
        for client in clients[:3]:
            client.sock.close()
        assert clients[4].read()[0] == 200


def asked(server: Running, number: int) -> None:
    """Wait until so many requests have come."""
    until(lambda: len(server.requests) >= number)


def until(condition: Callable[[], bool]) -> None:
    """Wait for *condition*."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


@pytest.mark.parametrize("sent", HOLDERS.values(), ids=HOLDERS)
def test_no_client_keeps_a_probe_waiting(running: Server, monkeypatch: pytest.MonkeyPatch, sent: bytes) -> None:
    """Whatever a client does, it makes room: it sends nothing, or does not read, or does not close."""
    monkeypatch.setattr(module, "_MOST", 16)
    monkeypatch.setattr(module, "_PATIENCE", 600.0)
    monkeypatch.setattr(module, "_AT_ONCE", 4)
    with contextlib.ExitStack() as stack:
        for _ in range(5):
            for _ in range(20):
                client = stack.enter_context(Client(running[1]))
                with contextlib.suppress(OSError):  # it was ended meanwhile
                    client.sock.sendall(sent)
            assert get(running[1])[0] == 200
        assert running[0].connections() <= 16


def test_what_is_kept_for_clients_that_do_not_read_is_bounded(running: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_UNREAD_MAX", 20 << 20)
    monkeypatch.setattr(module, "_PATIENCE", 600.0)
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(Client(running[1])) for _ in range(5)]
        for number, client in enumerate(clients, 1):
            client.send("/large")
            asked(running[0], number)
        first, last = clients[0], clients[-1]
        with pytest.raises(ConnectionError):
            first.read()
        assert len(last.read()[2]) == 8 << 20


def test_an_answer_has_to_be_read_within_a_time(running: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that reads a little from time to time does not keep its connection."""
    monkeypatch.setattr(module, "_LONGEST", 0.3)
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(running[1])
        sock.settimeout(10)
        sock.sendall(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n")
        end = time.monotonic() + 10
        received = 0
        with contextlib.suppress(ConnectionError):
            while time.monotonic() < end and (data := sock.recv(4096)):
                received += len(data)
                asked(running[0], 1)
                time.sleep(0.002)  # the client is slow
        assert received < 8 << 20
        assert time.monotonic() < end


def test_without_descriptors_the_oldest_goes(running: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The socket stays ready, so nothing may wait for it in a circle."""
    monkeypatch.setattr(module, "_PAUSE", 0.05)
    server, address = running
    with Client(address) as silent:
        silent.sock.sendall(b"GET / HT")
        until(lambda: server.connections() == 1)
        real = socket.socket.accept
        calls = []

        def accept(sock: socket.socket) -> Any:
            calls.append(server.connections())
            if len(calls) < 4:
                raise OSError(errno.EMFILE, "no more descriptors")
            return real(sock)

        monkeypatch.setattr(socket.socket, "accept", accept)
        assert get(address)[0] == 200
        assert silent.closed()
    assert len(calls) < 20


def test_a_hundred_at_once(running: Server) -> None:
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(Client(running[1])) for _ in range(100)]
        for client in clients:
            client.send("/")
        assert {client.read()[0] for client in clients} == {200}
