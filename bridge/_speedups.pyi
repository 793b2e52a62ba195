"""The compiled functions, which are in _speedups.c. Only bridge.speedups imports them."""

from typing import Any

REVISION: int

# method, the same as text, target, path, the same as decoded text, query, fields with the host in front, host, content
# length (None if it is not declared), expect_continue, the value of the field priority, whether the head may be kept,
# what has become of the table: fields that were inserted, bytes of it, octets of the largest; None for nothing
RequestValues = tuple[
    bytes,
    str,
    bytes,
    bytes,
    str,
    bytes,
    tuple[tuple[bytes, bytes], ...],
    bytes,
    int | None,
    bool,
    bytes | None,
    bool,
    tuple[int, int, int] | None,
]

# What it returns has the attributes of a RequestHead of bridge.core.http.message, and its line those of a RequestLine.
def parse_head(buffer: bytes | bytearray, start: int, limits: tuple[int, int, int, int], /) -> Any: ...
def make_scope(
    template: dict[str, Any], head: object, asgi: dict[str, Any], extensions: dict[str, Any], /
) -> dict[str, Any] | None: ...
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

class Times:
    answers: bool
    opened: int
    began: int
    queued: float
    called_with: Any
    refused: str
    def keep_request(self, /) -> None: ...

class Counter:
    def count(
        self, times: Times | None, status: int, method: bytes, writing: object, version: str, protocol: str, /
    ) -> bool: ...
    def add(self, times: Times, row: int, /) -> None: ...
    def learn(self, row: int, status: int, method: bytes, writing: object, version: str, protocol: str, /) -> None: ...

def note_times() -> Times: ...
def note_opening() -> Times: ...
def make_counter(cells: memoryview, queue: int, /) -> Counter: ...
def read_frame(data: bytes, position: int, room: int, /) -> tuple[int, str | bytes, int] | None: ...
def decode_fields(
    block: bytes, table: list[tuple[bytes, bytes]], size: int, capacity: int, list_size: int, /
) -> tuple[list[tuple[bytes, bytes]], list[tuple[bytes, bytes]], int, int, bool, int] | None: ...
def read_request(
    block: bytes,
    ended: bool,
    table: list[tuple[bytes, bytes]],
    size: int,
    capacity: int,
    limits: tuple[int, int, int, int],
    /,
) -> RequestValues | None: ...
def request_block(data: bytes | bytearray, position: int, stream: int, /) -> bytes | None: ...
def response_frames(stream: int, block: bytes, content: bytes, /) -> bytes | None: ...
