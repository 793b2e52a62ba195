"""The grammar of HTTP/1.x as patterns over bytes (RFC 9112 sections 2 to 7).

The grammar that all versions of HTTP share is in ``bridge.core.http``.
"""

from __future__ import annotations

import re

__all__ = ["BAD_LINE_END", "CHUNK_LINE", "CHUNK_LINE_START", "REQUEST_LINE", "VERSION"]

# HTTP-version (RFC 9112 section 2.3); the group is the major version.
VERSION = re.compile(rb"HTTP/([0-9])\.[0-9]")

# A request line of the usual form: origin-form, HTTP/1.0 or 1.1. Groups: method, target, path, query, version. TOKEN
# and TARGET are written out, so that one match checks and splits the whole line.
REQUEST_LINE = re.compile(
    rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+) ((/[\x21\x22\x24-\x3e\x40-\x7e]*)(?:\?([\x21\x22\x24-\x7e]*))?) HTTP/(1\.[01])"
)

# chunk-ext (RFC 9112 section 7.1.1): BWS ";" BWS name [ BWS "=" BWS ( token / quoted-string ) ]. The quantifiers are
# possessive: nothing is tried twice, so a long line costs linear time.
_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"
_QUOTED = rb'"(?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t\x20-\x7e\x80-\xff])*+"'
_CHUNK_EXT = rb"[\t ]*+;[\t ]*+%b(?:[\t ]*+=[\t ]*+(?:%b|%b))?+" % (_TOKEN, _TOKEN, _QUOTED)
# chunk-size [ chunk-ext ] CRLF (RFC 9112 section 7.1). Groups: size, extensions. White space is allowed around ";" and
# "=", but not at the end of the line. Used with match, since content follows.
CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,16})((?:%b)*+)\r\n" % _CHUNK_EXT)
# What such a line may look like while it is incomplete: anything else is refused without waiting for its end.
CHUNK_LINE_START = re.compile(rb"(?:[0-9A-Fa-f]{1,16}(?:[\t ]*|[\t ]*;[\t\x20-\x7e\x80-\xff]*)\r?)?")

# In an incomplete header section: LF without CR, CR without LF, NUL. A CR as the last octet is none of these, since its
# LF may follow.
BAD_LINE_END = re.compile(rb"(?<!\r)\n|\r(?=[^\n])|\x00")
