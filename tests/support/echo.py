"""A native delegate that says in its responses what it was told; its paths ask for more."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from bridge.core.connection.http1 import ServerConnection
from bridge.core.connection.interfaces import Exchange
from bridge.errors import LocalProtocolError

__all__ = ["Echo"]


class Echo:
    """Answers with ``METHOD path?query|content``.

    Attributes:
        exchanges: Those that were started and have not ended.
        started: How many were started.
        ended: How many connections have ended.
    """

    def __init__(self) -> None:
        self.exchanges: set[_EchoExchange] = set()
        self.started = 0
        self.ended = 0

    def start_exchange(self, exchange: Exchange) -> _EchoExchange:
        self.started += 1
        echo = _EchoExchange(self, exchange)
        self.exchanges.add(echo)
        if exchange.head.path == b"/early":
            echo.answer()
        elif exchange.head.path != b"/silent":
            exchange.send_continue()
        return echo

    def on_close(self, connection: ServerConnection) -> None:
        self.ended += 1


class _EchoExchange:
    def __init__(self, owner: Echo, exchange: Exchange) -> None:
        self._owner = owner
        self._exchange = exchange
        self._content = b""

    def data_received(self, chunk: bytes) -> None:
        self._content += chunk

    def finish(self) -> None:
        self._owner.exchanges.discard(self)
        if not self._exchange.finished:
            self.answer()

    def on_connection_close(self) -> None:
        self._owner.exchanges.discard(self)

    def on_peer_eof(self) -> None:
        pass

    def answer(self) -> None:
        exchange = self._exchange
        head = exchange.head
        way: Callable[[Exchange, bytes], Any] | None = _WAYS.get(head.path)
        query = b"?" + head.query if head.query else b""
        content = b"%b %b%b|%b" % (head.method, head.path, query, self._content)
        if way is not None:
            way(exchange, content)
            return
        exchange.respond(200, [(b"content-type", b"text/plain")])
        exchange.send(content, True)


def _parts(exchange: Exchange, content: bytes) -> None:
    exchange.respond(200, [])
    exchange.send(content[:3])
    exchange.send(content[3:])
    exchange.send(b"", True)


def _trailers(exchange: Exchange, content: bytes) -> None:
    exchange.respond(200, [])
    exchange.send(b"; ".join(b"%b=%b" % field for field in exchange.trailers))
    exchange.end([(b"x-end", b"1")])


def _fields(exchange: Exchange, content: bytes) -> None:
    exchange.respond(200, [])
    exchange.send(b"; ".join(b"%b=%b" % field for field in exchange.head.fields), True)


def _interim(exchange: Exchange, content: bytes) -> None:
    exchange.inform(103, [(b"link", b"</a>")])
    exchange.respond(200, [])
    exchange.send(content, True)


def _status(status: int) -> Callable[[Exchange, bytes], None]:
    def way(exchange: Exchange, content: bytes) -> None:
        exchange.respond(status, [])
        exchange.send(content, True)

    return way


def _length(length: int) -> Callable[[Exchange, bytes], None]:
    def way(exchange: Exchange, content: bytes) -> None:
        exchange.respond(200, [(b"content-length", b"%d" % length)])
        with contextlib.suppress(LocalProtocolError):
            exchange.send(b"12345", True)

    return way


def _fail(exchange: Exchange, content: bytes) -> None:
    exchange.fail()


def _fail_later(exchange: Exchange, content: bytes) -> None:
    exchange.respond(200, [])
    exchange.send(b"part")
    exchange.fail()


def _inject(exchange: Exchange, content: bytes) -> None:
    with contextlib.suppress(LocalProtocolError):
        exchange.respond(200, [(b"x", b"a\r\nInjected: yes")])
    exchange.fail()


def _large(exchange: Exchange, content: bytes) -> None:
    exchange.respond(200, [])
    exchange.send(b"x" * int(exchange.head.query), True)


_WAYS: dict[bytes, Callable[[Exchange, bytes], Any]] = {
    b"/parts": _parts,
    b"/trailers": _trailers,
    b"/fields": _fields,
    b"/interim": _interim,
    b"/204": _status(204),
    b"/304": _status(304),
    b"/short": _length(10),
    b"/long": _length(3),
    b"/fail": _fail,
    b"/fail-later": _fail_later,
    b"/inject": _inject,
    b"/large": _large,
}
