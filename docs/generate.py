"""Write the parts of the documentation that come from the code: ``python docs/generate.py``, or ``make docs``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bridge.config.reference import options_page
from bridge.core.connection.states import READING_TABLE, WRITING_TABLE
from bridge.dialects.reference import dialects_page

DOCS = Path(__file__).parent


def states_table(machine: Mapping[Any, Mapping[str, Any]]) -> str:
    """Return a machine's table: each state, what holds in it, and which event leads where."""
    rows = ["| State | What holds | Event → next state |", "|---|---|---|"]
    for state, events in machine.items():
        steps = ", ".join(f"{event} → {following.name}" for event, following in events.items())
        rows.append(f"| {state.name} | {state.meaning} | {steps} |")
    return "\n".join(rows)


def with_tables(text: str) -> str:
    """Return the architecture page *text* with the tables of the two machines as the code has them."""
    for name, machine in (("reading", READING_TABLE), ("writing", WRITING_TABLE)):
        text, count = re.subn(
            rf"(<!-- {name} -->\n).*?(\n<!-- end -->)",
            lambda match, machine=machine: match[1] + states_table(machine) + match[2],
            text,
            flags=re.DOTALL,
        )
        assert count == 1, f"the page has no place for the table of {name}"
    return text


def main() -> None:
    """Write the pages anew."""
    (DOCS / "options.md").write_text(options_page(), encoding="utf-8")
    (DOCS / "dialects.md").write_text(dialects_page(), encoding="utf-8")
    page = DOCS / "architecture.md"
    page.write_text(with_tables(page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
