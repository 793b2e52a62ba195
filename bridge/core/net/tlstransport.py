"""A transport for a server's end of a TLS connection, which lets OpenSSL read and write the socket itself.

The transports of asyncio and uvloop pass all bytes through memory buffers of the ``ssl`` module: two reads for each
record, the second of which ends in an exception, and a copy in each direction. Here a request costs one call of
``read`` and one of ``write``.

OpenSSL reads record by record and keeps nothing of the next one. So one call of ``read`` with room for the largest
record is enough for each readable event: the system reports the socket again if more is left.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from asyncio.trsock import TransportSocket
from collections import deque
from typing import TYPE_CHECKING, Any

from bridge.core.log import app_log
from bridge.core.net.filled import Filled
from bridge.core.net.handshake import Handshake
from bridge.core.net.readiness import READABLE, WRITABLE, Readiness
from bridge.errors import traceback_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["TLSTransport"]

# The most content of one record (RFC 8446 section 5.1), in bytes: what one read can return.
_RECORD = 16384
# Reads with fewer bytes are served after all sockets of the turn are read: 256 of them hold a megabyte at most.
_LITTLE = 4096
# Bytes that are read, or written, in one turn of the loop: other connections wait meanwhile.
_PER_TURN = 262144
# Bytes that OpenSSL gets at once. It makes records of them, and writes each one.
_PIECE = 65536
# The states: serving; sending the rest; close_notify is sent, and the peer's is awaited; ended.
_OPEN, _FLUSHING, _SHUTDOWN, _CLOSED = range(4)


class TLSTransport(asyncio.Transport):
    """A transport over TLS; :meth:`accept` makes it.

    A peer that ends TLS (close_notify) makes the protocol's ``eof_received`` be called, and then the transport closes:
    there are no half-closed connections. A peer that ends TCP without that is not told from one that is gone: there
    is no call of ``eof_received``, only ``connection_lost``.

    Attributes:
        max_size: The most bytes that are read in one turn of the loop; at least one record is. See ``reads``.
    """

    _start_tls_compatible = True  # asyncio's start_tls() asks for it

    __slots__ = (
        "_address",
        "_ended",
        "_high",
        "_loop",
        "_low",
        "_number",
        "_protocol",
        "_read",
        "_readiness",
        "_reading",
        "_received",
        "_shutdown",
        "_shutdown_timeout",
        "_sock",
        "_state",
        "_timer",
        "_turned",
        "_unsent",
        "_unsent_size",
        "_watched",
        "_write",
        "_writing_paused",
        "max_size",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        readiness: Readiness,
        sock: ssl.SSLSocket,
        address: Any,
        shutdown_timeout: float,
    ) -> None:
        super().__init__()
        self.max_size = _PER_TURN
        self._loop = loop
        self._readiness = readiness
        self._sock = sock
        self._address = address
        self._shutdown_timeout = shutdown_timeout
        self._number = sock.fileno()
        self._protocol: Any = None
        # SSLSocket's methods only call these ones, and would take 2 of 15 us for each request.
        session = getattr(sock, "_sslobj", None)
        self._read: Callable[[int], bytes] = (session or sock).read
        self._write: Callable[[bytes | memoryview], int] = (session or sock).write
        self._shutdown: Callable[[], object] = sock.unwrap if session is None else session.shutdown
        self._state = _OPEN
        self._watched = 0  # the events that are waited for
        self._reading = True  # the protocol wants bytes
        self._received = b""  # read in this turn of the loop, not yet given to it
        self._turned = 0  # WRITABLE: a read waits until OpenSSL can write; READABLE: a write waits until it can read
        self._ended = False  # the peer sends nothing more
        self._unsent: deque[bytes | memoryview] = deque()
        self._unsent_size = 0
        self._high, self._low = 65536, 16384
        self._writing_paused = False
        self._timer: asyncio.TimerHandle | None = None

    @classmethod
    async def accept(
        cls,
        loop: asyncio.AbstractEventLoop,
        readiness: Readiness,
        sock: socket.socket,
        address: Any,
        context: ssl.SSLContext,
        make: Callable[[], asyncio.Protocol],
        *,
        handshake_timeout: float,
        shutdown_timeout: float,
    ) -> None:
        """Do the handshake on an accepted socket, make the protocol, and call its ``connection_made``.

        Args:
            loop: The event loop.
            readiness: Watches the sockets of that loop.
            sock: The socket, non-blocking. It is the transport's from now on, whatever happens.
            address: The peer's address.
            context: The TLS context.
            make: Makes the protocol; called when the handshake is done.
            handshake_timeout: Seconds that the handshake may take.
            shutdown_timeout: Seconds that the end of TLS may take, once everything is sent.

        Raises:
            ssl.SSLError: The handshake has failed.
            OSError: The peer has left, or was too slow.
            Exception: What *make* and ``connection_made`` have raised.
        """
        try:
            sock.getpeername()
        except OSError:
            sock.close()
            raise  # wrap_socket() would leave its socket open, or say that TLS has failed
        wrapped = context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False, suppress_ragged_eofs=False)
        try:
            if wrapped.family in {socket.AF_INET, socket.AF_INET6}:
                wrapped.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await Handshake(loop, readiness, wrapped).done(handshake_timeout)
            transport = cls(loop, readiness, wrapped, address, shutdown_timeout)
        except BaseException:
            wrapped.close()
            raise
        transport._begin(make)

    def _begin(self, make: Callable[[], asyncio.Protocol]) -> None:
        try:
            self._protocol = make()
            self._wait_for(READABLE)
            self._protocol.connection_made(self)
        except BaseException:
            self._state = _CLOSED
            self._wait_for(0)
            self._protocol = None
            self._sock.close()
            raise

    # ------------------------------------------------------------------ events

    def _wait_for(self, events: int) -> None:
        """Wait for *events* only. A socket that waits for nothing is not watched: errors would be reported for ever."""
        watched = self._watched
        if events == watched:
            return
        self._watched = events
        if not watched:
            self._readiness.add(self._number, events, self._ready)
        elif events:
            self._readiness.change(self._number, events)
        else:
            self._readiness.remove(self._number)

    def _ready(self, events: int) -> Callable[[], None] | None:
        """Act on events. After an error or an end, do what is waited for: the read or write then reports it.

        Returns:
            A function to call later in this turn of the loop, see :class:`Readiness`; None for none.
        """
        if events == READABLE and self._reading and self._state is _OPEN:  # the usual case
            return self._read_ready()
        watched = self._watched
        if events & ~(READABLE | WRITABLE):
            events |= watched
        if self._state is _SHUTDOWN:
            if watched & WRITABLE:
                self._end_tls()
            else:
                self._drop_received()
            return None
        if events & watched & WRITABLE:
            if self._turned == WRITABLE:
                self._turned = 0
                events |= READABLE
            self._go_on_writing()
        if events & READABLE:
            if self._state is _OPEN and self._reading:
                return self._read_ready()
            if self._turned == READABLE:
                self._turned = 0
                self._go_on_writing()
            elif self._state is not _SHUTDOWN:
                self._wait_for(self._watched & ~READABLE)
        return None

    # ------------------------------------------------------------------ reading

    def _read_ready(self) -> Callable[[], None] | None:
        """Read. Return a function that gives the bytes to the protocol; None if they are given already."""
        if self._unsent and self._peer_ended():
            self._ended = True  # do not let OpenSSL read the end: it would then refuse to send the rest
            self.close()
            return None
        try:
            data = self._read(_RECORD)
            if len(data) == _RECORD < self.max_size:
                data = self._read_more(data)
        except ssl.SSLWantReadError:  # a part of a record, or one that has no content
            if self._turned == READABLE:
                self._turned = 0
                self._go_on_writing()
            return None
        except ssl.SSLWantWriteError:
            self._turned = WRITABLE
            self._wait_for(self._watched | WRITABLE)
            return None
        except ssl.SSLEOFError:
            self._finish(None)
            return None
        except OSError as exc:
            self._finish(exc)
            return None
        if data and len(data) < _LITTLE and not self._turned:
            self._received = data
            return self._deliver
        try:
            if data:
                self._protocol.data_received(data)
            else:
                self._ended = True
            if self._ended and self._state is _OPEN:
                self._protocol.eof_received()
                self.close()
        except Exception as exc:
            self._fail(exc)
        if self._turned == READABLE:
            self._turned = 0
            self._go_on_writing()
        return None

    def _deliver(self) -> None:
        """Give the protocol the bytes that were read, unless another connection has ended this one meanwhile."""
        data, self._received = self._received, b""
        if self._state is _OPEN:
            try:
                self._protocol.data_received(data)
            except Exception as exc:
                self._fail(exc)

    def _read_more(self, data: bytes) -> bytes:
        """Return *data* with the records behind it, as much as may be read in one turn."""
        parts = [data]
        size = len(data)
        try:
            while len(data) == _RECORD and size < self.max_size:
                data = self._read(_RECORD)
                parts.append(data)
                size += len(data)
                self._ended = not data
        except OSError:
            pass  # nothing more yet; a real error comes again at the next read
        return b"".join(parts)

    def _peer_ended(self) -> bool:
        """Tell whether the peer has ended TCP, with no unread byte left."""
        try:
            return not socket.socket.recv(self._sock, 1, socket.MSG_PEEK)
        except OSError:
            return False

    def pause_reading(self) -> None:
        """Read nothing until :meth:`resume_reading`. Bytes that this turn of the loop has read are still delivered."""
        # The watched events change only when bytes arrive: most pauses are over before that.
        self._reading = False

    def resume_reading(self) -> None:
        """Read again."""
        if not self._reading and self._state is _OPEN:
            self._reading = True
            self._wait_for(self._watched | READABLE)

    def is_reading(self) -> bool:
        """Tell whether the transport reads."""
        return self._reading and self._state is _OPEN

    # ------------------------------------------------------------------ writing

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send *data*, or keep what the system does not take now. After :meth:`close` it is dropped."""
        if self._state is not _OPEN or not data:
            return
        if not isinstance(data, bytes):
            data = bytes(data)
        if not self._unsent and len(data) <= _PIECE:
            try:
                sent = self._write(data)
            except ssl.SSLWantWriteError:
                sent = 0
            except ssl.SSLWantReadError:
                self._turned = READABLE
                sent = 0
            except OSError as exc:
                self._finish(_as_loss(exc))
                return
            if sent == len(data):
                return
            if self._turned != READABLE:
                self._wait_for(self._watched | WRITABLE)
            self._keep(data[sent:])
        elif self._unsent:
            self._keep(data)
        else:
            self._unsent.append(data)
            self._unsent_size = len(data)
            self._go_on_writing()
            self._pause_protocol()

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        """Send the parts as one: small ones share a record."""
        self.write(b"".join(list_of_data))

    def _keep(self, data: bytes) -> None:
        self._unsent.append(data)
        self._unsent_size += len(data)
        self._pause_protocol()

    def _go_on_writing(self) -> None:
        """Send the kept bytes, until the system takes no more, or the limit of this turn of the loop is reached."""
        if self._state is _CLOSED:
            return
        unsent = self._unsent
        left = _PER_TURN
        try:
            while unsent and left > 0:
                data = unsent[0]
                # After an error that asks for another try, OpenSSL has to be given the same bytes again.
                piece = data if len(data) <= _PIECE else memoryview(data)[:_PIECE]
                sent = self._write(piece)
                left -= sent
                self._unsent_size -= sent
                if sent == len(data):
                    unsent.popleft()
                else:
                    unsent[0] = memoryview(data)[sent:]
        except ssl.SSLWantWriteError:
            pass
        except ssl.SSLWantReadError:
            self._turned = READABLE
        except OSError as exc:
            self._finish(_as_loss(exc))
            return
        if unsent and self._turned == READABLE:
            self._wait_for((self._watched | READABLE) & ~WRITABLE)
        elif unsent or self._turned == WRITABLE:
            self._wait_for(self._watched | WRITABLE)
        else:
            self._wait_for(self._watched & ~WRITABLE)
        if self._writing_paused and self._unsent_size <= self._low:
            self._writing_paused = False
            self._call(self._protocol.resume_writing)
        if not self._unsent and self._state is _FLUSHING:
            self._end_tls()

    def _pause_protocol(self) -> None:
        if not self._writing_paused and self._unsent_size > self._high and self._protocol is not None:
            self._writing_paused = True
            self._call(self._protocol.pause_writing)

    def _call(self, function: Callable[[], None]) -> None:
        try:
            function()
        except Exception:
            app_log.exception("Uncaught exception in %r", function)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Set how many bytes (of content) may wait before the protocol's ``pause_writing`` is called.

        Args:
            high: Beyond it, the protocol is paused; None for four times *low*, or 64 KiB.
            low: With so many or fewer, it goes on; None for a quarter of *high*.

        Raises:
            ValueError: *low* is negative or more than *high*.
        """
        if high is None:
            high = 65536 if low is None else 4 * low
        if low is None:
            low = high // 4
        if not high >= low >= 0:
            raise ValueError(f"high ({high!r}) must be >= low ({low!r}) must be >= 0")
        self._high, self._low = high, low
        self._pause_protocol()

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """Return the limits, the low one first."""
        return self._low, self._high

    def get_write_buffer_size(self) -> int:
        """Return how many bytes (of content) wait to be sent."""
        return self._unsent_size

    def can_write_eof(self) -> bool:
        """Return False: TLS ends in both directions at once here."""
        return False

    def write_eof(self) -> None:
        """Refuse to end one direction.

        Raises:
            NotImplementedError: Always.
        """
        raise NotImplementedError("TLS ends in both directions at once")

    # ------------------------------------------------------------------ the end

    def is_closing(self) -> bool:
        """Tell whether the transport ends, or has ended."""
        return self._state is not _OPEN

    def close(self) -> None:
        """Send the kept bytes and then close_notify, wait for the peer's (RFC 8446 section 6.1), and end."""
        if self._state is not _OPEN:
            return
        self._state = _FLUSHING
        if not self._unsent:
            self._end_tls()
        elif self._turned != READABLE:
            self._wait_for(WRITABLE)

    def _end_tls(self) -> None:
        """Send close_notify. Drop what the peer still sends, until its close_notify comes or its time is over."""
        if self._state is _FLUSHING:
            self._state = _SHUTDOWN
            self._timer = self._loop.call_later(self._shutdown_timeout, self.abort)
        try:
            self._shutdown()
        except ssl.SSLWantWriteError:
            self._wait_for(WRITABLE)
        except ssl.SSLError:  # usually: the peer's close_notify is missing; a real error comes again at a read
            if self._ended:
                self._finish(None)
            else:
                self._wait_for(READABLE)
        except OSError:
            self._finish(None)
        else:
            self._finish(None)

    def _drop_received(self) -> None:
        """Read and drop what the peer sends. End when it has sent close_notify, or is gone."""
        try:
            for _ in range(_PER_TURN // _RECORD):
                if not self._read(_RECORD):
                    break
            else:
                return
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return
        except OSError:
            pass
        self._finish(None)

    def abort(self) -> None:
        """End at once and drop the kept bytes."""
        self._finish(None)

    def _force_close(self, exc: Exception | None) -> None:
        """End at once. asyncio calls this if TLS within this TLS fails."""
        self._finish(exc)

    def _fail(self, exc: Exception) -> None:
        app_log.error("Uncaught exception in %r", self._protocol, exc_info=traceback_of(exc))
        self._finish(exc)

    def _finish(self, exc: Exception | None) -> None:
        """End: nothing more is read or written. The protocol is told in the next turn of the loop."""
        if self._state is _CLOSED:
            return
        self._state = _CLOSED
        self._wait_for(0)
        self._unsent.clear()
        self._unsent_size = 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._loop.call_soon(self._lost, exc)

    def _lost(self, exc: Exception | None) -> None:
        protocol, self._protocol = self._protocol, None
        try:
            if protocol is not None:
                protocol.connection_lost(exc)
        finally:
            self._sock.close()

    # ------------------------------------------------------------------ what is known

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Give what is received from now on to *protocol*."""
        self._protocol = Filled(protocol) if isinstance(protocol, asyncio.BufferedProtocol) else protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Return the protocol."""
        protocol: asyncio.BaseProtocol = self._protocol
        return protocol.protocol if isinstance(protocol, Filled) else protocol

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return what asyncio's transports with TLS know under *name*; *default* for other names."""
        sock = self._sock
        if name == "ssl_object":
            return sock
        if name == "sslcontext":
            return sock.context
        if name == "socket":
            return TransportSocket(sock)
        if name == "peername":
            return self._address
        with contextlib.suppress(OSError, ValueError):  # the socket is closed
            if name == "sockname":
                return sock.getsockname()
            if name == "peercert":
                return sock.getpeercert()
            if name == "cipher":
                return sock.cipher()
            if name == "compression":
                return sock.compression()
        return default


def _as_loss(exc: OSError) -> OSError:
    """Return the error of a write as sockets without TLS raise it."""
    return BrokenPipeError("the peer has left") if isinstance(exc, ssl.SSLEOFError) else exc
