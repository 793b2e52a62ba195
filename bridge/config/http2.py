"""The settings for the versions of HTTP and for HTTP/2, a part of the table in `bridge.config.settings`."""

from __future__ import annotations

from bridge.config.budgets import BudgetsConfig
from bridge.config.kinds import SIZE, choice, off_or, seconds, whole, words
from bridge.config.table import setting
from bridge.errors import ConfigError

__all__ = ["HTTP2", "HTTP2Config"]

HTTP2 = "HTTP/2"

KIB = 1 << 10
MIB = 1 << 20
#: Bytes: a window that every stream begins with (RFC 9113 section 6.9.2), and the largest that there can be.
FIRST_WINDOW = 65_535
LARGEST_WINDOW = (1 << 31) - 1


class HTTP2Config(BudgetsConfig):
    """Which versions of HTTP are served, to whom, and how much one connection of HTTP/2 may use."""

    http_protocols: tuple[str, ...] = setting(
        HTTP2,
        words("VERSIONS", "a list of h2 and h1", "h2", "h1"),
        ("h2", "h1"),
        "the versions of HTTP that are served, the preferred one first: h2 is HTTP/2, h1 is HTTP/1.1 and HTTP/1.0",
    )
    http2_cleartext: str = setting(
        HTTP2,
        choice("WHO", "off", "trusted", "on"),
        "trusted",
        "who may speak HTTP/2 without TLS, by prior knowledge: CHOICES; trusted means the peers of"
        " --forwarded-allow-ips",
    )
    http2_max_concurrent_streams: int = setting(
        HTTP2,
        whole(1, 1_000_000),
        128,
        "how many requests may be in progress on one connection; more are refused with REFUSED_STREAM",
    )
    http2_max_stream_window: int = setting(
        HTTP2,
        SIZE,
        MIB,
        "the largest window of one upload; it starts at 65535 bytes; a larger one makes uploads faster over long"
        " distances",
    )
    http2_max_header_list_size: int = setting(
        HTTP2,
        SIZE,
        32 * KIB,
        "the largest head of a request, decoded, plus 32 bytes for each field; a larger one is answered 431",
    )
    http2_ping_interval: float | None = setting(
        HTTP2,
        off_or(seconds()),
        None,
        "the time between two pings to a client that sends nothing; if it does not answer, the connection is closed",
    )

    @property
    def serves_http1(self) -> bool:
        """HTTP/1.1 and HTTP/1.0 are served."""
        return "h1" in self.http_protocols

    @property
    def serves_http2(self) -> bool:
        """HTTP/2 is served, at least over TLS."""
        return "h2" in self.http_protocols

    def check_http2(self, tls: bool) -> None:
        """Raise ConfigError for settings of this table that contradict each other.

        Args:
            tls: The server speaks TLS.
        """
        if not self.serves_http1 and self.http2_cleartext == "off" and not tls:
            raise ConfigError(
                "--http-protocols: 'h2' alone, without TLS, needs --http2-cleartext trusted or on:"
                " otherwise no request could be answered"
            )
        window = self.http2_max_stream_window
        if not FIRST_WINDOW <= window <= LARGEST_WINDOW:
            raise ConfigError(
                f"--http2-max-stream-window: {window} bytes are not from {FIRST_WINDOW} to {LARGEST_WINDOW}"
                " (RFC 9113 section 6.9)"
            )
