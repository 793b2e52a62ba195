"""The two state machines of an HTTP/1 connection, reading requests and writing a response, each as a table.

A state has an attribute for each event that may happen in it; its value is the next state. Code changes a state only
by such an attribute: ``self.reading = self.reading.head_complete``. An event that the table does not have raises
AttributeError. A method in place of the assignment would cost a call for each of a request's three changes of state:
2 % of a plain request (``python -m benchmarks.instructions plaintext``).

``docs/architecture.md`` has the same tables; a test compares them.
"""

from __future__ import annotations

__all__ = [
    "CLOSED",
    "CONTENT",
    "DONE",
    "HEAD",
    "READING_TABLE",
    "READ_CLOSED",
    "READ_CONTENT",
    "READ_DISCARD",
    "READ_DONE",
    "READ_HEAD",
    "READ_SWITCHED",
    "WRITING_TABLE",
    "Reading",
    "Writing",
]


class _State:
    """A state of a machine.

    Attributes:
        name: The state's name in messages and in the documentation.
        meaning: What is true while the machine is in this state.
    """

    __slots__ = ("meaning", "name")

    def __init__(self, name: str, meaning: str) -> None:
        self.name = name
        self.meaning = meaning

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"


class Reading(_State):
    """A state of reading requests. Its attributes are the events."""

    __slots__ = (
        "close",
        "content_complete",
        "head_complete",
        "head_with_content",
        "linger",
        "pause",
        "respond",
        "switch",
    )

    close: Reading
    content_complete: Reading
    head_complete: Reading
    head_with_content: Reading
    linger: Reading
    pause: Reading
    respond: Reading
    switch: Reading


class Writing(_State):
    """A state of writing a response. Its attributes are the events."""

    __slots__ = ("abandon", "complete", "start")

    complete: Writing
    abandon: Writing
    start: Writing


READ_HEAD = Reading("head", "a request head is awaited or incomplete")
READ_CONTENT = Reading("content", "content is expected, or the delegate has not been told of its end")
READ_DONE = Reading("done", "the request is complete, its response is not")
READ_DISCARD = Reading("discard", "the last response was sent; bytes that still arrive are dropped for a moment")
READ_SWITCHED = Reading("switched", "101 was sent; the bytes that follow belong to another protocol")
READ_CLOSED = Reading("closed", "nothing more is read")

HEAD = Writing("head", "no byte of the final response was handed over")
CONTENT = Writing("content", "the head was handed over")
DONE = Writing("done", "the response is complete")
CLOSED = Writing("closed", "the exchange has ended without a complete response")

READING_TABLE: dict[Reading, dict[str, Reading]] = {
    READ_HEAD: {
        "head_complete": READ_DONE,
        "head_with_content": READ_CONTENT,
        "linger": READ_DISCARD,
        "close": READ_CLOSED,
    },
    READ_CONTENT: {
        "content_complete": READ_DONE,
        "linger": READ_DISCARD,
        "close": READ_CLOSED,
    },
    READ_DONE: {
        "pause": READ_CONTENT,
        "respond": READ_HEAD,
        "switch": READ_SWITCHED,
        "linger": READ_DISCARD,
        "close": READ_CLOSED,
    },
    READ_DISCARD: {"linger": READ_DISCARD, "close": READ_CLOSED},
    READ_SWITCHED: {"linger": READ_DISCARD, "close": READ_CLOSED},
    READ_CLOSED: {"close": READ_CLOSED},
}

WRITING_TABLE: dict[Writing, dict[str, Writing]] = {
    HEAD: {"start": CONTENT, "complete": DONE, "abandon": CLOSED},
    CONTENT: {"complete": DONE, "abandon": CLOSED},
    DONE: {},
    CLOSED: {"abandon": CLOSED},
}

for _table in (READING_TABLE, WRITING_TABLE):
    for _state, _events in _table.items():
        for _event, _next in _events.items():
            setattr(_state, _event, _next)
