"""The kinds of values that settings have: each converts text to a value and says in words which text is allowed.

``bridge.config.settings`` says which settings exist. Nothing here opens a file, resolves a host name or imports a heavy
module.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

__all__ = [
    "ADDRESSES",
    "CERTIFICATES",
    "DIRECTORY",
    "FIELDS",
    "FIELD_NAME",
    "FILE",
    "FUNCTION",
    "HOST",
    "MODE",
    "MOUNTS",
    "NETWORKS",
    "PAGE_PATH",
    "PORT",
    "ROOT_PATH",
    "SIZE",
    "SWITCH",
    "TEXT",
    "VARIABLES",
    "Address",
    "FileDescriptor",
    "Kind",
    "SystemdSockets",
    "TCPAddress",
    "UnixAddress",
    "choice",
    "off_or",
    "seconds",
    "whole",
    "words",
]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class TCPAddress(NamedTuple):
    """A host and a port to listen on; an empty host means every interface, port 0 any free one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class UnixAddress(NamedTuple):
    """The path of a Unix domain socket to listen on."""

    path: str

    def __str__(self) -> str:
        return f"unix:{self.path}"


class FileDescriptor(NamedTuple):
    """The number of an inherited file descriptor that is already a listening socket."""

    number: int

    def __str__(self) -> str:
        return f"fd://{self.number}"


class SystemdSockets(NamedTuple):
    """The sockets that systemd passes to the process; with a name, those of a ``FileDescriptorName``."""

    name: str

    def __str__(self) -> str:
        return f"systemd:{self.name}" if self.name else "systemd"


Address = TCPAddress | UnixAddress | FileDescriptor | SystemdSockets


class Kind(Generic[T_co]):
    """One kind of value.

    Attributes:
        parse: Converts text to a value; raises ValueError if the text is not allowed.
        allowed: What is allowed, as the end of the sentence "... is not ...".
        metavar: The placeholder in the help; empty for switches, which have no value on the command line.
        unit: "bytes", "seconds" or empty.
        can_be_off: None is a value, written ``off``.
        repeats: The value is a list: its text has commas, and the option may be repeated.
        choices: The allowed words, if there is a fixed set of them.
        separator: What stands between the items of a list.
        pair: What stands between a name and its value in an item, where a file has a table for the list.
    """

    __slots__ = ("allowed", "can_be_off", "choices", "metavar", "pair", "parse", "repeats", "separator", "unit")

    def __init__(
        self,
        parse: Callable[[str], T_co],
        allowed: str,
        metavar: str,
        *,
        unit: str = "",
        can_be_off: bool = False,
        repeats: bool = False,
        choices: tuple[str, ...] = (),
        separator: str = ",",
        pair: str = "=",
    ) -> None:
        self.parse = parse
        self.allowed = allowed
        self.metavar = metavar
        self.unit = unit
        self.can_be_off = can_be_off
        self.repeats = repeats
        self.choices = choices
        self.separator = separator
        self.pair = pair


# --- numbers ---------------------------------------------------------------------------------------------------------

# Patterns, not int() and float(), which accept "1_000", "+5", "٣" and "nan".
_WHOLE = r"[0-9]{1,18}"
_SIZE = r"([0-9]{1,15}) ?(?:([kmg])(?:i?b)?|b)?"
_SECONDS = r"([0-9]{1,12}(?:\.[0-9]{1,9})?) ?(ms|s|m|h|d)?"
_OCTAL = r"(?:0o?)?([0-7]{3})"
_SIZE_FACTOR = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
_SECONDS_FACTOR = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}


def _match(pattern: str, text: str, flags: int = 0) -> re.Match[str]:
    """Return the match of the whole text; raise ValueError if there is none.

    The pattern is compiled here and not at import: each takes 0.1 ms of CPU or more, and a start needs few of them.
    """
    match = re.fullmatch(pattern, text.strip(), flags)
    if match is None:
        raise ValueError(text)
    return match


def whole(minimum: int, maximum: int | None = None, metavar: str = "N") -> Kind[int]:
    """Return the kind of whole numbers from *minimum* to *maximum*, both included."""

    def parse(text: str) -> int:
        value = int(_match(_WHOLE, text)[0])
        if value < minimum or (maximum is not None and value > maximum):
            raise ValueError(text)
        return value

    reach = f"from {minimum} to {maximum}" if maximum is not None else f"of at least {minimum}"
    return Kind(parse, f"a whole number {reach}", metavar)


def _size(text: str) -> int:
    number, factor = _match(_SIZE, text, re.ASCII | re.IGNORECASE).groups()
    value = int(number) * _SIZE_FACTOR[(factor or "").lower()]
    if value == 0:
        raise ValueError(text)
    return value


SIZE = Kind(_size, "a size above 0 such as 8190, 64k or 1GiB", "SIZE", unit="bytes")


def seconds(*, zero: bool = False) -> Kind[float]:
    """Return the kind of durations in seconds.

    Args:
        zero: 0 is allowed.
    """

    def parse(text: str) -> float:
        number, factor = _match(_SECONDS, text, re.ASCII | re.IGNORECASE).groups()
        value = float(number) * _SECONDS_FACTOR[(factor or "s").lower()]
        if value == 0 and not zero:
            raise ValueError(text)
        return value

    reach = "0 or a time" if zero else "a time above 0"
    return Kind(parse, f"{reach} such as 30, 30s or 5m", "TIME", unit="seconds")


MODE = Kind(lambda text: int(_match(_OCTAL, text)[1], 8), "a file mode of three octal digits such as 660", "OCTAL")


# --- words -----------------------------------------------------------------------------------------------------------


def _text(text: str) -> str:
    if not text or not text.isprintable():
        raise ValueError(text)
    return text


TEXT = Kind(_text, "printable text", "TEXT")
FILE = Kind(_text, "a path", "FILE")
DIRECTORY = Kind(_text, "a path", "DIR")


def choice(metavar: str, *names: str, synonyms: dict[str, str] | None = None) -> Kind[str]:
    """Return the kind whose values are *names*. Each of *synonyms* is accepted too and means one of them."""
    values = {name: name for name in names} | (synonyms or {})

    def parse(text: str) -> str:
        try:
            return values[text.strip().lower()]
        except KeyError:
            raise ValueError(text) from None

    return Kind(parse, "one of " + ", ".join(names), metavar, choices=names)


def words(metavar: str, allowed: str, *names: str) -> Kind[tuple[str, ...]]:
    """Return the kind of lists of words. If there are *names*, other words are refused."""

    def parse(text: str) -> tuple[str, ...]:
        found = tuple(_text(word.strip()) for word in text.split(","))
        for word in found if names else ():
            if word.lower() not in names:
                raise ValueError(text)
        return tuple(word.lower() for word in found) if names else found

    return Kind(parse, allowed, metavar, repeats=True)


# A token (RFC 9110 section 5.6.2) of characters that all proxies pass on.
_FIELD_NAME = r"[A-Za-z][A-Za-z0-9-]{0,63}"
_STEERING = frozenset({"connection", "content-length", "content-type", "cookie", "expect", "host", "te", "trailer",
                       "transfer-encoding", "upgrade"})  # fmt: skip


def _field_name(text: str) -> str:
    name = _match(_FIELD_NAME, text)[0].lower()
    if name in _STEERING:
        raise ValueError(text)
    return name


FIELD_NAME = Kind(_field_name, "the name of a field such as X-Request-Id", "NAME")

# RFC 9110 section 5.6.2 (token) and 5.5 (field-value).
_FIELD_LINE_NAME = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_FIELD_VALUE = r"[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?|"
_FRAMING = frozenset({"connection", "content-length", "date", "keep-alive", "trailer", "transfer-encoding", "upgrade"})


def _fields(text: str) -> tuple[tuple[bytes, bytes], ...]:
    found: list[tuple[bytes, bytes]] = []
    for line in text.split("\n"):
        name, colon, value = line.partition(":")
        name, value = name.strip().lower(), value.strip()
        if not colon or name in _FRAMING:
            raise ValueError(text)
        found.append((_match(_FIELD_LINE_NAME, name)[0].encode(), _match(_FIELD_VALUE, value)[0].encode("latin-1")))
    return tuple(found)


FIELDS = Kind(
    _fields,
    "NAME: VALUE, and no field that frames a message such as Content-Length",
    "FIELD",
    repeats=True,
    separator="\n",
    pair=": ",
)


def _variables(text: str) -> tuple[tuple[str, str], ...]:
    found: list[tuple[str, str]] = []
    for item in text.split("\n"):
        name, equals, value = item.partition("=")
        if not name or not equals or "\0" in item:
            raise ValueError(text)
        found.append((name, value))
    return tuple(found)


VARIABLES = Kind(_variables, "NAME=VALUE", "VARIABLE", repeats=True, separator="\n")

_TARGET = r"[\w.]+:[\w.]+"
FUNCTION = Kind(lambda text: _match(_TARGET, text)[0], "a function as module:name", "FUNCTION")


def _certificates(text: str) -> tuple[tuple[str, str, str], ...]:
    found: list[tuple[str, str, str]] = []
    for part in text.split(","):
        host, equals, certificate = part.strip().partition("=")
        if equals:
            found.append((_match(_SNI_NAME, host)[0].lower(), _text(certificate), ""))
        elif found and not found[-1][2]:  # HOST=CERT,KEY
            found[-1] = (*found[-1][:2], _text(host))
        else:
            raise ValueError(text)
    return tuple(found)


_SNI_NAME = r"(?:\*\.)?[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*"
CERTIFICATES = Kind(
    _certificates, "HOST=CERTIFICATE or HOST=CERTIFICATE,KEY; *.HOST is every name below", "CERTS", repeats=True
)

_SWITCH_WORDS = {
    "on": True,
    "true": True,
    "yes": True,
    "1": True,
    "off": False,
    "false": False,
    "no": False,
    "0": False,
}


def _switch(text: str) -> bool:
    try:
        return _SWITCH_WORDS[text.strip().lower()]
    except KeyError:
        raise ValueError(text) from None


SWITCH = Kind(_switch, "on or off", "")


def off_or(kind: Kind[T]) -> Kind[T | None]:
    """Return *kind* with None, written ``off``, as one more value."""

    def parse(text: str) -> T | None:
        return None if text.strip().lower() in {"off", "none"} else kind.parse(text)

    return Kind(parse, f"{kind.allowed}, or off", kind.metavar, unit=kind.unit, can_be_off=True)


def _root_path(text: str) -> str:
    path = text.rstrip("/")
    if path and (not path.startswith("/") or not path.isprintable() or set(path) & set("?# ")):
        raise ValueError(text)
    return path


def _page_path(text: str) -> str:
    if not text.startswith("/") or not text.isprintable() or not text.isascii() or set(text) & set("?# %"):
        raise ValueError(text)
    return text


PAGE_PATH = Kind(_page_path, "a path that begins with /, such as /healthz", "PATH")

ROOT_PATH = Kind(_root_path, "empty or a path that begins with /", "PATH")


# --- addresses -------------------------------------------------------------------------------------------------------

_HOST_NAME = r"[A-Za-z0-9_.-]+|\*"
_PORT = whole(0, 65535, "PORT")


def _host(text: str) -> str:
    name = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    if ":" in name:
        from ipaddress import IPv6Address

        IPv6Address(name)  # raises ValueError itself
        return name
    name = _match(_HOST_NAME, text)[0]  # the text, not the name: brackets are for IPv6 only
    return "" if name == "*" else name


HOST = Kind(_host, "a host name or an IP address (the port has an option of its own)", "HOST")
PORT = _PORT


def _address(text: str) -> Address:
    text = text.strip()
    if text.startswith("unix:"):
        path = text[5:]
        return UnixAddress(_text(path[2:] if path.startswith("//") else path))
    if text.startswith("fd://"):
        return FileDescriptor(int(_match(_WHOLE, text[5:])[0]))
    if text == "systemd" or text.startswith("systemd:"):
        return SystemdSockets(text[8:])
    host, colon, port = text.rpartition(":")
    if not colon or (":" in host and not host.startswith("[")):
        raise ValueError(text)
    return TCPAddress(_host(host or "*"), _PORT.parse(port))


def _addresses(text: str) -> tuple[Address, ...]:
    return tuple(_address(part) for part in text.split(","))


ADDRESSES = Kind(
    _addresses, "HOST:PORT, [IPV6]:PORT, :PORT, unix:PATH, fd://N or systemd[:NAME]", "ADDRESS", repeats=True
)


def _mounts(text: str) -> tuple[tuple[str, str, str], ...]:
    found: list[tuple[str, str, str]] = []
    for part in text.split(","):
        place, equals, target = part.strip().partition("=")
        host, slash, path = place.partition("/")
        if not equals or not slash or not target:
            raise ValueError(text)
        found.append((host and _match(_MOUNT_HOST, host)[0].lower(), _root_path("/" + path), _text(target)))
    return tuple(found)


_MOUNT_HOST = r"(?:\*\.)?[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*|\[[0-9A-Fa-f:.]+\]"
MOUNTS = Kind(_mounts, "PATH=TARGET or HOST/PATH=TARGET; *.HOST is every name below", "MOUNT", repeats=True)


def _network(text: str) -> str:
    from ipaddress import ip_network

    if text in {"*", "unix"}:
        return text
    network = ip_network(text, strict=False)
    return str(network if network.num_addresses > 1 else network.network_address)


def _networks(text: str) -> tuple[str, ...]:
    return tuple(_network(part.strip()) for part in text.split(","))


NETWORKS = Kind(
    _networks,
    "a list of IP addresses, networks such as 10.0.0.0/8, unix, or *",
    "LIST",
    repeats=True,
)
