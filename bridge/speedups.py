"""The one place that looks for compiled functions which may stand in for Python functions.

It imports nothing else of bridge, so every protocol and adapter may import it. Each name here is a compiled function,
or None if there is none. Then the caller uses its own Python function, whose results are the same. A compiled function
returns None for input that it leaves to the Python function.

The compiled module is ``bridge._speedups``. It may be absent (docs/speedups.md), and ``BRIDGE_SPEEDUPS=0`` in the
environment sets it aside.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False  # typing is heavy, and `bridge --version` needs none of it
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType
    from typing import Any

    from bridge import _speedups as functions

__all__ = [
    "COMPILED",
    "apply_mask",
    "decode_fields",
    "find_apply_mask",
    "make_counter",
    "make_environ",
    "make_scope",
    "note_opening",
    "note_times",
    "parse_head",
    "read_frame",
    "read_request",
    "request_block",
    "response_frames",
]

# The revision of the compiled functions that this version of bridge calls. A module built from another source, such as
# an old one in a work tree, is not used.
_REVISION = 10

_WANTED = os.environ.get("BRIDGE_SPEEDUPS") != "0"


def _load() -> ModuleType | None:
    """Return the compiled module; None if it is absent, of another revision, or not wanted."""
    if not _WANTED:
        return None
    try:
        from bridge import _speedups
    except ImportError:
        return None
    return _speedups if _speedups.REVISION == _REVISION else None


_module = _load()

COMPILED = _module is not None
"""Whether the compiled functions are used."""

if TYPE_CHECKING:
    Field = tuple[bytes, bytes]
    Octets = bytes | bytearray | memoryview

# (buffer, start, limits of request line, field line, fields and head): what has the attributes of a RequestHead
parse_head: Callable[[bytes | bytearray, int, tuple[int, int, int, int]], Any] | None
# (template, head, asgi, extensions): a copy of the template, filled with the request line and the fields of a head made
# by parse_head, and with copies of the other two
make_scope: Callable[[dict[str, Any], Any, dict[str, Any], dict[str, Any]], dict[str, Any] | None] | None
# (template, fields, method, path, query, target, protocol): a copy of the template with fields and request line
make_environ: Callable[[dict[str, Any], tuple[Field, ...], str, bytes, bytes, bytes, str], dict[str, Any] | None] | None
# (block, table, bytes and most bytes of the dynamic table, most bytes of the list of fields): decodes a field block of
# HTTP/2 (RFC 7541). The table has the static and dynamic entries in one list from index 1 on, and is changed. The
# result: the fields, those of them that came as literals, how many entries were inserted, bytes of the dynamic table,
# whether a field must never be indexed, and the octets of the largest name and value that were inserted. The result is
# None, and nothing is changed, if the block has an error, a size update, or too large a list.
decode_fields: (
    Callable[[bytes, list[Field], int, int, int], tuple[list[Field], list[Field], int, int, bool, int] | None] | None
)
# (block, whether the stream ends with it, table, bytes and most bytes of the dynamic table, limits): decodes the field
# block of a usual request as decode_fields does, and checks it (RFC 9113 section 8). The limits are the most bytes of
# the list of fields, of a request line and of a field line, and the number of fields. The result is None, and nothing
# is changed, if the request would be refused, or has something rare.
read_request: (
    Callable[
        [bytes, bool, list[Field], int, int, tuple[int, int, int, int]],
        functions.RequestValues | None,
    ]
    | None
)
# (data, position, stream): the field block of a complete frame that opens and ends the stream
request_block: Callable[[bytes | bytearray, int, int], bytes | None] | None
# (stream, field block, content): two frames that are a whole response
response_frames: Callable[[int, bytes, bytes], bytes | None] | None
# see bridge/telemetry/metrics/counting.py
make_counter: Callable[[memoryview, int], Any] | None
# see bridge/core/connection/times.py: the results have the same attributes as its Times
note_opening: Callable[[], Any] | None
note_times: Callable[[], Any] | None
apply_mask: Callable[[Octets, bytes], bytes] | None
# (data, position, room): first byte, payload (str of a whole text) and end of a complete frame
read_frame: Callable[[bytes, int, int], tuple[int, str | bytes, int] | None] | None

parse_head = None if _module is None else _module.parse_head
make_scope = None if _module is None else _module.make_scope
make_environ = None if _module is None else _module.make_environ
decode_fields = None if _module is None else _module.decode_fields
read_request = None if _module is None else _module.read_request
request_block = None if _module is None else _module.request_block
response_frames = None if _module is None else _module.response_frames
make_counter = None if _module is None else _module.make_counter
note_opening = None if _module is None else _module.note_opening
note_times = None if _module is None else _module.note_times
apply_mask = None if _module is None else _module.apply_mask
read_frame = None if _module is None else _module.read_frame


def find_apply_mask() -> Callable[[Octets, bytes], bytes] | None:
    """Return the compiled function that XORs data with a repeated key of four bytes.

    Without the compiled module it is that of the ``websockets`` distribution, if that is installed. Importing it takes
    24 ms: call this when the first masked frame has come.
    """
    if apply_mask is not None or not _WANTED:
        return apply_mask
    try:
        from websockets.speedups import apply_mask as found
    except ImportError:
        return None
    return found
