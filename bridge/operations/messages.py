"""A request to the server itself, and the answer."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import NamedTuple
from urllib.parse import parse_qsl

from bridge.core.http.message import RequestHead

__all__ = ["FAULT", "Answer", "Request", "Respond", "as_json", "refusal"]

#: What a client is told of an exception.
FAULT = "a fault of the server's own; its log has the traceback"


class Request(NamedTuple):
    """What is asked.

    Attributes:
        method: The method.
        path: The path, decoded.
        query: The parameters behind the path. The last value of a repeated one counts.
        accept: The Accept field.
        control: It came over the control socket, whose owner may change things.
    """

    method: str
    path: str
    query: Mapping[str, str]
    accept: str
    control: bool

    @classmethod
    def of(cls, head: RequestHead, *, control: bool = False) -> Request:
        """Return *head* as a Request."""
        line = head.line
        query = dict(parse_qsl(line.query.decode("latin-1"), keep_blank_values=True))
        accept = b",".join(value for name, value in head.fields if name == b"accept").decode("latin-1")
        return cls(line.method_text, line.path_text, query, accept, control)


class Answer(NamedTuple):
    """What is answered.

    Attributes:
        status: The status code.
        content: The content.
        media_type: Its type.
        fields: More fields.
    """

    status: int
    content: bytes
    media_type: str = "text/plain; charset=utf-8"
    fields: tuple[tuple[bytes, bytes], ...] = ()


#: Takes the answer, once, at any time.
Respond = Callable[[Answer], None]


def as_json(value: object, status: int = 200) -> Answer:
    """Return *value* as the answer."""
    return Answer(status, json.dumps(value, indent=2).encode() + b"\n", "application/json")


def refusal(status: int, error: str, **more: object) -> Answer:
    """Return the answer to a request that cannot be carried out.

    Args:
        status: 400 to 599.
        error: Why, in one sentence.
        **more: What else the client should know: ``allowed``, for example.
    """
    return as_json({"error": error, **more}, status)
