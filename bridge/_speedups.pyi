"""The compiled functions, which are in _speedups.c. Only bridge.speedups imports them."""

from typing import Any

REVISION: int

# method, the same as text, target, path, the same as decoded text, query, whether the version is 1.1, fields, host,
# content length (None for chunked content), keep_alive, expect_continue, upgrade, bytes of the whole head
HeadValues = tuple[
    bytes,
    str,
    bytes,
    bytes,
    str,
    bytes,
    bool,
    tuple[tuple[bytes, bytes], ...],
    bytes,
    int | None,
    bool,
    bool,
    bytes,
    int,
]

def parse_head(
    buffer: bytes | bytearray, start: int, request_line: int, field_line: int, fields: int, head: int, /
) -> HeadValues | None: ...
def make_environ(
    template: dict[str, Any],
    fields: tuple[tuple[bytes, bytes], ...],
    method: str,
    path: bytes,
    query: bytes,
    target: bytes,
    protocol: str,
    /,
) -> dict[str, Any] | None: ...
def apply_mask(data: bytes | bytearray | memoryview, key: bytes, /) -> bytes: ...
def read_frame(data: bytes, position: int, room: int, /) -> tuple[int, str | bytes, int] | None: ...
def decode_fields(
    block: bytes, table: list[tuple[bytes, bytes]], size: int, capacity: int, list_size: int, /
) -> tuple[list[tuple[bytes, bytes]], list[tuple[bytes, bytes]], int, int, bool, int] | None: ...
