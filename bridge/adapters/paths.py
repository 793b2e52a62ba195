"""How the paths of requests compare with the places where applications are mounted."""

from __future__ import annotations

__all__ = ["is_below"]


def is_below(path: str, root: str) -> bool:
    """Tell whether *path* is *root*, or *root* and a slash and more: ``/apix`` is not below ``/api``.

    Args:
        path: A request's path.
        root: A mount point, without a slash at the end; empty for the root, above every path that begins with a slash.
            Both are decoded in the same way.
    """
    return path == root or path.startswith(root + "/")
