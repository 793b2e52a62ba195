"""Distinguished names of certificates as text (RFC 4514)."""

from __future__ import annotations

import re

__all__ = ["Name", "distinguished_name"]

Name = tuple[tuple[tuple[str, str], ...], ...]
"""A name as the ssl module gives it: groups of (type, value) pairs, the most general first."""

# RFC 4514 section 3. A type that is not here keeps the name that OpenSSL gives it: its long name, or its number. For
# a number the RFC wants the value's BER encoding in place of its text, which the ssl module does not tell.
_SHORT_NAMES = {
    "commonName": "CN",
    "countryName": "C",
    "domainComponent": "DC",
    "localityName": "L",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "stateOrProvinceName": "ST",
    "streetAddress": "STREET",
    "userId": "UID",
}

# The characters that section 2.4 escapes by a backslash. "=" is not one of them: the first one of a pair ends the type.
_ESCAPED = re.compile(r'["+,;<>\\]|\A[ #]| \Z')


def distinguished_name(name: Name) -> str:
    """Return *name* in the form of RFC 4514: the most specific group first, the pairs of a group joined by ``+``."""
    return ",".join(
        "+".join(f"{_SHORT_NAMES.get(kind, kind)}={_escape(value)}" for kind, value in group)
        for group in reversed(name)
    )


def _escape(value: str) -> str:
    """Return an attribute value with escapes, so that it cannot end itself or begin another one."""
    return _ESCAPED.sub(r"\\\g<0>", value).replace("\0", r"\00")
