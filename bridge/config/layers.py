"""A layer is what one source gives: the text of settings, not converted yet. Layers are merged here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from bridge.errors import ConfigError

__all__ = ["Given", "Layer", "merge"]

_HOST_AND_PORT = frozenset({"host", "port"})
_LISTENERS = frozenset({"bind", "uds", "fd"})


class Given(NamedTuple):
    """The text that a source has for one setting.

    Attributes:
        text: The text, not converted yet.
        origin: How the source names the setting, for messages.
    """

    text: str
    origin: str


Layer = dict[str, Given]


def merge(layers: Sequence[Layer]) -> Layer:
    """Merge *layers*, which come in rising order: a later one wins.

    Addresses do not mix across layers: a ``--port`` on the command line replaces BRIDGE_BIND, and ``--uds`` replaces
    PORT.

    Raises:
        ConfigError: One layer has both host or port and another kind of address.
    """
    merged: Layer = {}
    for layer in layers:
        pair, listeners = _HOST_AND_PORT & layer.keys(), _LISTENERS & layer.keys()
        if pair and listeners:
            one, other = layer[min(pair)].origin, layer[min(listeners)].origin
            raise ConfigError(f"{one}: cannot be used beside {other}, which already says where to listen")
        if pair or listeners:
            for name in _LISTENERS if pair else _HOST_AND_PORT | _LISTENERS:
                merged.pop(name, None)
        merged.update(layer)
    return merged
