"""HTTPHeaders: the header section as a case-insensitive, ordered mapping with repeated names.

The parser returns pairs of bytes, and most applications look at few of them or none. So the pairs are kept as they
are, and the first look-up builds an index of text.
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

# Name in lower case, from the wire -> Http-Header-Case. Bounded, since peers choose the names.
_NAMES_MAX = 1024
_names: dict[bytes, str] = {}


# Name in any spelling -> Http-Header-Case, bounded in the same way. A look-up in a dictionary costs a third of one in
# an lru_cache.
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

    Names are returned in ``Http-Header-Case``. For a repeated name, the mapping interface joins the values with commas
    (RFC 9110 section 5.2); :meth:`get_list` and :meth:`get_all` return them separately. Octets are decoded as latin-1.

    :meth:`add`, :meth:`parse` and :meth:`parse_line` check names and values. Item assignment does not.

    Args:
        *args: Nothing, or one mapping, iterable of pairs or HTTPHeaders.
        **kwargs: Further fields.
    """

    __slots__ = ("_raw", "_repeated", "_values")

    # The index: name -> value, or a list of values for a repeated name, which is rare. None until the first look-up of
    # headers that came from the wire. From then on all methods but raw use only the index.
    _values: dict[str, str | list[str]] | None
    # The index may have lists.
    _repeated: bool
    # The field lines with lower-case names; None after a change of the index. Request head and copies may share the
    # list, so it is never changed in place.
    _raw: RawFields | None

    def __init__(self, *args: Any, **kwargs: str) -> None:
        self._raw = None
        self._repeated = False
        if len(args) == 1 and (source := args[0]).__class__ is dict:  # nearly every response is made from a dict
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
        """Return headers over field lines from the wire. Nothing is copied or decoded yet.

        Args:
            fields: Checked (name, value) pairs in wire order, names in lower case. The list must not be changed
                afterwards.
        """
        self = cls.__new__(cls)  # without __init__, which would build the index
        self._raw = fields
        self._repeated = False
        self._values = None
        return self

    @property
    def raw(self) -> RawFields:
        """The field lines as pairs of bytes, names in lower case. Do not change the list.

        Raises:
            UnicodeEncodeError: A value has characters outside latin-1.
        """
        raw = self._raw
        if raw is None:
            raw = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in self.pairs()]
        return raw

    def _index(self) -> dict[str, str | list[str]]:
        """Return the index, which the first call builds."""
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
        """Add a value to a name that has at least one."""
        present = values[name]
        if isinstance(present, list):
            present.append(value)
        else:
            values[name] = [present, value]
            self._repeated = True

    def _change(self) -> dict[str, str | list[str]]:
        """Return the index for a change: from now on it differs from the field lines, so these are dropped."""
        values = self._index()
        self._raw = None
        return values

    def _copied(self) -> dict[str, str | list[str]]:
        """Return a copy of the index, its lists included."""
        values = self._index().copy()
        if self._repeated:
            for name, value in values.items():
                if isinstance(value, list):
                    values[name] = value.copy()
        return values

    def add(self, name: str, value: str) -> None:
        """Add a field line. Lines of the same name stay.

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
        """Return the values of all field lines *name*; an empty list if there is none."""
        value = self._index().get(_canonical(name))
        if value is None:
            return []
        return value.copy() if isinstance(value, list) else [value]

    def get_all(self) -> Iterator[tuple[str, str]]:
        """Yield (name, value) of every field line. Lines of one name come together, where the first one stands."""
        yield from self.pairs()

    def pairs(self) -> list[tuple[str, str]]:
        """Return the pairs that :meth:`get_all` yields, as a list."""
        values = self._values
        if values is None:
            values = self._index()
        if not self._repeated:
            return list(values.items())  # type: ignore[arg-type]  # the index has no lists
        found = []
        for name, value in values.items():
            found += [(name, value)] if isinstance(value, str) else [(name, one) for one in value]
        return found

    def parse_line(self, line: str) -> None:
        """Add the field line *line*, with or without its line end. An empty line adds nothing.

        Raises:
            HTTPInputError: The line is malformed, or continues the line before (RFC 9112 section 5.2).
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
        except IllegalHeaderError as exc:  # the text came from elsewhere, not from the program
            raise HTTPInputError(str(exc)) from None

    @classmethod
    def parse(cls, headers: str) -> Self:
        """Return the headers of a header section whose lines end with CRLF or LF.

        The server's own parser accepts only CRLF. This one also reads text that programs have stored.

        Raises:
            HTTPInputError: A line is malformed.
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
        return (self._index(),)  # in a tuple, since old pickle protocols drop a state that is false

    def __setstate__(self, state: tuple[dict[str, str | list[str]]]) -> None:
        (self._values,) = state
        self._repeated = True  # the index may have lists
        self._raw = None

    def __str__(self) -> str:
        return "".join([f"{name}: {value}\n" for name, value in self.get_all()])
