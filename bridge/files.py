"""Opens, makes, replaces and removes files safely in directories that other users may write to.

A user who may write to a directory decides what its names mean, and can change that at any moment. Such a user must not
lead root to other files. So, as root:

* Directories are walked one by one and held open. A link is followed only in a directory that nobody else may write to.
* In a directory that somebody else may write to, a log file is opened with the rights of the user that the process will
  become. What that user may not write, the server does not write either.
* Only a file that was just made gets another owner or mode, and always by its descriptor.

For other users nothing of this is needed: the kernel grants no more than the user's own rights.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from typing import NamedTuple, Self

__all__ = [
    "Identity",
    "Place",
    "acting_as",
    "home",
    "is_root",
    "logical_directory",
    "open_to_append",
    "replace",
    "set_home",
    "set_socket",
]

# O_PATH needs no permission to read, and opens no device. Where it is missing, root can read anyway.
_PATH = getattr(os, "O_PATH", os.O_RDONLY)
# Windows has none of these: no root, and descriptors that no child inherits.
_CLOEXEC = getattr(os, "O_CLOEXEC", 0)
_NONBLOCK = getattr(os, "O_NONBLOCK", 0)
_DIRECTORY = _PATH | getattr(os, "O_DIRECTORY", 0) | _CLOEXEC
_MOST_LINKS = 40  # as Linux has it

File = tuple[int, int]


_home = ""


def logical_directory() -> str:
    """Return the current directory by its usual name, which may lead through links (``$PWD``).

    A deployment that switches the link ``current`` means the name, and not the directory behind it.
    """
    name = os.environ.get("PWD", "")
    try:
        if os.path.isabs(name) and os.path.samefile(name, os.curdir):
            return name
    except OSError:  # there is no such directory (any more), or this user may not enter it
        pass
    return os.getcwd()


def home() -> str:
    """Return the directory that relative names refer to, even if this process has changed its own since."""
    return _home or logical_directory()


def set_home(directory: str) -> None:
    """Set what :func:`home` returns, an absolute path; empty for the current directory."""
    global _home
    _home = directory


class Identity(NamedTuple):
    """The user that a process of root will become.

    Attributes:
        name: For messages.
        uid: The user.
        gid: The group.
        groups: All groups.
    """

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]


def is_root() -> bool:
    """Tell whether this process has the rights of root; False on systems without root."""
    return hasattr(os, "geteuid") and os.geteuid() == 0


@contextlib.contextmanager
def acting_as(identity: Identity) -> Iterator[None]:
    """In the block, have the rights of *identity* and no others. Only root can do this.

    Raises:
        OSError: This root may not become another user, as in some containers.
    """
    groups, gid, uid = os.getgroups(), os.getegid(), os.geteuid()
    try:
        os.setgroups(identity.groups)
        os.setegid(identity.gid)
        os.seteuid(identity.uid)
        yield
    finally:
        os.seteuid(uid)
        os.setegid(gid)
        os.setgroups(groups)


class Place:
    """A name in a directory that is held open. Close it, or use it as a context manager.

    Attributes:
        directory: The directory's descriptor, for ``dir_fd``.
        name: The name in it.
        others: Says who else may write to which directory on the way. Empty if no other user may, and always if this
            process is not root.
    """

    __slots__ = ("directory", "name", "others")

    def __init__(self, directory: int, name: str, others: str = "") -> None:
        self.directory = directory
        self.name = name
        self.others = others

    @classmethod
    def of(cls, path: str | bytes, *, follow: bool = False) -> Self:
        """Return the place that *path* names.

        Args:
            path: The path.
            follow: If a link is there, return the place that it leads to. (As root only.)

        Raises:
            OSError: The directory does not exist or cannot be searched; or root would have to follow a link that
                somebody else can change.
        """
        path = os.path.abspath(os.fsdecode(path))
        if not os.path.basename(path):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not is_root():
            return cls(os.open(os.path.dirname(path), _DIRECTORY), os.path.basename(path))
        return cls(*_walk(path, follow))

    def open(self, flags: int, mode: int = 0o644) -> int:
        """Open the file of this name; see ``os.open``."""
        return os.open(self.name, flags | _CLOEXEC, mode, dir_fd=self.directory)

    def status(self) -> os.stat_result | None:
        """Return the status of the file with this name, of a link itself too; None if there is none."""
        try:
            return os.stat(self.name, dir_fd=self.directory, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def file(self) -> File | None:
        """Return device and inode of the file with this name; None if there is none."""
        status = self.status()
        return None if status is None else (status.st_dev, status.st_ino)

    def unlink(self) -> None:
        """Remove the name."""
        os.unlink(self.name, dir_fd=self.directory)

    def writable(self) -> bool:
        """Tell whether this process, with the rights that it has now, may make files in the directory."""
        return os.access(".", os.W_OK | os.X_OK, dir_fd=self.directory, effective_ids=True)

    def close(self) -> None:
        """Close the directory."""
        os.close(self.directory)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _walk(path: str, follow: bool) -> tuple[int, str, str]:
    """Return directory, name and others of a Place. No link that another user can change is followed."""
    todo = _parts(path)
    walked: list[str] = []
    links = 0
    here = os.open("/", _DIRECTORY)
    try:
        while True:
            name = todo.pop()
            if todo or name == "..":
                try:
                    below = os.open(name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=here)
                except OSError as exc:
                    if exc.errno not in {errno.ELOOP, errno.ENOTDIR}:
                        raise
                else:
                    os.close(here)
                    here = below
                    walked[len(walked) - (name == "..") :] = [] if name == ".." else [name]
                    if not todo:  # a link has led to a directory
                        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
                    continue
            elif not follow or _is_descriptor(walked):
                return here, name, _others(here, walked)
            try:
                target = os.readlink(name, dir_fd=here)
            except OSError as exc:
                if not todo:  # no link, or nothing yet
                    return here, name, _others(here, walked)
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)) from exc
            others = _others(here, walked)
            if others:
                link = "/" + "/".join([*walked, name])
                raise PermissionError(
                    errno.EPERM, f"{link} is a link, and {others}; remove it, or name what it leads to"
                )
            links += 1
            if links > _MOST_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
            if target.startswith("/"):
                os.close(here)
                here = os.open("/", _DIRECTORY)
                walked.clear()
            todo += _parts(target)
    except BaseException:
        os.close(here)
        raise


def _parts(path: str) -> list[str]:
    """Return the parts of *path*, the last one first."""
    return [part for part in reversed(path.split("/")) if part not in {"", "."}] or ["."]


def _is_descriptor(walked: list[str]) -> bool:
    """Tell whether this is /proc/PID/fd, where /dev/stderr leads: only the kernel decides where its links lead."""
    return len(walked) == 3 and walked[0] == "proc" and walked[2] == "fd"


def _others(directory: int, walked: list[str]) -> str:
    """Say who but root may write to *directory*; return an empty text if no other user may."""
    status = os.fstat(directory)
    if status.st_uid != 0:
        who = user_name(status.st_uid)
    elif status.st_mode & stat.S_IWOTH:
        who = "everybody"
    elif status.st_mode & stat.S_IWGRP:
        who = f"group {_group_name(status.st_gid)}"
    else:
        return ""
    return f"{who} may write to /{'/'.join(walked)}"


def user_name(uid: int) -> str:
    """Return the name of a user, for messages."""
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def _group_name(gid: int) -> str:
    import grp

    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


# --- log files -------------------------------------------------------------------------------------------------------


def open_to_append(path: str, later: Identity | None = None, *, wait: bool = True) -> int:
    """Return a descriptor for appending to the file *path*, which is made if it does not exist.

    Args:
        path: The file.
        later: Whom this process will become, and who will open the file again; None if it stays what it is. A file that
            root makes is given to them.
        wait: A pipe may be opened only when somebody reads it; wait for that. (Root never waits for others.)

    Raises:
        OSError: The file cannot be opened or must not be; ``strerror`` says why and what to do.
    """
    flags = os.O_WRONLY | os.O_APPEND | (0 if wait else _NONBLOCK)
    if not is_root():
        descriptor = os.open(path, flags | os.O_CREAT | _CLOEXEC, 0o644)
    else:
        with Place.of(path, follow=True) as place:
            open_ = _open_beside_others if place.others else _open_or_make
            descriptor = open_(place, flags, later)
    if _NONBLOCK:
        os.set_blocking(descriptor, True)
    return descriptor


def _open_or_make(place: Place, flags: int, later: Identity | None) -> int:
    """Open as root. Give a file that was made to its later owner."""
    try:
        descriptor = place.open(flags | os.O_CREAT | os.O_EXCL)
    except FileExistsError:
        return place.open(flags)
    if later is not None:
        os.fchown(descriptor, later.uid, later.gid)
    return descriptor


def _open_beside_others(place: Place, flags: int, later: Identity | None) -> int:
    """Open as root a file that another user may have put there."""
    flags |= os.O_NOFOLLOW | os.O_NONBLOCK  # a pipe must not hold this process
    descriptor = -1
    try:
        if later is not None and later.uid != 0:
            descriptor = _open_as(later, place, flags)
        if descriptor < 0:
            descriptor = _open_or_make(place, flags, later)
            _refuse_anothers(place, descriptor, later)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.ENXIO, "")
    except OSError as exc:
        if descriptor >= 0:
            os.close(descriptor)
        if exc.errno in {errno.ELOOP, errno.EMLINK}:
            raise PermissionError(errno.EPERM, f"it is a link, and {place.others}; remove it") from exc
        if exc.errno == errno.ENXIO:
            raise PermissionError(errno.EPERM, f"it is no regular file, and {place.others}; remove it") from exc
        raise
    return descriptor


def _open_as(later: Identity, place: Place, flags: int) -> int:
    """Open or make a file with the rights of *later*. Return -1 if *later* may not make files there."""
    with acting_as(later):
        try:
            return place.open(flags | os.O_CREAT)
        except PermissionError as exc:
            if place.writable():
                hint = f"remove it, or give it to {later.name}"
                raise PermissionError(exc.errno, f"{later.name} may not write to this file; {hint}") from exc
    return -1


def _refuse_anothers(place: Place, descriptor: int, later: Identity | None) -> None:
    """Refuse a file that has other names (hard links), or an owner who must not read what root writes."""
    owners = {0, os.fstat(place.directory).st_uid}
    if later is not None:
        owners.add(later.uid)
    first, named, last = os.fstat(descriptor), place.status(), os.fstat(descriptor)
    if not stat.S_ISREG(first.st_mode):
        return  # refused by the caller
    if first.st_uid not in owners:
        raise PermissionError(errno.EPERM, f"it is {user_name(first.st_uid)}'s, and {place.others}; remove it")
    one = named is not None and (named.st_dev, named.st_ino, named.st_nlink) == (first.st_dev, first.st_ino, 1)
    if not one or (first.st_nlink, last.st_nlink) != (1, 1):
        raise PermissionError(errno.EPERM, f"it has other names (hard links), and {place.others}; remove it")


# --- sockets ---------------------------------------------------------------------------------------------------------


def set_socket(place: Place, mode: int, owner: tuple[int, int] | None = None) -> File:
    """Set the mode and the owner of the file of a socket that was bound just now, and return its device and inode.

    Nobody may listen on it yet: this tells it from a socket that somebody else has put in its place.

    Args:
        place: Where it is.
        mode: Its permissions.
        owner: User and group (numbers); -1 for one that stays. None if both stay.

    Raises:
        OSError: There is another file, or its mode or owner cannot be changed.
    """
    replaced = PermissionError(errno.EPERM, f"it was replaced while it was made{place.others and ': '}{place.others}")
    try:
        descriptor = place.open(_PATH | os.O_NOFOLLOW)
    except OSError as exc:
        if not hasattr(os, "O_PATH") and exc.errno in {errno.ENXIO, errno.EOPNOTSUPP}:
            return _set_socket_by_name(place, mode, owner)
        raise replaced from exc
    try:
        status = os.fstat(descriptor)
        by_descriptor = f"/proc/self/fd/{descriptor}"
        if not os.path.lexists(by_descriptor):
            return _set_socket_by_name(place, mode, owner)
        ours = not place.others or (status.st_uid, status.st_nlink) == (os.geteuid(), 1)
        if not stat.S_ISSOCK(status.st_mode) or not ours or _connect(by_descriptor) != errno.ECONNREFUSED:
            raise replaced
        os.chmod(by_descriptor, mode)
        if owner is not None:
            try:
                os.chown(by_descriptor, *owner)
            except OSError as exc:
                raise PermissionError(errno.EPERM, f"its owner cannot be changed: {exc.strerror}") from exc
    finally:
        os.close(descriptor)
    return status.st_dev, status.st_ino


def _set_socket_by_name(place: Place, mode: int, owner: tuple[int, int] | None) -> File:
    """Do the same as set_socket without /proc, or without a descriptor for the socket's file."""
    if place.others:
        raise PermissionError(errno.EPERM, f"its mode cannot be set safely here: {place.others}")
    os.chmod(place.name, mode, dir_fd=place.directory)
    if owner is not None:
        os.chown(place.name, *owner, dir_fd=place.directory, follow_symlinks=False)
    file = place.file()
    assert file is not None
    return file


def _connect(path: str) -> int:
    import socket

    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        return probe.connect_ex(path)


# --- files that are replaced as a whole ------------------------------------------------------------------------------


def replace(path: str, content: bytes) -> int:
    """Make a new file, locked, and give it the name atomically. An earlier file or link only loses the name.

    Returns:
        The descriptor of the new file. It holds the lock (``flock``), where the file system has locks.

    Raises:
        OSError: The file cannot be made.
    """
    import fcntl

    new = f".bridge-{os.urandom(8).hex()}"
    with Place.of(path) as place:
        here = place.directory
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(new, flags, 0o644, dir_fd=here)
        try:
            os.write(descriptor, content)
            with contextlib.suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.replace(new, place.name, src_dir_fd=here, dst_dir_fd=here)
        except BaseException:
            os.close(descriptor)
            with contextlib.suppress(OSError):
                os.unlink(new, dir_fd=here)
            raise
    return descriptor
