"""``bridge install-shims DIR``: scripts with other servers' names, for platforms that start a server by its name."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from bridge.dialects import NAMES
from bridge.errors import ConfigError

__all__ = ["install_shims"]

_USAGE = f"""\
usage: bridge install-shims DIR

Writes scripts called {", ".join(NAMES)} into DIR.
Each starts bridge with the command line of that server. Put DIR in front of PATH.
"""
_MARK = "# made by bridge install-shims\n"
_SCRIPT = """\
#!{python}
{mark}import sys

from bridge.cli import main

sys.argv.insert(1, "{name}")
sys.exit(main())
"""


def install_shims(words: Sequence[str]) -> int:
    """Write the scripts; return the exit status.

    Args:
        words: The directory.

    Raises:
        ConfigError: A file in it was not made by bridge, or cannot be written.
    """
    if len(words) != 1 or words[0] in {"--help", "-h"}:
        print(_USAGE, end="")
        return 0 if words[:1] in (["--help"], ["-h"]) else 2
    directory = os.path.abspath(words[0])
    paths = {name: os.path.join(directory, name) for name in NAMES}
    try:
        os.makedirs(directory, exist_ok=True)
        for path in paths.values():
            if os.path.lexists(path) and not _is_ours(path):
                raise ConfigError(f"install-shims: {path}: this file is not bridge's; choose another directory")
        for name, path in paths.items():
            new = f"{path}.{os.getpid()}"
            with open(new, "w", encoding="utf-8") as file:
                file.write(_SCRIPT.format(python=sys.executable, mark=_MARK, name=name))
            os.chmod(new, 0o755)  # noqa: S103 - a command is for everybody
            os.replace(new, path)
    except OSError as exc:
        raise ConfigError(f"install-shims: {exc.filename or directory}: {exc.strerror or exc}") from exc
    print(f"{directory} has {', '.join(NAMES)}; put it in front of PATH:\n  export PATH={directory}:$PATH")
    return 0


def _is_ours(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            file.readline(4096)
            return file.readline(200) == _MARK.encode()
    except OSError:  # a directory, or a link to nothing
        return False
