"""What one source gives: the text of settings, not looked at yet; and how layers of it are merged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from bridge.errors import ConfigError

__all__ = ["Given", "Layer", "merge"]

_HOST_AND_PORT = frozenset({"host", "port"})
_LISTENERS = frozenset({"bind", "uds", "fd"})


class Given(NamedTuple):
    """The text a user wrote for one setting, and how he named the setting there."""

    text: str
    origin: str


Layer = dict[str, Given]


def merge(layers: Sequence[Layer]) -> Layer:
    """Merge *layers*, lowest first.

    Ways to say where to listen do not mix across layers: ``--port`` on the command line sets BRIDGE_BIND aside, and
    ``--uds`` sets PORT aside.

    Raises:
        ConfigError: One layer says where to listen in two ways.
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
