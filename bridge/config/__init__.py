"""The settings of bridge: what can be set, to what, and where the values come from."""

from bridge.config.settings import GROUPS, SETTINGS, Config

__all__ = ["GROUPS", "SETTINGS", "Config"]
