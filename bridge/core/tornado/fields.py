"""Fields of outgoing messages as Tornado's programs give them: text, in whatever holds it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from bridge.core.tornado.headers import HTTPHeaders
from bridge.core.tornado.startline import HTTPOutputError

__all__ = ["IllegalFieldError", "text_fields"]


class IllegalFieldError(HTTPOutputError, ValueError):
    """A message's status, reason or field cannot be sent; nothing was."""


def text_fields(headers: Any) -> Iterable[tuple[str, str]]:
    """Return the field lines of *headers*, which is an HTTPHeaders of ours, has ``get_all``, or is a mapping."""
    if headers.__class__ is HTTPHeaders:
        return headers.pairs()
    get_all = getattr(headers, "get_all", None)
    fields: Iterable[tuple[str, str]] = headers.items() if get_all is None else get_all()
    return fields
