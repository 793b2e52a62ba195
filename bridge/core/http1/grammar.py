"""The grammar of HTTP/1.x as patterns over bytes (RFC 9112 sections 2 to 7); used with ``fullmatch``, as all others.

What all versions of HTTP have in common stands in ``bridge.core.http``.
"""

from __future__ import annotations

import re

__all__ = ["BAD_LINE_END", "CHUNK_LINE", "CHUNK_LINE_START", "REQUEST_LINE", "VERSION"]

# HTTP-version (RFC 9112 section 2.3); the group is the major version.
VERSION = re.compile(rb"HTTP/([0-9])\.[0-9]")

# A request line of the usual form: origin-form, HTTP/1.0 or 1.1. Method, target, path, query, minor version.
REQUEST_LINE = re.compile(
    rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+) ((/[\x21\x22\x24-\x3e\x40-\x7e]*)(?:\?([\x21\x22\x24-\x7e]*))?) HTTP/(1\.[01])"
)

# chunk-size [ chunk-ext ] CRLF (RFC 9112 section 7.1). White space before ";" is the BWS that the grammar allows;
# white space after a bare size is not in the grammar.
CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,16})((?:[\t ]*;[\t\x20-\x7e\x80-\xff]*)?)\r\n")
CHUNK_LINE_START = re.compile(rb"(?:[0-9A-Fa-f]{1,16}(?:[\t ]*|[\t ]*;[\t\x20-\x7e\x80-\xff]*)\r?)?")

# In a header section that is not complete yet: LF without CR, CR without LF, NUL. CR as the last octet may go on.
BAD_LINE_END = re.compile(rb"(?<!\r)\n|\r(?=[^\n])|\x00")
