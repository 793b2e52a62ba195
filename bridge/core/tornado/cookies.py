"""Parses the Cookie field as browsers send it, which differs from RFC 6265 section 4.2.1."""

from __future__ import annotations

import re

__all__ = ["parse_cookie"]

# A backslash with three octal digits, or with any other character. One pass finds them all, so the cost is linear.
_ESCAPE = re.compile(r"\\(?:([0-3][0-7][0-7])|(.))", re.DOTALL)


def parse_cookie(cookie: str) -> dict[str, str]:
    """Return name -> value of the cookies in a Cookie field's value; never raises.

    Of several cookies with one name, the last one counts. A piece without ``=`` is the value of a cookie whose name is
    empty. In a value between double quotes, backslash escapes are decoded.

    Args:
        cookie: The field value.
    """
    # Every semicolon separates, also inside quotes, as in browsers. If readers disagree here, one cookie can smuggle in
    # another one.
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
