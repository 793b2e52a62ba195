"""The compiled functions, which are in _speedups.c. Only bridge.speedups imports them."""

from typing import Any

from bridge.speedups import HeadValues

REVISION: int

def parse_head(
    buffer: bytes | bytearray, start: int, request_line: int, field_line: int, fields: int, head: int, /
) -> HeadValues | None: ...
def environ_with_fields(
    template: dict[str, Any], fields: tuple[tuple[bytes, bytes], ...], /
) -> dict[str, Any] | None: ...
def apply_mask(data: bytes | bytearray | memoryview, key: bytes, /) -> bytes: ...
def read_frame(data: bytes, position: int, room: int, /) -> tuple[int, str | bytes, int] | None: ...
