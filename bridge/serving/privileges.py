"""The user and group of the process, which root gives up after the sockets are bound."""

from __future__ import annotations

import os

from bridge.config import Config
from bridge.errors import ConfigError
from bridge.files import Identity
from bridge.serving.process import leave_forbidden_directory
from bridge.telemetry.logs import configure_rest

__all__ = ["drop_privileges", "future_identity", "owner_ids"]


def drop_privileges(config: Config) -> None:
    """Become ``--user``, with all groups of that user, and ``--group``. Without these settings do nothing.

    Then configure Python's logging, if that has waited; see :func:`bridge.telemetry.logs.configure`.

    Raises:
        ConfigError: They do not exist, or this process may not become them.
    """
    if config.user is None and config.group is None:
        return
    user, group = _identity(config)
    try:
        if user is not None and os.geteuid() == 0:
            assert group is not None
            if user[2]:
                os.initgroups(user[2], group)
            else:
                os.setgroups([group])
        elif group is not None and os.geteuid() == 0:
            os.setgroups([group])
        if group is not None and (os.getgid(), os.getegid()) != (group, group):
            os.setgid(group)
        if user is not None and (os.getuid(), os.geteuid()) != (user[0], user[0]):
            os.setuid(user[0])
    except OSError as exc:
        who = f"--user {config.user}" if config.user is not None else f"--group {config.group}"
        raise ConfigError(f"{who}: {exc.strerror}; only root can change user and group") from exc
    leave_forbidden_directory()
    configure_rest()


def future_identity(config: Config) -> Identity | None:
    """Return the user and groups that this process will become; None if it stays as it is.

    Raises:
        ConfigError: The user or the group does not exist.
    """
    if config.user is None and config.group is None:
        return None
    user, group = _identity(config)
    assert group is not None
    if user is None:
        return Identity(f"group {config.group}", os.geteuid(), group, (group,))
    groups = tuple(os.getgrouplist(user[2], group)) if user[2] else (group,)
    return Identity(user[2] or f"user {user[0]}", user[0], group, groups)


# (uid_t) -1 means "no change".
_NOBODY_AT_ALL = 2**32 - 1


def _identity(config: Config) -> tuple[tuple[int, int, str] | None, int | None]:
    user = None if config.user is None else _user("--user", config.user)
    group = None if config.group is None else _group("--group", config.group)
    if group is None and user is not None:
        group = user[1]
    return user, group


def owner_ids(option: str, owner: str) -> tuple[int, int]:
    """Return the numbers of ``USER``, ``USER:GROUP`` or ``:GROUP``; -1 for the one that is not named.

    Args:
        option: The setting, for error messages.
        owner: The text.

    Raises:
        ConfigError: One of them does not exist.
    """
    user, _, group = owner.partition(":")
    return (
        _user(option, user)[0] if user else -1,
        _group(option, group) if group else -1,
    )


def _user(option: str, name: str) -> tuple[int, int, str]:
    """Return number, group number and name of a user. A number without an entry has the group of that number."""
    import pwd

    try:
        entry = pwd.getpwuid(int(name)) if name.isdecimal() else pwd.getpwnam(name)
    except KeyError:
        if name.isdecimal() and int(name) < _NOBODY_AT_ALL:
            return int(name), int(name), ""  # usual in containers: a number is enough for the system
        raise ConfigError(f"{option}: there is no user {name!r}") from None
    return entry.pw_uid, entry.pw_gid, entry.pw_name


def _group(option: str, name: str) -> int:
    import grp

    try:
        return int(name) if name.isdecimal() else grp.getgrnam(name).gr_gid
    except KeyError:
        raise ConfigError(f"{option}: there is no group {name!r}") from None
