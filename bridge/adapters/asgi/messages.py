"""Explains what is wrong with an invalid ASGI message, in the specification's words.

Messages are not checked before they are acted on, since nearly all are valid. When one has failed, the message is
examined, and the application gets an error that names the key.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from bridge.errors import LocalProtocolError

if TYPE_CHECKING:
    from bridge.adapters.asgi.types import Message

__all__ = ["MESSAGE_ERRORS", "as_bytes", "explain"]

#: What the code that acts on a message raises when a key is missing or a value has a wrong type.
MESSAGE_ERRORS = (AttributeError, KeyError, TypeError, ValueError)


class _Key(NamedTuple):
    """What the specification says of one key of a message."""

    name: str
    type: type  # list stands for pairs of bytes in any iterable, tuple for bytes in any iterable
    word: str  # what the value should be, for the error
    required: bool = False
    may_be_none: bool = False


_STATUS = _Key("status", int, "int", required=True)
_BODY = _Key("body", bytes, "bytes")
_FIELDS = _Key("headers", list, "pairs of bytes")
_KEYS: dict[object, tuple[_Key, ...]] = {
    "http.response.start": (_STATUS, _FIELDS),
    "http.response.body": (_BODY,),
    "http.response.trailers": (_FIELDS,),
    "http.response.early_hint": (_Key("links", tuple, "byte strings", required=True),),
    "http.response.pathsend": (_Key("path", str, "str", required=True),),
    "websocket.accept": (
        _Key("subprotocol", str, "str", may_be_none=True),
        _Key("headers", list, "pairs of bytes", may_be_none=True),
    ),
    "websocket.send": (
        _Key("bytes", bytes, "bytes", may_be_none=True),
        _Key("text", str, "str", may_be_none=True),
    ),
    "websocket.close": (
        _Key("code", int, "int", may_be_none=True),
        _Key("reason", str, "str", may_be_none=True),
    ),
    "websocket.http.response.start": (_STATUS, _FIELDS),
    "websocket.http.response.body": (_BODY,),
}


def as_bytes(kind: str, value: Any, key: str = "body") -> bytes:
    """Return a copy of a bytearray or a memoryview as ``bytes``.

    The application may change the original after it was sent. And the length of a view counts items, not bytes.

    Args:
        kind: The message's type, for the error.
        value: The value of *key*.
        key: The key, for the error.

    Raises:
        LocalProtocolError: *value* is something else.
    """
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    raise LocalProtocolError(f"{kind}: {key!r} is {_class_of(value)}, not bytes")


def explain(message: Message, exc: Exception) -> None:
    """Raise an error that says what is wrong with *message*; return if *exc* is not the message's fault.

    Args:
        message: What the application has sent.
        exc: What acting on it has raised: LocalProtocolError, or one of MESSAGE_ERRORS.

    Raises:
        LocalProtocolError: The error names the message, and the key if one is wrong.
    """
    if isinstance(exc, LocalProtocolError):
        kind = message["type"]
        if str(kind) in str(exc):
            return
        raise LocalProtocolError(f"{kind}: {exc}") from exc.__cause__
    if not isinstance(message, Mapping):
        raise LocalProtocolError(f"an ASGI message is a dictionary, not {_class_of(message)}") from exc
    if "type" not in message:
        raise LocalProtocolError(f"ASGI message without 'type': {message!r:.80}") from exc
    kind = message["type"]
    for key in _KEYS.get(kind, ()) if isinstance(kind, str) else ():
        if key.name not in message:
            if key.required:
                raise LocalProtocolError(f"{kind} without {key.name!r}") from exc
            continue
        value = message[key.name]
        if value is None and key.may_be_none:
            continue
        if not _is_valid(value, key):
            found = f"{value!r:.80}" if key.type in {list, tuple} else _class_of(value)
            raise LocalProtocolError(f"{kind}: {key.name!r} is {found}, not {key.word}") from exc


def _is_valid(value: Any, key: _Key) -> bool:
    if key.type is list:
        return isinstance(value, Iterable) and all(_is_pair(pair) for pair in value)
    if key.type is tuple:
        return isinstance(value, Iterable) and all(isinstance(item, bytes) for item in value)
    return isinstance(value, key.type)


def _is_pair(pair: Any) -> bool:
    try:
        name, value = pair
    except (TypeError, ValueError):
        return False
    return isinstance(name, bytes) and isinstance(value, bytes)


def _class_of(value: object) -> str:
    return "None" if value is None else type(value).__name__
