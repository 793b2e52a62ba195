"""Watches source files, for ``--reload``.

A separate process watches, so that the master has no threads and imports no third-party library.
"""

from __future__ import annotations

import os
from fnmatch import fnmatch
from pathlib import Path

from bridge.config import Config
from bridge.errors import ConfigError
from bridge.serving.privileges import drop_privileges
from bridge.supervisor.channel import Channel, Message
from bridge.supervisor.helper import Helper
from bridge.supervisor.messages import FromWatcher

__all__ = ["Watcher", "watched"]

# Changes below directories of these names never matter.
_IGNORED = frozenset({"__pycache__", ".git", ".hg", ".svn", ".venv", "node_modules", ".mypy_cache", ".pytest_cache"})


class Watcher:
    """Reports changed files: :meth:`receive` returns messages with the word CHANGED.

    Args:
        config: Names the directories and the patterns to watch.

    Attributes:
        pid: The watching process.

    Raises:
        ConfigError: watchfiles is not installed, or a directory does not exist.
    """

    def __init__(self, config: Config) -> None:
        try:
            import watchfiles  # noqa: F401 - imported only to check that it is installed
        except ImportError:
            raise ConfigError("--reload: needs the package watchfiles: pip install watchfiles") from None
        directories = config.reload_dir or (config.app_dir or os.getcwd(),)
        for directory in directories:
            if not os.path.isdir(directory):
                raise ConfigError(f"--reload-dir {directory}: not a directory")
        self._helper = Helper(lambda channel: _watch(config, directories, channel), "bridge: --reload")
        self._channel = self._helper.channel
        self.pid = self._helper.pid

    @property
    def open(self) -> bool:
        """The watching process has not been seen to end."""
        return self._channel.open

    def fileno(self) -> int:
        """Return the descriptor that becomes readable when files have changed."""
        return self._channel.fileno()

    def receive(self) -> list[Message]:
        """Return the messages that have arrived."""
        return self._channel.receive()

    def abandon(self) -> None:
        """Close this end of the line, in a child."""
        self._channel.close()

    def close(self) -> None:
        """End the watching process."""
        self._helper.close(0.0)  # it has no state that could be lost


def _watch(config: Config, directories: tuple[str, ...], channel: Channel) -> int:
    """Watch until the master is gone. This runs in the child."""
    from watchfiles import watch

    drop_privileges(config)
    changes = watch(
        *directories,
        watch_filter=lambda _, path: watched(config, directories, path),
        debounce=max(int(config.reload_delay * 1000), 1),
        step=max(int(config.reload_delay * 500), 1),
        rust_timeout=500,
        yield_on_timeout=True,
        raise_interrupt=False,
        ignore_permission_denied=True,  # such as the directory of a database
    )
    for found in changes:
        if found:
            channel.send(FromWatcher.CHANGED, *sorted({_short(path) for _, path in found})[:10])
        channel.receive()  # the master sends nothing; this notices when it is gone
        if not channel.open:
            break
    return 0


def watched(config: Config, directories: tuple[str, ...], path: str) -> bool:
    """Tell whether a change of the file *path* asks for a reload."""
    name = os.path.basename(path)
    inside = next((os.path.relpath(path, root) for root in directories if Path(path).is_relative_to(root)), name)
    parts = Path(inside).parts
    if any(part in _IGNORED for part in parts):
        return False
    for pattern in config.reload_exclude:
        if fnmatch(inside, pattern) or any(fnmatch(part, pattern) for part in parts):
            return False
    return name.endswith(".py") or any(
        fnmatch(name, pattern) or fnmatch(inside, pattern) for pattern in config.reload_include
    )


def _short(path: str) -> str:
    try:
        relative = os.path.relpath(path)
    except ValueError:
        return path
    return path if relative.startswith("..") else relative
