"""SSLIOStream: a stream with TLS. asyncio's transports do the TLS."""

from __future__ import annotations

import asyncio
import socket
import ssl
from asyncio.base_events import BaseEventLoop
from functools import partial
from typing import Any

from bridge.core.net.tls import SSLOptions, ssl_options_to_context
from bridge.core.net.tlstransport import TLSTransport
from bridge.core.stream.errors import closed_error
from bridge.core.stream.stream import IOStream, client_options

__all__ = ["SSLIOStream", "TLSSocket"]


class SSLIOStream(IOStream):
    """A stream with TLS.

    Args:
        socket: As for IOStream; or a socket that ``ssl_wrap_socket`` returned.
        ssl_options: A context, or a dictionary (see TCPServer); None for a client's default context.
        server_side: Whether this end is the server.
        **kwargs: As for IOStream.
    """

    def __init__(
        self, socket: Any, ssl_options: SSLOptions | None = None, server_side: bool = False, **kwargs: Any
    ) -> None:
        self._server_side = server_side
        self._server_hostname = None
        wrapped = isinstance(socket, ssl.SSLSocket)
        if isinstance(socket, ssl.SSLSocket):
            # asyncio does the handshake itself, on a plain socket
            ssl_options, self._server_side = socket.context, bool(socket.server_side)
            self._server_hostname = socket.server_hostname
            socket = _plain(socket)
        super().__init__(TLSSocket(socket, None), **kwargs)
        self._options = ssl_options
        if wrapped and self._is_connected():
            self._start()

    async def _make_transport(self, server_hostname: str | None) -> None:
        options = client_options(self._options, self._server_side)
        context = ssl_options_to_context(options, server_side=self._server_side)
        sock = self.socket.plain
        if self._server_side:
            await self._loop.connect_accepted_socket(lambda: self, sock, ssl=context)
        else:
            name = server_hostname or self._server_hostname or ""
            await self._loop.create_connection(lambda: self, sock=sock, ssl=context, server_hostname=name)

    async def _upgrade(self, stream: IOStream, server_side: bool, server_hostname: str | None) -> None:
        try:
            await stream._wait_ready()
            transport = stream._transport
            assert transport is not None and isinstance(self._options, ssl.SSLContext)
            stream._transport = None
            stream._closed = True
            self._gone, stream._gone = stream._gone, None
            upgraded = await _start_tls(
                *(self._loop, transport, self, self._options),
                server_side=server_side,
                server_hostname=server_hostname,
            )
            assert upgraded is not None
            self.connection_made(upgraded)
        except Exception as exc:  # whatever it is, the caller waits for the new stream
            self._failed(exc)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin, after the handshake."""
        self.socket.transport = transport
        super().connection_made(transport)

    def wait_for_handshake(self) -> asyncio.Future[SSLIOStream]:
        """Return a future whose result is the stream, when the handshake is done.

        Raises:
            RuntimeError: Another call waits already.
        """
        if self._ready is not None:
            raise RuntimeError("Already waiting")
        future = self._loop.create_future()
        if self._closed:
            future.set_exception(closed_error(self.error))
        elif self._transport is not None:
            future.set_result(self)
        else:
            self._ready = future
            self._start()
        return future


class TLSSocket:
    """A socket that also answers for its TLS session, of which nothing is known until the handshake is done."""

    def __init__(self, plain: Any, transport: Any) -> None:
        self.plain = plain
        self.transport = transport

    def __getattr__(self, name: str) -> Any:
        session = None if self.transport is None else self.transport.get_extra_info("ssl_object")
        if session is not None and hasattr(session, name):
            return getattr(session, name)
        return getattr(self.plain, name)

    def close(self) -> None:
        """Close the socket, unless it belongs to a transport, which closes it itself."""
        if isinstance(self.plain, socket.socket):
            self.plain.close()

    def cipher(self) -> tuple[str, str, int] | None:
        """Return name, protocol version and secret bits of the cipher in use."""
        session = None if self.transport is None else self.transport.get_extra_info("ssl_object")
        return None if session is None else session.cipher()

    def getpeercert(self, binary_form: bool = False) -> Any:
        """Return the peer's certificate, as ``ssl.SSLSocket.getpeercert`` does; None before the handshake."""
        session = None if self.transport is None else self.transport.get_extra_info("ssl_object")
        return None if session is None else session.getpeercert(binary_form)


async def _start_tls(
    loop: asyncio.AbstractEventLoop,
    transport: asyncio.Transport,
    protocol: asyncio.BaseProtocol,
    context: ssl.SSLContext,
    *,
    server_side: bool,
    server_hostname: str | None,
) -> asyncio.Transport | None:
    """Begin TLS on *transport*, as the loop's ``start_tls`` does; a TLSTransport has TLS within TLS then.

    uvloop refuses transports that are not its own. What asyncio has for its loops runs on any loop.

    Raises:
        OSError: The handshake has failed.
    """
    start = loop.start_tls
    if isinstance(transport, TLSTransport):
        start = partial(BaseEventLoop.start_tls, loop)  # type: ignore[arg-type]  # it uses what every loop has
    return await start(transport, protocol, context, server_side=server_side, server_hostname=server_hostname)


def _plain(sock: ssl.SSLSocket) -> socket.socket:
    family, kind, proto = sock.family, sock.type, sock.proto
    plain = socket.socket(family, kind, proto, fileno=sock.detach())
    plain.setblocking(False)
    return plain
