"""HTTPHeaders: the header section as a case-insensitive, ordered mapping with repeated names.

On the wire a field line is a pair of bytes; most requests are answered without anybody asking for the text of most
of them. So the pairs are kept as they came, and the text index is built by the first look-up.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, MutableMapping
from typing import Any, Self

from bridge.core.http.cache import remember
from bridge.core.tornado.startline import HTTPInputError, IllegalHeaderError

__all__ = ["HTTPHeaders"]

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
# field-value (RFC 9110 section 5.5): no white space at its ends, no control characters but HTAB inside.
_FIELD_VALUE = re.compile(r"(?:[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?")

RawFields = list[tuple[bytes, bytes]]

# Wire name -> Http-Header-Case. Bounded, since peers choose the names.
_NAMES_MAX = 1024
_names: dict[bytes, str] = {}


# Name as it was given -> Http-Header-Case; bounded likewise. A look-up here costs a third of an lru_cache.
_canonical_names: dict[str, str] = {}


def _canonical(name: str) -> str:
    """Return *name* in Http-Header-Case."""
    return _canonical_names.get(name) or _make_canonical(name)


def _make_canonical(name: str) -> str:
    canonical = "-".join([word.capitalize() for word in name.split("-")])
    if len(name) <= 40:
        remember(_canonical_names, name, canonical, _NAMES_MAX)
    return canonical


def _canonical_of_wire(name: bytes) -> str:
    text = _canonical(name.decode("latin-1"))
    if len(name) <= 40:
        remember(_names, name, text, _NAMES_MAX)
    return text


class HTTPHeaders(MutableMapping[str, str]):
    """A case-insensitive mapping of field names to values that keeps order and repetitions.

    Names are shown as ``Http-Header-Case``. The values of a repeated name are joined with a comma by the mapping
    interface (RFC 9110 section 5.2) and kept apart by :meth:`get_list` and :meth:`get_all`. Text stands for latin-1
    octets.

    :meth:`add`, :meth:`parse` and :meth:`parse_line` check names and values; item assignment does not.

    Args:
        *args: Nothing, or one mapping, iterable of pairs or HTTPHeaders.
        **kwargs: Further fields.
    """

    __slots__ = ("_raw", "_repeated", "_values")

    # Name -> the value, or the values of a name that is repeated, which is rare. None until the first look-up of
    # headers that came from the wire; then the only truth.
    _values: dict[str, str | list[str]] | None
    # There may be a list among the values.
    _repeated: bool
    # The field lines with lower-case names; None once the text index was changed. The list may be shared with the
    # request head and with copies, so it is never changed in place.
    _raw: RawFields | None

    def __init__(self, *args: Any, **kwargs: str) -> None:
        self._raw = None
        self._repeated = False
        if len(args) == 1 and (source := args[0]).__class__ is dict:  # what nearly every response is made from
            known = _canonical_names
            self._values = {known.get(name) or _make_canonical(name): value for name, value in source.items()}
            args = ()
        elif len(args) == 1 and isinstance(args[0], HTTPHeaders):
            self._values = args[0]._copied()
            self._repeated = args[0]._repeated
            args = ()
        else:
            self._values = {}
        if args or kwargs:
            self.update(*args, **kwargs)

    @classmethod
    def from_raw(cls, fields: RawFields) -> Self:
        """Return headers that are a view of field lines from the wire, at next to no cost.

        Args:
            fields: (name, value) pairs, checked, in wire order, names in lower case; must not change any more.
        """
        self = cls.__new__(cls)
        self._raw = fields
        self._repeated = False
        self._values = None
        return self

    @property
    def raw(self) -> RawFields:
        """The field lines as bytes, names in lower case; do not change the list.

        Raises:
            UnicodeEncodeError: A value was set to text outside latin-1.
        """
        raw = self._raw
        if raw is None:
            raw = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in self.pairs()]
        return raw

    def _index(self) -> dict[str, str | list[str]]:
        values = self._values
        if values is None:
            self._values = values = {}
            names = _names
            for raw_name, raw_value in self._raw or ():
                name = names.get(raw_name) or _canonical_of_wire(raw_name)
                if name in values:
                    self._append(values, name, raw_value.decode("latin-1"))
                else:
                    values[name] = raw_value.decode("latin-1")
        return values

    def _append(self, values: dict[str, str | list[str]], name: str, value: str) -> None:
        """Add a value to those of a name that has some."""
        present = values[name]
        if isinstance(present, list):
            present.append(value)
        else:
            values[name] = [present, value]
            self._repeated = True

    def _change(self) -> dict[str, str | list[str]]:
        """Return the text index, which is about to differ from what came from the wire."""
        values = self._index()
        self._raw = None
        return values

    def _copied(self) -> dict[str, str | list[str]]:
        values = self._index().copy()
        if self._repeated:
            for name, value in values.items():
                if isinstance(value, list):
                    values[name] = value.copy()
        return values

    def add(self, name: str, value: str) -> None:
        """Add a field line, whether or not there is one of this name.

        Raises:
            IllegalHeaderError: *name* is not a token, or *value* has control characters or white space at its ends.
        """
        if _TOKEN.fullmatch(name) is None:
            raise IllegalHeaderError(f"Invalid header name {name[:80]!r}")
        if _FIELD_VALUE.fullmatch(value) is None:
            raise IllegalHeaderError(f"Invalid header value {value[:80]!r}")
        values = self._change()
        name = _canonical(name)
        if name in values:
            self._append(values, name, value)
        else:
            values[name] = value

    def get_list(self, name: str) -> list[str]:
        """Return all values of *name*, one per field line; an empty list if there is none."""
        value = self._index().get(_canonical(name))
        if value is None:
            return []
        return value.copy() if isinstance(value, list) else [value]

    def get_all(self) -> Iterator[tuple[str, str]]:
        """Yield (name, value) of every field line; lines of one name together, names in order of first appearance."""
        yield from self.pairs()

    def pairs(self) -> list[tuple[str, str]]:
        """Return what :meth:`get_all` yields, as a list."""
        values = self._values
        if values is None:
            values = self._index()
        if not self._repeated:
            return list(values.items())  # type: ignore[arg-type]  # there is no list among them
        found = []
        for name, value in values.items():
            found += [(name, value)] if isinstance(value, str) else [(name, one) for one in value]
        return found

    def parse_line(self, line: str) -> None:
        """Add the field line *line*, with or without its line end; an empty line adds nothing.

        Raises:
            HTTPInputError: It is off the grammar, or continues the line before (RFC 9112 section 5.2).
        """
        if line.endswith("\n"):
            line = line[:-1].removesuffix("\r")
        if not line:
            return
        if line[0] in " \t":
            raise HTTPInputError(f"folding of header lines is not supported: {line[:80]!r}")
        name, colon, value = line.partition(":")
        if not colon:
            raise HTTPInputError(f"no colon in header line: {line[:80]!r}")
        try:
            self.add(name, value.strip(" \t"))
        except IllegalHeaderError as exc:  # what is parsed is somebody's input
            raise HTTPInputError(str(exc)) from None

    @classmethod
    def parse(cls, headers: str) -> Self:
        """Parse a header section whose lines end with CRLF, or with LF.

        The server's own parser takes CRLF only; this one reads what programs have stored, too.

        Raises:
            HTTPInputError: A line is off the grammar.
        """
        self = cls()
        *lines, last = headers.split("\n")
        for line in lines:
            self.parse_line(line.removesuffix("\r"))
        self.parse_line(last)
        return self

    def __setitem__(self, name: str, value: str) -> None:
        self._change()[_canonical(name)] = value

    def __getitem__(self, name: str) -> str:
        value = self._index()[_canonical(name)]
        return ",".join(value) if isinstance(value, list) else value

    def __delitem__(self, name: str) -> None:
        del self._change()[_canonical(name)]

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and _canonical(name) in self._index()

    def __iter__(self) -> Iterator[str]:
        return iter(self._index())

    def __len__(self) -> int:
        return len(self._index())

    def copy(self) -> Self:
        """Return an independent copy."""
        other = type(self).from_raw(self._raw or [])
        if self._raw is None:
            other._values = self._copied()
            other._repeated = self._repeated
            other._raw = None
        return other

    __copy__ = copy

    def __getstate__(self) -> tuple[dict[str, str | list[str]]]:
        return (self._index(),)  # in a tuple: old pickle protocols forget a state that is false

    def __setstate__(self, state: tuple[dict[str, str | list[str]]]) -> None:
        (self._values,) = state
        self._repeated = True
        self._raw = None

    def __str__(self) -> str:
        return "".join([f"{name}: {value}\n" for name, value in self.get_all()])
