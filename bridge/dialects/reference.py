"""The tables of all dialects in words: ``docs/dialects.md``."""

from __future__ import annotations

from bridge.dialects import NAMES, dialect
from bridge.dialects.table import Fate

__all__ = ["dialects_page"]

_PAGE = """\
<!-- Generated from the tables in bridge/dialects/ by `make docs`; do not edit. -->

# Command lines of other servers

`bridge gunicorn ARGS...` reads the command line, the variables and the files of gunicorn, and serves with bridge. To
see what each option becomes, run `bridge explain gunicorn ARGS...`. Its exit status is 0 if all options mean the same
or nearly the same, 1 if one has no effect, and 2 if one is refused. With `--json` it prints JSON; with `--toml` it
prints a `bridge.toml` with the same settings.

`BRIDGE_...` variables have an effect too: they override the other server's defaults, and its command line overrides
them.

The tables list all options of each server. The kinds are: {kinds}. If an option is refused, the server does not start:
the exit status is 2, and one line says why. If an option has no effect, a line at the start names it. The column
"becomes" has the setting of bridge; [Options](options.md) explains it.
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
