"""The tables of all dialects in words: ``docs/dialects.md``."""

from __future__ import annotations

from bridge.dialects import NAMES, dialect
from bridge.dialects.table import Fate

__all__ = ["dialects_page"]

_PAGE = """\
<!-- Generated from the tables in bridge/dialects/ by `make docs`; do not edit. -->

# Command lines of other servers

`bridge gunicorn ARGS...` reads what follows as gunicorn does, with gunicorn's variables and files, and serves with
bridge. `bridge explain gunicorn ARGS...` says what becomes of each option; `--json` does so for programs, and `--toml`
writes a `bridge.toml`. Its exit status is 0 if all options mean the same or nearly the same, 1 if one has no effect, 2
if one is refused. `BRIDGE_...` variables hold too; they come between the other server's defaults and what its command
line gives.

The kinds are: {kinds}. An option that is refused ends the start with status 2 and the reason. One without effect is
named in a line at the start.
{dialects}"""


def dialects_page() -> str:
    """Return the text of the page."""
    parts = []
    for name in NAMES:
        spoken = dialect(name)
        parts.append(f"\n## {name} {spoken.version}\n\n| option | kind | becomes | remark |\n|---|---|---|---|")
        for row in spoken.rows:
            words = row.spellings or (row.name,)
            options = ", ".join(f"`{word}`" for word in (*words, *row.negative))
            becomes = ", ".join(f"`{setting}`" for setting in row.becomes.split())
            parts.append(f"| {options} | {row.fate} | {becomes} | {row.remark.replace('|', '/')} |")
    return _PAGE.format(kinds=", ".join(Fate), dialects="\n".join(parts) + "\n")
