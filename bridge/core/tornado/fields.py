"""The fields of outgoing messages as Tornado's programs pass them: text, in one of several kinds of mappings."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from bridge.core.tornado.headers import HTTPHeaders
from bridge.core.tornado.startline import HTTPOutputError

__all__ = ["IllegalFieldError", "text_fields"]


class IllegalFieldError(HTTPOutputError, ValueError):
    """A message's status, reason or field is illegal. Nothing was sent."""


def text_fields(headers: Any) -> Iterable[tuple[str, str]]:
    """Return (name, value) of every field line.

    Args:
        headers: An HTTPHeaders, another object with ``get_all``, or a mapping.
    """
    if headers.__class__ is HTTPHeaders:
        return headers.pairs()
    get_all = getattr(headers, "get_all", None)
    fields: Iterable[tuple[str, str]] = headers.items() if get_all is None else get_all()
    return fields
