"""The Sec-WebSocket-Extensions field and the agreement on permessage-deflate (RFC 6455 section 9.1, RFC 7692 7.1)."""

from __future__ import annotations

import re
from typing import NamedTuple

from bridge.core.http.fields import TOKEN
from bridge.errors import ConfigError, RequestSyntaxError

__all__ = ["DeflateOptions", "DeflateParameters", "Offer", "agree_on_deflate", "parse_offers"]

# An extension's name, and (name, value) of its parameters in wire order; the value is None for a name alone.
Offer = tuple[bytes, list[tuple[bytes, bytes | None]]]

_NAME = re.compile(rb"(%b)[ \t]*" % TOKEN.pattern)
# A quoted value has to be a token without its quotes and backslashes (RFC 6455 section 9.1).
_PARAMETER = re.compile(
    rb";[ \t]*(%b)[ \t]*(?:=[ \t]*(?:(%b)|\"((?:\\?[!#$%%&'*+\-.^_`|~0-9A-Za-z])+)\")[ \t]*)?"
    % (TOKEN.pattern, TOKEN.pattern)
)
_SEPARATOR = re.compile(rb"[ \t,]*")
_WINDOW_BITS = re.compile(rb"8|9|1[0-5]")

_MIN_BITS = 9  # zlib cannot compress with a window of 8 bits


class DeflateOptions:
    """How this server compresses, and what it asks of its clients.

    Attributes:
        window_bits: Largest window in either direction, 9 to 15; a window takes 2 to the power of this in bytes.
        mem_level: zlib's memory level for sending, 1 to 9.
        level: zlib's compression level for sending, 0 to 9.
        threshold: Messages of fewer bytes are sent uncompressed: below a packet's size, compression saves no packet.
        context_takeover: Keep both windows from message to message. False needs less memory and compresses less.

    Raises:
        ConfigError: A value is out of range.
    """

    __slots__ = ("context_takeover", "level", "mem_level", "threshold", "window_bits")

    def __init__(
        self,
        window_bits: int = 12,
        mem_level: int = 5,
        level: int = 6,
        threshold: int = 1024,
        context_takeover: bool = True,
    ) -> None:
        self.window_bits = window_bits
        self.mem_level = mem_level
        self.level = level
        self.threshold = threshold
        self.context_takeover = context_takeover
        for name, low, high in (("window_bits", _MIN_BITS, 15), ("mem_level", 1, 9), ("level", 0, 9)):
            value = getattr(self, name)
            if not low <= value <= high:
                raise ConfigError(f"{name} is {value}, not {low} to {high}")
        if self.threshold < 0:
            raise ConfigError(f"threshold is {self.threshold} bytes, below 0")


class DeflateParameters(NamedTuple):
    """The parameters that both sides have agreed on for one connection (RFC 7692 section 7.1)."""

    server_no_context_takeover: bool = False
    client_no_context_takeover: bool = False
    server_max_window_bits: int = 15
    client_max_window_bits: int = 15

    def to_field(self) -> bytes:
        """Return the value of the response's Sec-WebSocket-Extensions field."""
        value = b"permessage-deflate"
        if self.server_no_context_takeover:
            value += b"; server_no_context_takeover"
        if self.client_no_context_takeover:
            value += b"; client_no_context_takeover"
        if self.server_max_window_bits < 15:
            value += b"; server_max_window_bits=%d" % self.server_max_window_bits
        if self.client_max_window_bits < 15:
            value += b"; client_max_window_bits=%d" % self.client_max_window_bits
        return value


def parse_offers(value: bytes) -> list[Offer]:
    """Return the extensions that one Sec-WebSocket-Extensions field line offers, in order of preference.

    Raises:
        RequestSyntaxError: The value does not follow the grammar, which RFC 6455 section 9.1 requires.
    """
    offers: list[Offer] = []
    position = _skip(value, 0)
    while position < len(value):
        name = _NAME.match(value, position)
        if name is None:
            raise RequestSyntaxError(f"sec-websocket-extensions {value[:80]!r}")
        position = name.end()
        parameters: list[tuple[bytes, bytes | None]] = []
        while (parameter := _PARAMETER.match(value, position)) is not None:
            key, plain, quoted = parameter.groups()
            parameters.append((key, plain if quoted is None else quoted.replace(b"\\", b"")))
            position = parameter.end()
        offers.append((name[1], parameters))
        if position < len(value) and value[position] != 0x2C:  # a comma
            raise RequestSyntaxError(f"sec-websocket-extensions {value[:80]!r}")
        position = _skip(value, position)
    return offers


def agree_on_deflate(offers: list[Offer], options: DeflateOptions) -> DeflateParameters | None:
    """Return the answer to the first acceptable offer of permessage-deflate, None if there is none.

    An offer with an unknown, repeated or invalid parameter is declined (RFC 7692 section 7.1).
    """
    for name, parameters in offers:
        if name == b"permessage-deflate":
            agreed = _answer(parameters, options)
            if agreed is not None:
                return agreed
    return None


def _answer(parameters: list[tuple[bytes, bytes | None]], options: DeflateOptions) -> DeflateParameters | None:
    """Return the answer to one offer, None to decline it."""
    offered = dict(parameters)
    if len(offered) != len(parameters):
        return None
    for name, value in parameters:
        if name in {b"server_no_context_takeover", b"client_no_context_takeover"}:
            valid = value is None
        elif name == b"server_max_window_bits":
            valid = value is not None and _WINDOW_BITS.fullmatch(value) is not None
        elif name == b"client_max_window_bits":
            valid = value is None or _WINDOW_BITS.fullmatch(value) is not None
        else:
            valid = False
        if not valid:
            return None
    server_bits = min(options.window_bits, int(offered.get(b"server_max_window_bits") or 15))
    if server_bits < _MIN_BITS:
        return None
    # The parameter may be sent only to a client that has named it (section 7.1.2.2).
    client_bits = 15
    if b"client_max_window_bits" in offered:
        client_bits = min(options.window_bits, int(offered[b"client_max_window_bits"] or 15))
    return DeflateParameters(
        server_no_context_takeover=b"server_no_context_takeover" in offered or not options.context_takeover,
        client_no_context_takeover=b"client_no_context_takeover" in offered or not options.context_takeover,
        server_max_window_bits=server_bits,
        client_max_window_bits=client_bits,
    )


def _skip(value: bytes, position: int) -> int:
    separator = _SEPARATOR.match(value, position)
    assert separator is not None  # the pattern matches the empty string
    return separator.end()
