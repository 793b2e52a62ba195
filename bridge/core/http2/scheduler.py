"""The order in which streams send (RFC 9218): urgency, and turns for those that may be sent in parallel."""

from __future__ import annotations

import re
from typing import Final, Generic, Protocol, TypeVar

from bridge.core.http.cache import remember

__all__ = ["DEFAULT_PRIORITY", "Scheduler", "parse_priority"]

Priority = tuple[int, bool]

DEFAULT_PRIORITY: Final[Priority] = (3, True)
"""Urgency and whether incremental, of a request that says nothing.

By RFC 9218 section 4.2 it would not be incremental. But behind a reverse proxy all requests of a connection belong to
different people, who should not wait for each other.
"""

_MEMBER = re.compile(rb"[ \t]*(?:u=([0-7])|(i)(?:=\?([01]))?)(?:[ \t]*;[^,]*)?[ \t]*")
# Values seldom differ: a browser sends about eight of them.
_KNOWN_MAX = 64
_KNOWN_LENGTH_MAX = 32
_known: dict[bytes, Priority] = {}


def parse_priority(value: bytes) -> Priority:
    """Return urgency (0 is sent first, 7 last) and whether incremental, of a priority field's value (section 4).

    Parameters and values that are not understood are ignored.
    """
    priority = _known.get(value)
    if priority is None:
        urgency, incremental = 3, False
        for part in value[:256].split(b","):
            match = _MEMBER.fullmatch(part)
            if match is not None:
                if match[1]:
                    urgency = int(match[1])
                else:
                    incremental = match[3] != b"0"
        priority = urgency, incremental
        if len(value) <= _KNOWN_LENGTH_MAX:
            remember(_known, value, priority, _KNOWN_MAX)
    return priority


class Scheduled(Protocol):
    """A stream with something to send and room in its window."""

    stream_id: int
    urgency: int
    """0 is sent first, 7 last."""
    incremental: bool
    """Whether it is sent in turns with others of its urgency, a frame each."""


Stream = TypeVar("Stream", bound=Scheduled)


class _Level(Generic[Stream]):
    """The streams of one urgency."""

    __slots__ = ("sequential", "turns")

    def __init__(self) -> None:
        self.turns: dict[int, Stream | None] = {}  # in order of their turns; _SEQUENTIAL for all that are below
        self.sequential: dict[int, Stream] = {}  # one after the other, by id


# The turn of the streams that are not incremental: no stream has this identifier.
_SEQUENTIAL = 0


class Scheduler(Generic[Stream]):
    """Says which stream sends the next frame (RFC 9218 section 10).

    The lowest urgency comes first. Within one, incremental streams take turns. Those that are not incremental are sent
    one after the other, by id, and have one turn together. Only streams that can send are in here: one that has sent
    all, or has no window left, is removed.

    A stream is any object with ``stream_id``, ``urgency`` and ``incremental``. While it is in the scheduler, only
    :meth:`reprioritise` may change these.
    """

    __slots__ = ("_levels", "_streams")

    def __init__(self) -> None:
        self._levels: dict[int, _Level[Stream]] = {}
        self._streams: dict[int, Stream] = {}

    def __len__(self) -> int:
        return len(self._streams)

    def __contains__(self, stream: Stream) -> bool:
        return stream.stream_id in self._streams

    def add(self, stream: Stream) -> None:
        """Let *stream* send. Its turn comes behind those of the others. It may be in here already."""
        identifier = stream.stream_id
        if identifier in self._streams:
            return
        self._streams[identifier] = stream
        level = self._levels.get(stream.urgency)
        if level is None:
            level = self._levels[stream.urgency] = _Level()
        if stream.incremental:
            level.turns[identifier] = stream
        else:
            level.sequential[identifier] = stream
            level.turns.setdefault(_SEQUENTIAL, None)

    def remove(self, stream: Stream) -> None:
        """Let *stream* send nothing more. It need not be in here."""
        identifier = stream.stream_id
        if self._streams.pop(identifier, None) is None:
            return
        level = self._levels[stream.urgency]
        if stream.incremental:
            del level.turns[identifier]
        else:
            del level.sequential[identifier]
            if not level.sequential:
                del level.turns[_SEQUENTIAL]
        if not level.turns:
            del self._levels[stream.urgency]

    def reprioritise(self, stream: Stream, urgency: int, incremental: bool) -> None:
        """Change the priority of *stream*, whether or not it is in here."""
        waits = stream.stream_id in self._streams
        if waits:
            self.remove(stream)
        stream.urgency = urgency
        stream.incremental = incremental
        if waits:
            self.add(stream)

    def next(self) -> Stream | None:
        """Return the stream that sends the next frame, and put it behind the others; None if no stream can send."""
        levels = self._levels
        if not levels:
            return None
        level = levels[min(levels)]
        turns = level.turns
        identifier = next(iter(turns))
        stream = turns.pop(identifier)
        turns[identifier] = stream
        return level.sequential[min(level.sequential)] if stream is None else stream
