"""The Cookie field as browsers send it, which is not quite what RFC 6265 section 4.2.1 says."""

from __future__ import annotations

import re

__all__ = ["parse_cookie"]

# An octal escape of one octet, or any character after a backslash; one pass, so the cost is linear.
_ESCAPE = re.compile(r"\\(?:([0-3][0-7][0-7])|(.))", re.DOTALL)


def parse_cookie(cookie: str) -> dict[str, str]:
    """Return the cookies of a Cookie field's value; never raises.

    Every semicolon separates, also inside quotes, as in browsers: readers that disagree here let one cookie smuggle
    in another. Of several cookies with one name the last one counts. A piece without ``=`` is the value of a cookie
    without a name. In a value between double quotes, backslash escapes are undone.

    Args:
        cookie: The field value.
    """
    cookies = {}
    for piece in cookie.split(";"):
        name, equals, value = piece.partition("=")
        if not equals:
            name, value = "", name
        name, value = name.strip(" \t"), value.strip(" \t")
        if name or value:
            cookies[name] = _unquote(value)
    return cookies


def _unquote(value: str) -> str:
    if len(value) < 2 or value[0] != '"' or value[-1] != '"':
        return value
    return _ESCAPE.sub(lambda match: chr(int(match[1], 8)) if match[1] else match[2], value[1:-1])
