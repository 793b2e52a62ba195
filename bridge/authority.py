"""``bridge dev --https``: a certificate for this machine, from an authority that only this user's programs trust.

The authority is made once and kept, so a browser has to import it only once. Its key can sign for any name, so no other
user may read it.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import os
import re
import socket
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from bridge.errors import ConfigError

if TYPE_CHECKING:
    from trustme import CA

__all__ = ["LocalCertificate", "certificate_for"]

_ALWAYS = ("localhost", "127.0.0.1", "::1")
_WILDCARDS = frozenset({"", "*", "0.0.0.0", "::"})  # noqa: S104 - no address is listened on here
_DAYS = 90  # of a certificate; each start makes a new one
_ORGANIZATION = "bridge dev"


class LocalCertificate(NamedTuple):
    """The files that a server and a browser need for TLS.

    Attributes:
        file: Certificate and key of the server (PEM).
        authority: The authority's certificate (PEM), for browsers and clients.
    """

    file: str
    authority: str


def certificate_for(hosts: Iterable[str], environ: Mapping[str, str]) -> LocalCertificate:
    """Make a certificate for this machine and *hosts*, signed by the user's own authority.

    Args:
        hosts: Names and addresses that the server listens on. One for all interfaces means this machine's names.
        environ: The environment variables, which say where the user's data directory is.

    Raises:
        ConfigError: The package trustme is missing, or the directory or a file in it cannot be used.
    """
    try:
        from trustme import CA
    except ImportError:
        raise ConfigError("--https: needs the package trustme: pip install trustme") from None
    directory = _directory(environ)
    names = _names(hosts)
    certificate = os.path.join(directory, "authority.pem")
    try:
        os.makedirs(directory, mode=0o700, exist_ok=True)
        key = os.path.join(directory, "authority-key.pem")
        if not os.path.exists(key):
            _make(CA, key)
        authority = _kept(CA, key)
        _write(certificate, authority.cert_pem.bytes())
        now = datetime.datetime.now(datetime.UTC).replace(tzinfo=None)
        day = datetime.timedelta(days=1)
        leaf = authority.issue_cert(*names, not_before=now - day, not_after=now + _DAYS * day)
        digest = hashlib.sha256("\n".join(names).encode()).hexdigest()[:12]
        file = os.path.join(directory, f"server-{digest}.pem")
        _write(file, leaf.private_key_and_cert_chain_pem.bytes())
    except OSError as exc:
        raise ConfigError(f"--https: {exc.filename or directory}: {exc.strerror or exc}") from exc
    except UnicodeError as exc:  # of idna
        raise ConfigError(f"--https: {', '.join(names)}: no certificate can have these names: {exc}") from exc
    return LocalCertificate(file, certificate)


def _directory(environ: Mapping[str, str]) -> str:
    data = environ.get("XDG_DATA_HOME", "")
    if not os.path.isabs(data):  # as the specification of these directories asks for
        data = os.path.join(os.path.expanduser("~"), ".local", "share")
    return os.path.join(data, "bridge", "https")


def _names(hosts: Iterable[str]) -> Sequence[str]:
    """Return the names in the certificate. Equal hosts give equal names."""
    named = set(hosts)
    if named & _WILDCARDS:
        named = (named - _WILDCARDS) | set(_own_names())
    return (*_ALWAYS, *sorted(named - set(_ALWAYS)))


def _own_names() -> Iterator[str]:
    """Yield the names by which other machines, such as a phone, may reach this one."""
    name = socket.gethostname()
    if re.fullmatch(r"[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*", name):
        yield name
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect(("192.0.2.1", 9))  # nothing is sent: the system only says which address it would be sent from
        yield sock.getsockname()[0]


def _make(authority: type[CA], path: str) -> None:
    """Make the authority. If several processes do so at once, the first one's is kept."""
    made = authority(organization_name=_ORGANIZATION, organization_unit_name=f"{socket.gethostname()} (development)")
    new = _written(path, made.private_key_pem.bytes() + made.cert_pem.bytes())
    try:
        os.link(new, path)
    except FileExistsError:
        pass
    finally:
        os.unlink(new)


def _kept(authority: type[CA], path: str) -> CA:
    """Return the authority that was made before.

    Raises:
        ConfigError: Others can read its key, the file is damaged, or the authority's time is over.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    cure = f"remove {os.path.dirname(path)}, and a new authority is made"
    with open(path, "rb") as file:
        status = os.fstat(file.fileno())
        content = file.read()
    if hasattr(os, "getuid") and (status.st_uid != os.getuid() or stat.S_IMODE(status.st_mode) & 0o077):
        raise ConfigError(f"--https: {path}: it is another user's, or others can read it; {cure}")
    mark = b"-----BEGIN CERTIFICATE-----"
    key, _, certificate = content.partition(mark)
    try:
        found = x509.load_pem_x509_certificate(mark + certificate)
        if load_pem_private_key(key, None).public_key() != found.public_key():
            raise ValueError("the key is another certificate's")
        made = authority.from_pem(mark + certificate, key)
    except ValueError as exc:
        raise ConfigError(f"--https: {path}: this is no authority: {exc}; {cure}") from exc
    if not found.not_valid_before_utc <= datetime.datetime.now(datetime.UTC) < found.not_valid_after_utc:
        raise ConfigError(
            f"--https: {path}: it is good from {found.not_valid_before_utc:%Y-%m-%d} to"
            f" {found.not_valid_after_utc:%Y-%m-%d}, and not today; {cure}"
        )
    return made


def _write(path: str, content: bytes) -> None:
    """Replace a file atomically."""
    os.replace(_written(path, content), path)


def _written(path: str, content: bytes) -> str:
    """Write a new file beside *path* that only this user can read. Return its name."""
    new = f"{path}.{os.getpid()}"
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "wb") as file:
        file.write(content)
    return new
