"""``bridge explain SERVER ARGS...``: what becomes of each option of another server's command line."""

from __future__ import annotations

import json
import shutil
import sys
import textwrap
from collections.abc import Mapping, Sequence

from bridge.config.layers import Layer
from bridge.config.settings import SETTINGS
from bridge.dialects import NAMES, dialect
from bridge.dialects.command import explanation
from bridge.dialects.table import Dialect, Fate, Outcome, Translation, Usage
from bridge.errors import ConfigError

__all__ = ["explain", "toml"]

_ROWS = {row.name: row for row in SETTINGS}
_USAGE = f"usage: bridge explain [--json | --toml] SERVER ARGS...\n\nSERVER is one of {', '.join(NAMES)}.\n"


def explain(words: Sequence[str], environ: Mapping[str, str]) -> int:
    """Print what becomes of each option. Return 0 if all is the same or near, 1 if something has no effect, else 2.

    Raises:
        ConfigError: A file or a value cannot be used.
    """
    forms = [word for word in words if word in {"--json", "--toml"}]
    words = [word for word in words if word not in {"--json", "--toml"}]
    if len(set(forms)) > 1:
        raise ConfigError("--json and --toml: choose one of them")
    if not words or words[0] in {"--help", "-h"}:
        print(_USAGE, end="")
        return 0 if words else 2
    if words[0] not in NAMES:
        raise ConfigError(f"{words[0]}: bridge knows the command lines of {', '.join(NAMES)}")
    try:
        spoken, translation = explanation(words, environ)
    except Usage as exc:
        sys.stderr.write(dialect(words[0]).complaint(exc))
        return 2
    if "--json" in forms:
        print(_json(spoken, translation))
    elif "--toml" in forms:
        print(toml(spoken, translation, environ), end="")
    else:
        print(_table(spoken, translation), end="")
    return translation.status


def _json(spoken: Dialect, translation: Translation) -> str:
    return json.dumps(
        {
            "server": spoken.name,
            "version": spoken.version,
            "status": translation.status,
            "options": [outcome._asdict() for outcome in map(_without_secret, translation.outcomes)],
            "defaults": {name: given.text for name, given in _defaults(translation).items()},
            "settings": {name: _shown(name, given.text) for name, given in translation.layer.items()},
        },
        indent=2,
    )


def _shown(name: str, text: str) -> str:
    return "..." if _ROWS[name].secret else text


def _without_secret(outcome: Outcome) -> Outcome:
    secret = [row.name for row in SETTINGS if row.secret and f"{row.name}=" in outcome.becomes]
    if not secret:
        return outcome
    return outcome._replace(value="...", becomes=" ".join(f"{name}=..." for name in secret))


def _table(spoken: Dialect, translation: Translation) -> str:
    width = max(80, min(shutil.get_terminal_size().columns, 140))
    lines = []
    for outcome in map(_without_secret, translation.outcomes):
        lines.append(f"{outcome.option} {_cut(outcome.value)}".rstrip())
        becomes = f" as {_cut(outcome.becomes)}" if outcome.becomes else ""
        lines.append(f"    {outcome.fate}{becomes}")
        if outcome.remark:
            lines += textwrap.wrap(outcome.remark, width, initial_indent="    ", subsequent_indent="    ")
    if defaults := _defaults(translation):
        text = " ".join(f"{name}={_cut(given.text)}" for name, given in defaults.items())
        lines.append(f"(defaults of {spoken.name}, which `bridge run` does not have)")
        lines += textwrap.wrap(
            text, width, initial_indent="    ", subsequent_indent="    ", break_on_hyphens=False, break_long_words=False
        )
    counts = {fate: sum(outcome.fate is fate for outcome in translation.outcomes) for fate in Fate}
    lines.append("")
    lines.append(f"{spoken.name} {spoken.version}: " + ", ".join(f"{number} {fate}" for fate, number in counts.items()))
    return "\n".join(lines) + "\n"


def _defaults(translation: Translation) -> Layer:
    """Return the other server's defaults that no option on the command line or in a file replaces."""
    return {name: given for name, given in translation.defaults.items() if name not in translation.layer}


def _cut(text: str) -> str:
    text = text.replace("\n", " ")
    return text if len(text) <= 90 else text[:87] + "..."


def toml(spoken: Dialect, translation: Translation, environ: Mapping[str, str]) -> str:
    """Return the text of a ``bridge.toml`` that makes ``bridge run`` do the same."""
    layer: Layer = {**translation.defaults, **translation.layer}
    del environ  # BRIDGE_... variables hold for `bridge run` too
    lines = [f"# made by `bridge explain --toml {spoken.name} ...`"]
    for name, given in layer.items():
        row = _ROWS[name]
        items = given.text.split(row.kind.separator)
        value = json.dumps(items if row.kind.separator != "," else given.text, ensure_ascii=False)
        lines.append(
            f'# {name} = "..."  # a secret: set {row.environment[0]}' if _is_hidden(name) else f"{name} = {value}"
        )
    lines += [f"# PYTHONPATH must have {path}" for path in translation.paths]
    if "log_config" in translation.objects:
        lines.append('# log_config = "logging.json"  # write the dictionary of the configuration file there')
    if "ssl_context_factory" in translation.objects:
        lines.append('# ssl_context_factory = "module:function"')
    hooks = {name: f"{function.__module__}:{function.__qualname__}" for name, function in translation.hooks.items()
             if hasattr(function, "__qualname__")}  # fmt: skip
    if hooks:
        lines.append("")
        lines.append("[hooks]")
        for name, function in hooks.items():
            if function.startswith("__config__:"):
                lines.append(f'# {name} = "module:{function.partition(":")[2]}"  # move it into a module')
            else:
                lines.append(f"{name} = {json.dumps(function)}")
    return "\n".join(lines) + "\n"


def _is_hidden(name: str) -> bool:
    return name == "ssl_keyfile_password"
