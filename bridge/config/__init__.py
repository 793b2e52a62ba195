"""The settings of bridge: which exist, which values they take, and where the values come from."""

from bridge.config.settings import GROUPS, SETTINGS, Config

__all__ = ["GROUPS", "SETTINGS", "Config"]
