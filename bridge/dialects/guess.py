"""Guesses which server a command line belongs to."""

from __future__ import annotations

from collections.abc import Sequence

from bridge.config.settings import SETTINGS
from bridge.dialects import NAMES, dialect
from bridge.dialects.parsing import parse
from bridge.dialects.table import Usage

__all__ = ["guess"]


def guess(words: Sequence[str]) -> list[str]:
    """Return the servers that accept the command line *words*, if it has an option that bridge lacks."""
    own = {spelling for row in SETTINGS for spelling in row.spellings}
    found = []
    for name in NAMES:
        if name == "uwsgi":
            continue
        spoken = dialect(name)
        try:
            options, arguments = parse(spoken.rows, words, spoken.grammar)
        except Usage:
            continue
        written = [option.origin for option in options if any(word.startswith(option.origin) for word in words)]
        if arguments and any(spelling not in own for spelling in written):
            found.append(name)
    return found
