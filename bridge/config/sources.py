"""Reads the settings from their sources: file, environment and command line, in rising order.

Each source is read into a layer, which maps names of settings to text. The layers are merged, and only then is the text
converted, so that a valid option overrides an invalid variable.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import NoReturn

from bridge.config.layers import Given, Layer, merge
from bridge.config.settings import SETTINGS, Config
from bridge.config.table import Setting
from bridge.errors import ConfigError

__all__ = ["from_command_line", "from_environment", "load", "load_layer", "resolve", "split_config"]


_BY_NAME = {row.name: row for row in SETTINGS}
_OPTIONS = [row for row in SETTINGS if not row.positional]
_SWITCHES = frozenset(spelling for row in SETTINGS if row.is_switch for spelling in row.spellings)

# Options that mean different things in other servers. To accept one meaning would mislead the users of the others.
_COLLISIONS = {
    "-p": "means the port in some servers and the pid file in others; write --port",
    "-t": "means a worker's heartbeat in some servers and a request's deadline in others; write --timeout-request",
    "--timeout": "means a worker's heartbeat in some servers and a request's deadline in others;"
    " write --timeout-request",
    "--https": "belongs to `bridge dev`, for the machine that it runs on; write --ssl-certfile",
    "-u": "means a Unix domain socket in some servers and a user in others; write --uds",
}


def load(argv: Sequence[str], environ: Mapping[str, str]) -> Config:
    """Return the settings for the arguments of ``bridge run`` and the environment, and from the file they name.

    Raises:
        ConfigError: An option is unknown, a value is not allowed, two settings contradict each other, or a file cannot
            be read.
    """
    return resolve(load_layer(argv, environ))


def load_layer(argv: Sequence[str], environ: Mapping[str, str]) -> Layer:
    """Return the merged layer of all sources, for :func:`resolve`.

    Raises:
        ConfigError: As for :func:`load`.
    """
    words, path = split_config(argv)
    path = path or environ.get("BRIDGE_CONFIG") or None
    layers = [*from_environment(environ), from_command_line(words)]
    if path is not None or any(os.path.isfile(name) for name in ("bridge.toml", "pyproject.toml")):
        from bridge.config.files import from_file

        layers.insert(0, from_file(path))
    return merge(layers)


def split_config(argv: Sequence[str]) -> tuple[list[str], str | None]:
    """Split ``--config FILE`` (or ``-c``) off. Return the other arguments and FILE.

    Raises:
        ConfigError: FILE is missing.
    """
    options, rest = _split_at_dashes(argv)
    words: list[str] = []
    path = None
    position = 0
    while position < len(options):
        name, equals, value = options[position].partition("=")
        if name in {"--config", "-c"}:
            if not equals:
                position += 1
                value = options[position] if position < len(options) else ""
            if not value:
                raise ConfigError(f"{name}: needs a value: a file such as bridge.toml")
            path = value
        else:
            words.append(options[position])
        position += 1
    return ([*words, "--", *rest] if len(options) < len(argv) else words), path


def from_environment(environ: Mapping[str, str]) -> list[Layer]:
    """Return two layers: first the variables of other tools, such as PORT, then ``BRIDGE_...``.

    An empty variable counts as absent. Unknown ``BRIDGE_...`` variables are ignored: Kubernetes, for example, sets such
    variables for a service called bridge.
    """
    foreign: Layer = {}
    own: Layer = {}
    for row in SETTINGS:
        for layer, names in ((foreign, row.foreign), (own, row.environment)):
            found = next((name for name in names if environ.get(name)), None)
            if found is not None:
                layer[row.name] = Given(environ[found], found)
    return [foreign, own]


def from_command_line(argv: Sequence[str]) -> Layer:
    """Return the layer of the arguments after ``bridge run``.

    Raises:
        ConfigError: An option is unknown or lacks its value, or there is more than one target.
    """
    options, positional = _split_at_dashes(argv)
    given, rest = _scan([_normalised(argument) for argument in options])
    for argument in rest:
        if argument.startswith("-") and argument != "-":
            _refuse_unknown(argument.partition("=")[0])
    layer: Layer = {}
    for name, option, text in given:
        before = layer.get(name)
        if before is not None and _BY_NAME[name].kind.repeats:
            text = before.text + _BY_NAME[name].kind.separator + text  # noqa: PLW2901 - a repeated option continues the list
        layer[name] = Given(text, option)
    targets = [*rest, *positional]
    if len(targets) > 1:
        raise ConfigError(f"TARGET: {targets[0]!r} and {targets[1]!r}: only one application can be served")
    if targets:
        layer["target"] = Given(targets[0], "TARGET")
    return layer


def resolve(layer: Layer, objects: Mapping[str, object] | None = None) -> Config:
    """Convert the text of *layer* and return the settings. Settings that it lacks keep their defaults.

    Args:
        layer: Text by the names of settings.
        objects: Values that are no text and need no conversion; they win over text.

    Raises:
        ConfigError: A value is not allowed, or two settings contradict each other.
    """
    layer = dict(layer)
    if "port" in layer and "host" not in layer and layer["port"].origin == "PORT":
        layer["host"] = Given("*", "PORT")  # platforms that set PORT connect from outside the container
    if "forwarded_allow_ips" in layer and "proxy_headers" not in layer:
        layer["proxy_headers"] = Given("on", layer["forwarded_allow_ips"].origin)
    values = {name: _convert(_BY_NAME[name], given) for name, given in layer.items()}
    return Config(**{**values, **(objects or {})})  # type: ignore[arg-type]  # each kind converts to the type of its field; a test holds the two together


def _convert(row: Setting, given: Given) -> object:
    try:
        return row.kind.parse(given.text)
    except ValueError:
        text = given.text if len(given.text) <= 80 else given.text[:77] + "..."
        shown = "the value" if row.secret else repr(text)
        raise ConfigError(f"{given.origin}: {shown} is not {row.kind.allowed}") from None


# --- the command line ------------------------------------------------------------------------------------------------


# A negative number counts as a value, not as an option, so that the message says which values are allowed.
_NEGATIVE = r"-[0-9]*\.?[0-9]+"


def _scan(words: Sequence[str]) -> tuple[list[tuple[str, str, str]], list[str]]:
    """Return the known options as (setting, option, text), in their order, and all other words.

    This does not use argparse: importing it and describing every option to it takes 6 ms of CPU.

    Raises:
        ConfigError: An option lacks its value.
    """
    known = {spelling: row for row in _OPTIONS for spelling in row.spellings}
    found: list[tuple[str, str, str]] = []
    rest: list[str] = []
    words = list(words)
    while words:
        word = words.pop(0)
        option, equals, text = word.partition("=")
        if option not in known and not word.startswith("--"):
            option, equals, text = word[:2], word[2:], word[2:]  # -w4
        row = known.get(option)
        if row is None or word == "-":
            rest.append(word)
        elif row.is_switch:
            found.append((row.name, option, "off" if option.startswith("--no-") else "on"))
        elif equals:
            found.append((row.name, option, text))
        elif words and (not words[0].startswith("-") or words[0] == "-" or re.fullmatch(_NEGATIVE, words[0])):
            found.append((row.name, option, words.pop(0)))
        else:
            raise ConfigError(f"{option}: needs a value: {row.kind.allowed}")
    return found, rest


def _split_at_dashes(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split *argv* at ``--``, after which nothing is an option."""
    words = list(argv)
    if "--" not in words:
        return words, []
    at = words.index("--")
    return words[:at], words[at + 1 :]


def _normalised(argument: str) -> str:
    """Replace the underscores in the name of ``--some_option=value``, which some other servers use, by dashes."""
    if not argument.startswith("--"):
        return argument
    name, equals, value = argument.partition("=")
    name = name.replace("_", "-")
    if equals and name in _SWITCHES:
        raise ConfigError(f"{name}: takes no value; --no-... is the opposite")
    return name + equals + value


def _refuse_unknown(option: str) -> NoReturn:
    short = option[:2]  # "-p8000" is -p with its value
    for name in (option, short):
        if name in _COLLISIONS:
            raise ConfigError(f"{name}: {_COLLISIONS[name]}")
    from difflib import get_close_matches

    canonical = {}
    for row in _OPTIONS:
        for spelling in row.spellings:
            negated = row.is_switch and spelling.startswith("--no-")
            canonical[spelling] = f"--no-{row.option[2:]}" if negated else row.option
    near = get_close_matches(option, [spelling for spelling in canonical if len(spelling) > 2], n=1)
    hint = f"did you mean {canonical[near[0]]}?" if near else "`bridge run --help` lists what there is"
    raise ConfigError(f"{option}: there is no such option; {hint}")
