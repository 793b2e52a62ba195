"""Sends metrics to statsd and over OTLP.

It runs in a process or a thread of its own: it may wait, and nobody waits for it.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import time
from collections.abc import Callable, Iterable
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from bridge.core.log import gen_log
from bridge.errors import ConfigError
from bridge.telemetry.metrics.otlp import Destination, payload
from bridge.telemetry.metrics.statsd import Statsd, packets

if TYPE_CHECKING:
    from bridge.config import Config
    from bridge.telemetry.metrics.collect import Family

__all__ = ["Pusher", "check"]

# Seconds between two packets for statsd.
_STATSD_INTERVAL = 1.0
# The most seconds for which a collector can ask to get nothing.
_LEFT_ALONE_MAX = 3600.0
# The statuses with which it can (OTLP 1.x, "OTLP/HTTP Throttling").
_THROTTLED = frozenset({429, 502, 503, 504})
_NEVER = float("inf")


def check(config: Config) -> None:
    """Check what the settings say of statsd and OTLP.

    Raises:
        ConfigError: It cannot be used.
    """
    if config.otlp:
        Destination.of(os.environ)
    if config.statsd is not None:
        _resolve(config.statsd)


class Pusher:
    """Sends metrics from time to time. What cannot be sent is not kept: the next time has the sums.

    Args:
        config: The settings.
        families: Returns the metrics.
        sent: Those that were sent already, of which statsd gets what is more; None for all that there are at the
            first time.

    Raises:
        ConfigError: A setting cannot be used.
    """

    def __init__(self, config: Config, families: Callable[[], list[Family]], sent: list[Family] | None = None) -> None:
        self._families = families
        self._start = time.time_ns()
        self._outages: set[str] = set()
        self._statsd: Statsd | None = None
        self._where = config.statsd or ""
        if config.statsd is not None:
            self._statsd = Statsd(config.statsd_prefix, config.dogstatsd_tags)
            if sent is not None:
                self._statsd.lines(sent)
            self._family, self._address = _resolve(config.statsd)
        self._otlp = Destination.of(os.environ) if config.otlp else None
        now = time.monotonic()
        self._next_statsd = now if self._statsd is not None else _NEVER
        self._next_otlp = now + self._otlp.interval if self._otlp is not None else _NEVER

    def run(self, ended: Callable[[float], bool]) -> None:
        """Send until *ended*, and a last time then.

        Args:
            ended: Waits for some seconds, and tells whether the server has ended.
        """
        while True:
            now = time.monotonic()
            over = ended(max(min(self._next_statsd, self._next_otlp) - now, 0.0))
            now = time.monotonic()
            if self._next_statsd <= now or (over and self._statsd is not None):
                self._next_statsd = now + _STATSD_INTERVAL
                self._try(f"--statsd {self._where}", self._send_statsd)
            if self._otlp is not None and (self._next_otlp <= now or over):
                self._next_otlp = now + self._otlp.interval
                self._try(f"--otlp {self._otlp.url}", self._send_otlp)
            if over:
                return

    def _try(self, what: str, send: Callable[[], None]) -> None:
        """Send; say once for each outage that it has failed."""
        try:
            send()
        except (OSError, http.client.HTTPException, ValueError) as exc:  # UnicodeError: the name of a host is none
            if what not in self._outages:
                self._outages.add(what)
                reason = getattr(exc, "strerror", None) or str(exc) or type(exc).__name__
                gen_log.warning("%s: %s; metrics are lost until it is back", what, reason)
        else:
            if what in self._outages:
                self._outages.discard(what)
                gen_log.info("%s is back", what)

    def _send_statsd(self) -> None:
        assert self._statsd is not None
        self._send_packets(packets(self._statsd.lines(self._families())))

    def _send_packets(self, data: Iterable[bytes]) -> None:
        with socket.socket(self._family, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            sock.connect(self._address)
            for packet in data:
                sock.send(packet)
            # UDP has no answer. If nobody listens, the next call reports it.
            with contextlib.suppress(BlockingIOError):
                time.sleep(0.01)
                sock.recv(1)

    def _send_otlp(self) -> None:
        destination = self._otlp
        assert destination is not None
        content = json.dumps(payload(self._families(), destination.resource, self._start)).encode()
        parts = urlsplit(destination.url)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        connection = kind(parts.hostname or "", parts.port, timeout=destination.timeout)
        try:
            target = parts.path + (f"?{parts.query}" if parts.query else "")
            connection.request(
                "POST", target or "/", content, {"Content-Type": "application/json", **destination.headers}
            )
            response = connection.getresponse()  # its content is not read: it may have no end
            if response.status in _THROTTLED:
                pause = _seconds(response.getheader("retry-after", ""))
                self._next_otlp = max(self._next_otlp, time.monotonic() + pause)
            if response.status >= 300:
                raise OSError(f"status {response.status}")
        finally:
            connection.close()


def _seconds(text: str) -> float:
    """Return the seconds that a field Retry-After asks for (RFC 9110 section 10.2.3); 0.0 if they cannot be read."""
    text = text.strip()
    if text.isascii() and text.isdigit():
        return min(float(text[:10]), _LEFT_ALONE_MAX)
    try:
        at = parsedate_to_datetime(text).timestamp()
    except (ValueError, OverflowError):
        return 0.0
    return min(max(at - time.time(), 0.0), _LEFT_ALONE_MAX)


def _resolve(text: str) -> tuple[int, str | tuple[str, int]]:
    """Return family and address of a statsd server."""
    if text.startswith("unix:"):
        return socket.AF_UNIX, text[5:].removeprefix("//")
    host, _, port = text.rpartition(":")
    try:
        family, _, _, _, address = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_DGRAM)[0]
    except (OSError, ValueError) as exc:
        raise ConfigError(f"--statsd {text}: {getattr(exc, 'strerror', None) or exc}") from exc
    return family, (str(address[0]), int(address[1]))
