"""The table of settings in words: the help of the command line, and ``docs/options.md``.

``python -m bridge.config.reference > docs/options.md`` writes that page.
"""

from __future__ import annotations

import json
import sys
import textwrap

from bridge.config.layers import Layer
from bridge.config.settings import GROUPS, SETTINGS
from bridge.config.table import Setting, show

__all__ = ["options_page", "resolved", "run_help"]

_HELP_COLUMN = 36
_NO_BREAK = "\N{NO-BREAK SPACE}"

_RUN_HELP = """\
usage: bridge run TARGET [options]

Serve an ASGI, WSGI or Tornado-style application.

{groups}

{configuration}

{remarks}
"""
_REMARKS = """\
Every option is an environment variable as well: --port 8000 is BRIDGE_PORT=8000, --factory is BRIDGE_FACTORY=on.
The command line overrides the environment, which overrides the file. An option without a value has a --no- form.
Sizes are bytes or 64k, 10M, 1GiB; times are seconds or 500ms, 30s, 5m.
"""

_PAGE = """\
<!-- Generated from the tables in bridge/config/ by `make docs`; do not edit. -->

# Options

You can set every option in three ways: on the command line of `bridge run TARGET [options]`, in the environment, or
in a file. The tables have the name of the environment variable below each option.

The file is the one that `-c FILE`, `--config FILE` or `BRIDGE_CONFIG` names. If none is named, it is `bridge.toml` or
the table `[tool.bridge]` of `pyproject.toml` in the current directory. In a file, write `limit_request_body` or
`limit-request-body`. A name that does not exist is an error.

The command line overrides the environment, the environment overrides the file, and the file overrides the default.
`--print-config` prints every setting with its value and where it comes from. `--check-config` checks the settings and
the files that they name, and imports the application.

* **Sizes** are bytes, or have a suffix in powers of 1024: `8190`, `64k`, `10M`, `1GiB`.
* **Times** are seconds, or have a suffix: `30`, `0.5`, `500ms`, `30s`, `5m`, `2h`.
* **Switches** are `--name` and `--no-name` on the command line, `on` and `off` in the environment.
* **Lists** are separated by commas. You can also repeat the option.
* `off` switches off a limit or a timeout whose default in the table is `off` or says "may be `off`".

If a value is not allowed, the server does not start: the exit status is 2, and one line says what is allowed.

bridge treats an empty variable as absent, and ignores a variable `BRIDGE_...` that is not listed here. In Kubernetes,
a service called `bridge` sets `BRIDGE_PORT` in every pod of its namespace; `enableServiceLinks: false` in the pod
prevents this.

`--host` and `--port` belong together, and name one address. `--bind`, `--uds` and `--fd` replace them, and you can
combine these three. A source that names an address replaces all addresses of the sources below it: `--port 9000` on
the command line makes bridge ignore `BRIDGE_BIND`. If a hosting platform sets `PORT`, bridge listens on that port on
every interface, unless you set a host.
{groups}
## Other spellings

bridge also accepts these names, which other servers use for the same options. They work in the environment too
(`BRIDGE_KEYFILE`), and you can write an underscore for a dash. The values have the form that is described above.

| Other name | Option |
|---|---|
{aliases}
"""


_META = (
    ("-c, --config FILE", "take settings from this file [bridge.toml, or [tool.bridge] in pyproject.toml]"),
    ("--check-config", "check the settings and import the application, but serve nothing"),
    ("--print-config", "print every setting with its value and where it comes from"),
)


def run_help(width: int) -> str:
    """Return the help of ``bridge run``, wrapped to *width* columns."""
    width = max(64, min(width, 110))  # below that, words would have to be broken
    groups = []
    for group in GROUPS:
        lines = [f"{group}:"]
        for row in SETTINGS:
            if row.group == group:
                lines += _entry(row, width)
        groups.append("\n".join(lines))
    lines = ["Configuration:"]
    for name, meaning in _META:
        lines += _lines(name, meaning, width)
    remarks = "\n".join(
        textwrap.fill(line, width, break_on_hyphens=False, break_long_words=False) for line in _REMARKS.splitlines()
    )
    return _RUN_HELP.format(groups="\n\n".join(groups), configuration="\n".join(lines), remarks=remarks)


def options_page() -> str:
    """Return the text of ``docs/options.md``."""
    groups = []
    for group in GROUPS:
        groups.append(f"\n## {group}\n\n| option | default | meaning |\n|---|---|---|")
        groups += [_table_row(row) for row in SETTINGS if row.group == group]
    aliases = [
        f"| {', '.join(f'`--{alias}`' for alias in row.aliases)} | `{row.option}` |" for row in SETTINGS if row.aliases
    ]
    return _PAGE.format(groups="\n".join(groups) + "\n", aliases="\n".join(aliases))


def resolved(layer: Layer) -> str:
    """Return every setting with its value and its origin, in the form of a configuration file."""
    lines = []
    for row in SETTINGS:
        given = layer.get(row.name)
        if given is not None:
            secret = row.secret
            value = '"..."' if secret else json.dumps(given.text, ensure_ascii=False)
            lines.append(f"{row.name} = {value}  # {given.origin}")
        elif row.shown and isinstance(row.default, tuple):  # the meaning of the list depends on other settings
            lines.append(f"# {row.name} is not given: {row.shown}  # default")
        elif row.default in (None, (), "") or (row.default == "auto" and not row.kind.choices):
            is_off = row.default is None and row.kind.can_be_off
            off = f'{row.name} = "off"' if is_off else f"# {row.name} is not given"
            lines.append(f"{off}  # default")
        else:
            lines.append(f"{row.name} = {_toml(row)}  # default")
    return "\n".join(lines) + "\n"


def _toml(row: Setting) -> str:
    value = row.default
    if isinstance(value, bool):
        return "true" if value else "false"
    if row.kind.metavar == "OCTAL":
        return f'"{value:o}"'
    if isinstance(value, tuple):
        return json.dumps([str(item) for item in value])
    return json.dumps(value)


def _entry(row: Setting, width: int) -> list[str]:
    """Return the help lines of one option: its name on the left, its meaning and default on the right."""
    default = show(row)
    # A switch that is off by default, or an absent value, needs no default in the help. Other defaults must not be
    # broken between two lines.
    ending = f" [{default}]" if default and row.default is not False else ""
    # A list that is longer than a line is broken behind its commas, never within a word.
    ending = ending.replace(" ", _NO_BREAK) if len(ending) <= width - _HELP_COLUMN else ending.replace(",", ", ")
    return _lines(_invocation(row), f"{_meaning(row)} {ending[1:]}", width)


def _lines(name: str, meaning: str, width: int) -> list[str]:
    lines = textwrap.wrap(meaning, width - _HELP_COLUMN, break_on_hyphens=False, break_long_words=False)
    lines[0] = f"{'  ' + name:{_HELP_COLUMN}}{lines[0]}"
    lines[1:] = [" " * _HELP_COLUMN + line for line in lines[1:]]
    return [line.replace(_NO_BREAK, " ") for line in lines]


def _invocation(row: Setting) -> str:
    if row.positional:
        return row.name.upper()
    if row.is_switch:
        return f"--[no-]{row.option[2:]}" if row.default else row.option
    return f"{row.short + ', ' if row.short else ''}{row.option} {row.kind.metavar}"


def _meaning(row: Setting) -> str:
    return row.help.replace("CHOICES", ", ".join(row.kind.choices))


def _table_row(row: Setting) -> str:
    name = row.name.upper() if row.positional else f"{row.option} {row.kind.metavar}".strip()
    if row.short:
        name = f"{row.short}, {name}"
    variables = ", ".join(f"`{name}`" for name in (*row.environment[:1], *row.foreign))
    default = f"`{show(row)}`" if show(row) and not row.shown else row.shown
    if row.kind.can_be_off and row.default is not None:
        default += ", may be `off`"
    return f"| `{name}`<br>{variables} | {default} | {_meaning(row)} |"


if __name__ == "__main__":
    sys.stdout.write(options_page())
