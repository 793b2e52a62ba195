"""The small server for probes and commands, on a selector and on a loop: it answers, and no client holds it up."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from bridge.operations import listener as module
from bridge.operations.listener import Listener, SelectorWatch
from bridge.operations.messages import Answer, Request, Respond
from tests.support.running import Client, get


class Running:
    """A listener in a thread of its own, on a selector as in a master."""

    def __init__(self, sock: socket.socket, *, control: bool = False) -> None:
        self.selector = selectors.DefaultSelector()
        self.requests: list[Request] = []
        self.responds: list[Respond] = []
        self.listener = Listener(SelectorWatch(self.selector), self._answer)
        self.listener.add([sock], control=control)
        self._ends, self._end = socket.socketpair()
        self.selector.register(self._ends, selectors.EVENT_READ, None)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _answer(self, request: Request, respond: Respond) -> None:
        self.requests.append(request)
        if request.path == "/late":
            self.responds.append(respond)
        elif request.path == "/large":
            respond(Answer(200, b"x" * (8 << 20)))
        elif request.path == "/fault":
            raise ValueError("a fault of the test's own")
        else:
            respond(Answer(200, b"fine", fields=((b"x-more", b"1"),)))

    def _run(self) -> None:
        while True:
            due = self.listener.next_event()
            events = self.selector.select(None if due is None else max(due - time.monotonic(), 0.0))
            for key, _ in events:
                if key.data is None:
                    return
                if self.selector.get_map().get(key.fd) is key:
                    key.data()
            self.listener.check_deadlines(time.monotonic())

    def close(self) -> None:
        self._end.close()
        self._thread.join(10)
        self.listener.close()
        self._ends.close()
        self.selector.close()


@pytest.fixture
def running(request: pytest.FixtureRequest) -> Iterator[tuple[Running, tuple[str, int]]]:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        server = Running(sock)
        try:
            yield server, sock.getsockname()
        finally:
            server.close()


Server = tuple[Running, tuple[str, int]]


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
        end = time.monotonic() + 10
        while len(running[0].listener._connections) and time.monotonic() < end:
            time.sleep(0.01)
        assert not running[0].listener._connections
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
        end = time.monotonic() + 10
        while len(running[0].responds) < 2 and time.monotonic() < end:
            time.sleep(0.001)
        leaver.sock.close()
        assert get(running[1])[0] == 200
        time.sleep(0.1)  # longer than a client may be slow
        for respond in running[0].responds:
            respond(Answer(409, b"late"))
            respond(Answer(200, b"a second answer is none"))
        assert client.read()[::2] == (409, b"late")


def test_a_full_server_lets_the_next_wait(running: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST", 3)
    with contextlib.ExitStack() as stack:
        clients = []
        for index in range(3):
            clients.append(stack.enter_context(Client(running[1])))
            clients[index].send("/late")
            asked(running, index + 1)
        clients += [stack.enter_context(Client(running[1])) for _ in range(2)]
        clients[4].send("/")
        clients[0].sock.close()
        clients[1].sock.close()
        clients[2].sock.close()
        assert clients[4].read()[0] == 200


def asked(running: Server, number: int) -> None:
    """Wait until so many requests have come."""
    end = time.monotonic() + 10
    while len(running[0].requests) < number and time.monotonic() < end:
        time.sleep(0.001)


def test_clients_that_send_nothing_make_room(running: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST", 4)
    monkeypatch.setattr(module, "_PATIENCE", 600.0)
    with contextlib.ExitStack() as stack:
        waiting = stack.enter_context(Client(running[1]))
        waiting.send("/late")
        asked(running, 1)
        silent = [stack.enter_context(Client(running[1])) for _ in range(20)]
        for client in silent[:10]:
            with contextlib.suppress(OSError):
                client.sock.sendall(b"GET / HTTP/1.1\r\n")
        assert get(running[1])[0] == 200
        running[0].responds[0](Answer(200, b"late"))
        assert waiting.read()[::2] == (200, b"late")  # who has asked keeps the place


def test_a_hundred_at_once(running: Server) -> None:
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(Client(running[1])) for _ in range(100)]
        for client in clients:
            client.send("/")
        assert {client.read()[0] for client in clients} == {200}
