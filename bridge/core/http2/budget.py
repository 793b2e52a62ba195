"""What one connection may ask for without getting an answer (RFC 9113 section 10.5).

Frames that cost the server work and the peer nothing are legal. A client sends few of them between the responses that
it waits for; an attacker sends nothing else. So each of these frames spends a little of the peer's budget. Each
complete response gives a little back. So does content that is sent, since a client acknowledges it with window updates,
and some clients measure it with PING.
"""

from __future__ import annotations

from bridge.core.http2.codes import ENHANCE_YOUR_CALM, ConnectionFault
from bridge.core.http2.frames import PING, SETTINGS

__all__ = ["Budget"]

RESETS_MAX = 200
GLITCHES_MAX = 1000
# How many glitches are forgiven every second, so that an honest client may send PINGs all day long.
GLITCHES_PER_SECOND = 20.0
# Bytes of content that pay for a glitch. HAProxy 2.6 sends two window updates of 64 bytes for each 16 KiB, gRPC a PING.
BYTES_PER_GLITCH = 2048
# How many glitches a piece of content pays for if it was sent whole, however small it is: gRPC acknowledges each of its
# messages. A piece that the peer's window has cut pays only by its bytes; otherwise windows of one byte would pay for
# themselves.
GLITCHES_PER_PIECE = 2
# Window updates that a complete response pays for besides: HAProxy 2.6 acknowledges each, however small it is and
# although its stream has ended, on the stream and on the connection. A busy HAProxy was cut off after 850 requests.
UPDATES_PER_RESPONSE = 2
# PING and SETTINGS frames that are free.
FREE_CONTROL_FRAMES = 10


class Budget:
    """Counts what a peer spends, and raises when it has spent everything.

    Attributes:
        answered: Complete responses of the connection. The connection counts them here.
        pieces: Pieces of content that were ever sent and that no window has cut. The connection sets this and ``sent``
            before it spends a glitch.
        sent: Bytes of content that were ever sent.
    """

    __slots__ = (
        *("_control_frames", "_glitches", "_glitches_answered", "_glitches_pieces", "_glitches_sent", "_resets"),
        *("_resets_answered", "_since", "_updates", "answered", "pieces", "sent"),
    )

    def __init__(self, now: float = 0.0) -> None:
        self.answered = 0
        self.sent = 0
        self.pieces = 0
        self._control_frames = FREE_CONTROL_FRAMES
        self._resets = RESETS_MAX
        self._resets_answered = 0  # when resets were last spent
        self._glitches = float(GLITCHES_MAX)
        self._glitches_answered = 0
        self._glitches_sent = 0
        self._glitches_pieces = 0
        self._since = now
        self._updates = 0  # window updates that responses have paid for

    def spend_reset(self) -> None:
        """Count a stream that ended before its response was complete, because of the peer.

        It makes no difference who has sent RST_STREAM: a peer can also provoke it (CVE-2023-44487, CVE-2025-8671).

        Raises:
            ConnectionFault: ENHANCE_YOUR_CALM.
        """
        answered = self.answered
        self._resets = min(RESETS_MAX, self._resets + answered - self._resets_answered) - 1
        self._resets_answered = answered
        if self._resets < 0:
            raise ConnectionFault(
                ENHANCE_YOUR_CALM, f"{RESETS_MAX} streams more were reset than answered (RFC 9113 section 10.5)"
            )

    def spend_glitch(self, now: float, count: int = 1) -> None:
        """Count a glitch: something that a client seldom has a reason to send, such as an empty DATA frame.

        Args:
            now: The time in seconds, from the same clock as at the beginning.
            count: How much it costs.

        Raises:
            ConnectionFault: ENHANCE_YOUR_CALM.
        """
        answered = self.answered
        refill = (
            answered
            - self._glitches_answered
            + (self.sent - self._glitches_sent) / BYTES_PER_GLITCH
            + (self.pieces - self._glitches_pieces) * GLITCHES_PER_PIECE
            + (now - self._since) * GLITCHES_PER_SECOND
        )
        self._glitches = min(GLITCHES_MAX, self._glitches + refill) - count
        self._glitches_answered = answered
        self._glitches_sent = self.sent
        self._glitches_pieces = self.pieces
        self._since = now
        if self._glitches < 0:
            raise ConnectionFault(
                ENHANCE_YOUR_CALM, f"more than {GLITCHES_MAX} frames without use (RFC 9113 section 10.5)"
            )

    def spend_update(self, now: float) -> None:
        """Count a window update that opens little, or the window of a stream that has ended.

        Raises:
            ConnectionFault: ENHANCE_YOUR_CALM.
        """
        paid = self.answered * UPDATES_PER_RESPONSE
        self._updates = max(self._updates, paid - GLITCHES_MAX)  # no client saves up for a flood
        if self._updates < paid:
            self._updates += 1
        else:
            self.spend_glitch(now)

    def spend_frame(self, kind: int, now: float) -> None:
        """Count a frame of a kind that is a glitch if it comes often: the first few PING and SETTINGS frames are free.

        Raises:
            ConnectionFault: ENHANCE_YOUR_CALM.
        """
        if self._control_frames and kind in {PING, SETTINGS}:
            self._control_frames -= 1
        else:
            self.spend_glitch(now)
