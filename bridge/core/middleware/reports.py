"""How proxies write reports into a request: comma-separated lists, to whose end each proxy adds a member."""

from __future__ import annotations

from collections.abc import Container, Iterable

__all__ = ["members", "reports_in"]


def reports_in(fields: Iterable[tuple[bytes, bytes]], names: Container[bytes]) -> dict[bytes, str]:
    """Return the values of the fields whose names are among *names*; empty for most requests.

    Several field lines of one name are one list (RFC 9110 section 5.3), in the order of the lines.

    Args:
        fields: The request's (name, value) pairs, names in lower case.
        names: Names in lower case.
    """
    found: dict[bytes, str] = {}
    # The comprehension looks at all fields in half the time of a loop.
    for name, value in [field for field in fields if field[0] in names]:
        text = value.decode("latin-1")
        found[name] = f"{found[name]},{text}" if name in found else text
    return found


def members(text: str) -> list[str]:
    """Return the members of a list, without the white space around them. At least one, which may be empty.

    Empty members stay: they count when the number of proxies says which member is the client's.
    """
    return [member.strip(" \t") for member in text.split(",")]
