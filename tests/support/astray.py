"""What the owner of a directory can do to lead root astray, who opens a file there by name."""

from __future__ import annotations

import contextlib
import os
import pwd
from pathlib import Path
from typing import Protocol

__all__ = ["NOBODY", "another_directory", "clear", "dangling", "hard_link", "link", "pipe"]

NOBODY = pwd.getpwnam("nobody")


class Scene(Protocol):
    """A directory of root's, and one of nobody's.

    Attributes:
        roots: Root's directory.
        secret: A file in it.
        site: Nobody's directory.
        path: What root opens, in a directory of its own below it.
    """

    roots: Path
    secret: Path
    site: Path
    path: Path


def clear(scene: Scene) -> None:
    with contextlib.suppress(OSError):
        os.unlink(scene.path)


def link(scene: Scene) -> None:
    clear(scene)
    os.symlink(scene.secret, scene.path)


def dangling(scene: Scene) -> None:
    clear(scene)
    os.symlink(scene.roots / "new", scene.path)


def hard_link(scene: Scene) -> None:
    clear(scene)
    os.link(scene.secret, scene.path)


def pipe(scene: Scene) -> None:
    clear(scene)
    os.mkfifo(scene.path)
    os.chmod(scene.path, 0o666)
    os.chown(scene.path, NOBODY.pw_uid, -1)


def another_directory(scene: Scene) -> None:
    os.rename(scene.path.parent, scene.site / "away")
    os.symlink(scene.roots, scene.path.parent)
