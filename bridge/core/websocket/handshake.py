"""The opening handshake: over HTTP/1.1 (RFC 6455 section 4.2), and over HTTP/2 (RFC 8441 section 5).

It checks the request head, and returns the answer's fields.
"""

from __future__ import annotations

import re
from base64 import b64encode
from typing import TYPE_CHECKING, NamedTuple

from bridge.core.http.fields import TOKEN, list_members
from bridge.core.websocket.extensions import Offer, agree_on_deflate, parse_offers
from bridge.errors import LocalProtocolError, RequestSyntaxError

try:
    from _sha1 import sha1  # type: ignore[import-not-found]  # hashlib loads all of OpenSSL's hashes: 2 ms of CPU
except ImportError:
    from hashlib import sha1

if TYPE_CHECKING:
    from bridge.core.http.message import RequestHead
    from bridge.core.websocket.extensions import DeflateOptions, DeflateParameters

__all__ = ["Fields", "Handshake", "Refusal", "accept_fields", "accept_token", "check_handshake"]

Fields = list[tuple[bytes, bytes]]

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
# Base64 of 16 bytes. Decoders ignore four bits of the last digit. They may be set: some clients draw random digits in
# place of random bytes, which does no harm.
_KEY = re.compile(rb"[A-Za-z0-9+/]{22}==")


class Refusal(NamedTuple):
    """The answer to a request that is not a valid handshake.

    Attributes:
        status: 400, or 426 for another version of the protocol.
        fields: (name, value) pairs that the answer must have.
        message: The fault, for the log and the answer's content.
    """

    status: int
    fields: Fields
    message: str


class Handshake(NamedTuple):
    """A valid handshake, waiting for the application's answer.

    Attributes:
        accept: The value of Sec-WebSocket-Accept; empty over HTTP/2, which has no such field.
        subprotocols: The subprotocols that the client offers, in its order of preference, without repetitions.
        deflate: The parameters of permessage-deflate; None if it is not used.
    """

    accept: bytes
    subprotocols: list[str]
    deflate: DeflateParameters | None


def accept_token(key: bytes) -> bytes:
    """Return the value of Sec-WebSocket-Accept for the client's key (section 4.2.2)."""
    # The RFC prescribes SHA-1, only to show that the server understands the protocol. No secret depends on it.
    return b64encode(sha1(key + _GUID, usedforsecurity=False).digest())


def check_handshake(head: RequestHead, options: DeflateOptions | None = None) -> Handshake | Refusal | None:
    """Check a request that asks for a WebSocket: by an upgrade (section 4.2.1), or by an extended CONNECT (RFC 8441).

    Args:
        head: The request's head.
        options: The terms for permessage-deflate; None to refuse it.

    Returns:
        A Handshake if the request is valid, a Refusal if it is not; None if it asks for no WebSocket. An upgrade to
        another protocol, by another method or in HTTP/1.0 is ignored (RFC 9110 section 7.8): the request is ordinary.
    """
    line = head.line
    newer = line.version == b"2"
    asked = b"websocket" in list_members([head.upgrade])
    if newer:
        if line.method != b"CONNECT" or not asked:
            return _bad_request("not an extended CONNECT for websocket")
    elif not asked or line.method != b"GET" or line.version != b"1.1":
        return None
    if head.content_length != 0:
        # Frames follow the head at once. Content before them would let server and proxy disagree where they begin.
        return _bad_request("content in a handshake")
    keys: list[bytes] = []
    versions: list[bytes] = []
    protocols: list[bytes] = []
    offers: list[Offer] = []
    try:
        for name, value in head.fields:
            if name == b"sec-websocket-key":
                keys.append(value)
            elif name == b"sec-websocket-version":
                versions.append(value)
            elif name == b"sec-websocket-protocol":
                protocols += _parse_subprotocols(value)
            elif name == b"sec-websocket-extensions":
                offers += parse_offers(value)
    except RequestSyntaxError as exc:
        return _bad_request(str(exc))
    if versions != [b"13"] and newer:
        return Refusal(400, [(b"sec-websocket-version", b"13")], "version of WebSocket is not 13")
    if versions != [b"13"]:
        # RFC 9110 section 15.5.22: 426 names the protocol to upgrade to.
        fields = [(b"upgrade", b"websocket"), (b"connection", b"Upgrade"), (b"sec-websocket-version", b"13")]
        return Refusal(426, fields, "version of WebSocket is not 13")
    if not newer and (len(keys) != 1 or _KEY.fullmatch(keys[0]) is None):
        return _bad_request("not exactly one valid sec-websocket-key")
    return Handshake(
        accept=b"" if newer else accept_token(keys[0]),
        subprotocols=[protocol.decode("ascii") for protocol in dict.fromkeys(protocols)],
        deflate=None if options is None else agree_on_deflate(offers, options),
    )


def accept_fields(handshake: Handshake, subprotocol: str | None = None) -> Fields:
    """Return the (name, value) pairs that the answer must have: a 101 (section 4.2.2), or over HTTP/2 a 200.

    Args:
        handshake: The client's valid handshake.
        subprotocol: One of the subprotocols that the client offers; None for none.

    Raises:
        LocalProtocolError: The client did not offer *subprotocol*, so it would have to fail the connection.
    """
    fields = []
    if handshake.accept:
        fields += [
            (b"upgrade", b"websocket"),
            (b"connection", b"Upgrade"),
            (b"sec-websocket-accept", handshake.accept),
        ]
    if subprotocol is not None:
        if subprotocol not in handshake.subprotocols:
            raise LocalProtocolError(f"subprotocol {subprotocol[:80]!r} was not offered")
        fields.append((b"sec-websocket-protocol", subprotocol.encode("ascii")))
    if handshake.deflate is not None:
        fields.append((b"sec-websocket-extensions", handshake.deflate.to_field()))
    return fields


def _parse_subprotocols(value: bytes) -> list[bytes]:
    """Return the members of one field line without empty ones (RFC 9110 section 5.6.1).

    Not by list_members: the names of subprotocols are case-sensitive.

    Raises:
        RequestSyntaxError: A member is not a token.
    """
    protocols = [member for part in value.split(b",") if (member := part.strip(b" \t"))]
    for protocol in protocols:
        if TOKEN.fullmatch(protocol) is None:
            raise RequestSyntaxError(f"subprotocol {protocol[:80]!r}")
    return protocols


def _bad_request(message: str) -> Refusal:
    return Refusal(400, [], message)
