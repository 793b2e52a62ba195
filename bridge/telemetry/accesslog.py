"""The access log: one line for each exchange, written by a thread."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from bridge.core.connection.interfaces import Observer
from bridge.telemetry.accessrecords import records_for
from bridge.telemetry.linewriter import LineWriter, to_descriptor, to_logger
from bridge.telemetry.logformat import Format, compile_format, json_format
from bridge.telemetry.logs import AS_IT_IS, LogFile, access_logger, log_file

if TYPE_CHECKING:
    import asyncio

    from bridge.config import Config
    from bridge.core.connection.interfaces import Exchange

__all__ = ["AccessLog", "format_of"]

# Seconds after which lines are handed to the thread that writes them.
_INTERVAL = 0.1
# Nanoseconds for which pieces of lines are collected before they are joined. Joining more would block the loop.
_COLLECT = 20_000_000


def format_of(config: Config) -> Format:
    """Return the format of lines that *config* selects.

    Raises:
        ConfigError: It names an unknown atom.
    """
    if config.log_format == "json":
        return json_format(config.request_id != "off")
    return compile_format(config.access_logformat)


class AccessLog(Observer):
    """Observes exchanges and writes a line for each.

    Args:
        config: The settings.
        loop: The event loop.

    Attributes:
        exchange_ended: Adds the line of an exchange.
        file: The file that the lines go to; None if they go elsewhere.
        timed: The format has durations, so the exchanges must have ``times``.
        pieces: The texts of the lines that are not joined yet.
        stamp: The text with the time of day.
        until: The time (``time.monotonic_ns()``) at which the pieces must be joined, or the stamp is out of date.

    Raises:
        ConfigError: The format names an unknown atom, or the file cannot be written.
    """

    # The function that the format has made, not a method that calls it: this saves a call per request.
    exchange_ended: Callable[[Exchange], None]  # type: ignore[assignment]  # see the line above

    def __init__(self, config: Config, loop: asyncio.AbstractEventLoop) -> None:
        self.file: LogFile | None = None
        logger = access_logger(config.access_logfile, configured=config.log_config is not None)
        self._format = format_of(config)
        where = "standard output"
        elsewhere = config.log_config is not None or not logger.name.startswith("bridge")
        if elsewhere and (logger.hasHandlers() or config.log_config == AS_IT_IS):
            write = to_logger(logger)
            records = records_for(logger, config.access_logformat)
            if records is not None:
                self._format, write = records
            where = "--log-config"
        elif config.access_logfile == "-":
            write = to_descriptor(1)
        else:
            self.file = log_file("--access-logfile", config.access_logfile)
            write = to_descriptor(self.file.descriptor)
            where = f"--access-logfile {self.file.path}"
        self._writer = LineWriter(write, lost=_lost, failed=lambda exc: _failed(where, exc))
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None
        self._text: list[str] = []
        self._second = 0
        self._waiting: set[Exchange] = set()
        self.pieces: list[str] = []
        self.stamp = ""
        self.until = 0
        self.timed = self._format.timed
        names = [name.encode() for name in (*config.access_log_exclude, *config.own_paths)]
        self.exchange_ended = self._format.observer(
            self,
            frozenset(name for name in names if not name.endswith(b"*")),
            tuple(name[:-1] for name in names if name.endswith(b"*")),
        )

    def renew(self, now: int) -> None:
        """Join the pieces so far, and renew the time of day."""
        self._join()
        second, rest = divmod(time.time_ns(), 1_000_000_000)
        if second != self._second:
            self._second = second
            self.stamp = self._format.stamp(second)
        self.until = now + min(_COLLECT, 1_000_000_000 - rest)
        if self._timer is None:
            self._timer = self._loop.call_later(_INTERVAL, self.flush)

    def defers(self, exchange: Exchange) -> bool:
        """Return True once for each exchange: its line waits until the peer has read most of the response."""
        if exchange in self._waiting:
            return False
        self._waiting.add(exchange)

        def was_read(future: asyncio.Future[None]) -> None:
            if not future.cancelled():
                future.exception()  # asyncio would log it. The peer has left; the line says how much was sent
            self._end_wait(exchange)

        exchange.writable().add_done_callback(was_read)
        return True

    def _end_wait(self, exchange: Exchange) -> None:
        if exchange in self._waiting:
            self.exchange_ended(exchange)
            self._waiting.discard(exchange)

    def _join(self) -> None:
        if self.pieces:
            self._text.append("".join(self.pieces))
            self.pieces.clear()

    def flush(self) -> None:
        """Hand the lines over to the thread that writes them."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.until = 0
        self._join()
        if self._text:
            text, self._text = self._text, []
            self._writer.write("".join(text).encode("utf-8", "backslashreplace"))

    def reopen(self) -> None:
        """Open the file again, for the lines from now on."""
        self.flush()
        if self.file is not None and not self._writer.call(self.file.try_to_reopen):
            logging.getLogger("bridge").error(
                "%s: lines wait to be written, so the file stays the old one", self.file.path
            )

    def close(self) -> None:
        """Write all lines, also those that wait for a peer, and end the thread."""
        for exchange in tuple(self._waiting):
            self._end_wait(exchange)
        self.flush()
        self._writer.close()


def _lost(number: int) -> bytes:
    logging.getLogger("bridge").warning("%d line%s of requests lost: nothing took them", number, "s" * (number > 1))
    return b""


def _failed(where: str, exc: Exception) -> None:
    reason = getattr(exc, "strerror", None) or repr(exc)
    logging.getLogger("bridge").error("%s: %s; lines of requests are lost", where, reason)
