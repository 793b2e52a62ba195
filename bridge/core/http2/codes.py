"""Error codes and settings of HTTP/2, and the two kinds of errors (RFC 9113 sections 5.4, 6.5.2 and 7)."""

from __future__ import annotations

from typing import Final

from bridge.errors import RemoteProtocolError

__all__ = [
    "CANCEL",
    "COMPRESSION_ERROR",
    "CONNECT_ERROR",
    "ENHANCE_YOUR_CALM",
    "FLOW_CONTROL_ERROR",
    "FRAME_SIZE_ERROR",
    "HTTP_1_1_REQUIRED",
    "INADEQUATE_SECURITY",
    "INTERNAL_ERROR",
    "NO_ERROR",
    "PROTOCOL_ERROR",
    "REFUSED_STREAM",
    "SETTINGS_ENABLE_CONNECT_PROTOCOL",
    "SETTINGS_ENABLE_PUSH",
    "SETTINGS_HEADER_TABLE_SIZE",
    "SETTINGS_INITIAL_WINDOW_SIZE",
    "SETTINGS_MAX_CONCURRENT_STREAMS",
    "SETTINGS_MAX_FRAME_SIZE",
    "SETTINGS_MAX_HEADER_LIST_SIZE",
    "SETTINGS_NO_RFC7540_PRIORITIES",
    "SETTINGS_TIMEOUT",
    "STREAM_CLOSED",
    "CompressionError",
    "ConnectionFault",
    "MalformedRequest",
    "StreamFault",
    "error_name",
]

NO_ERROR: Final = 0x0
PROTOCOL_ERROR: Final = 0x1
INTERNAL_ERROR: Final = 0x2
FLOW_CONTROL_ERROR: Final = 0x3
SETTINGS_TIMEOUT: Final = 0x4
STREAM_CLOSED: Final = 0x5
FRAME_SIZE_ERROR: Final = 0x6
REFUSED_STREAM: Final = 0x7
CANCEL: Final = 0x8
COMPRESSION_ERROR: Final = 0x9
CONNECT_ERROR: Final = 0xA
ENHANCE_YOUR_CALM: Final = 0xB
INADEQUATE_SECURITY: Final = 0xC
HTTP_1_1_REQUIRED: Final = 0xD

_ERROR_NAMES = (
    "NO_ERROR",
    "PROTOCOL_ERROR",
    "INTERNAL_ERROR",
    "FLOW_CONTROL_ERROR",
    "SETTINGS_TIMEOUT",
    "STREAM_CLOSED",
    "FRAME_SIZE_ERROR",
    "REFUSED_STREAM",
    "CANCEL",
    "COMPRESSION_ERROR",
    "CONNECT_ERROR",
    "ENHANCE_YOUR_CALM",
    "INADEQUATE_SECURITY",
    "HTTP_1_1_REQUIRED",
)

SETTINGS_HEADER_TABLE_SIZE: Final = 0x1
SETTINGS_ENABLE_PUSH: Final = 0x2
SETTINGS_MAX_CONCURRENT_STREAMS: Final = 0x3
SETTINGS_INITIAL_WINDOW_SIZE: Final = 0x4
SETTINGS_MAX_FRAME_SIZE: Final = 0x5
SETTINGS_MAX_HEADER_LIST_SIZE: Final = 0x6
SETTINGS_ENABLE_CONNECT_PROTOCOL: Final = 0x8  # RFC 8441
SETTINGS_NO_RFC7540_PRIORITIES: Final = 0x9  # RFC 9218


def error_name(code: int) -> str:
    """Return the name of an error code, for logs; a code without a name as a number."""
    return _ERROR_NAMES[code] if 0 <= code < len(_ERROR_NAMES) else f"0x{code:x}"


class ConnectionFault(RemoteProtocolError):
    """The peer broke a rule of the connection (RFC 9113 section 5.4.1): GOAWAY with ``code``, and the connection ends.

    Attributes:
        code: The error code.
    """

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class StreamFault(RemoteProtocolError):
    """The peer broke a rule of one stream (RFC 9113 section 5.4.2): RST_STREAM with ``code``; the others go on.

    Attributes:
        code: The error code.
    """

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class StreamRefused(StreamFault):
    """The server has no room for a stream, which is not its peer's fault: REFUSED_STREAM. The peer may try it again."""

    def __init__(self, message: str) -> None:
        super().__init__(REFUSED_STREAM, message)


class CompressionError(ConnectionFault):
    """A field block cannot be decoded (RFC 7541): the two tables may differ from now on, so the connection ends."""

    def __init__(self, message: str) -> None:
        super().__init__(COMPRESSION_ERROR, message)


class MalformedRequest(StreamFault):
    """A request is malformed (RFC 9113 section 8.1.1): a stream error PROTOCOL_ERROR."""

    def __init__(self, message: str) -> None:
        super().__init__(PROTOCOL_ERROR, message)
