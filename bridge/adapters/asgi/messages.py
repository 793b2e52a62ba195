"""What the specifications say of the messages that applications send, for those that do otherwise.

Messages are not looked at before they are acted on: nearly all are right. When one has failed, this tells what was
wrong with it, in the words of the specification and not of the code that stumbled.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from bridge.errors import LocalProtocolError

if TYPE_CHECKING:
    from bridge.adapters.asgi.types import Message

__all__ = ["STUMBLES", "judge", "octets"]

#: What acting on a message may raise that has a missing key, or a value of a wrong type.
STUMBLES = (AttributeError, KeyError, TypeError, ValueError)


class _Key(NamedTuple):
    name: str
    type: type
    word: str
    required: bool = False
    may_be_none: bool = False


_STATUS = _Key("status", int, "int", required=True)
_BODY = _Key("body", bytes, "bytes")
_FIELDS = _Key("headers", list, "pairs of bytes")  # any iterable of pairs
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


def octets(kind: str, value: Any, key: str = "body") -> bytes:
    """Return the bytes of a value that is no ``bytes``: of a bytearray or a memoryview.

    A copy, since an application may go on to change what it has sent; and a view counts items where we count bytes.

    Raises:
        LocalProtocolError: It is something else.
    """
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    raise LocalProtocolError(f"{kind}: {key!r} is {_class_of(value)}, not bytes")


def judge(message: Message, exc: Exception) -> None:
    """Say what is wrong with *message*, on which *exc* was raised; return if it is not the message's fault.

    Raises:
        LocalProtocolError: Names the message and the key.
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
        if not _is_right(value, key):
            found = f"{value!r:.80}" if key.type in {list, tuple} else _class_of(value)
            raise LocalProtocolError(f"{kind}: {key.name!r} is {found}, not {key.word}") from exc


def _is_right(value: Any, key: _Key) -> bool:
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
