"""What the workers of a master are to be: settings, sockets, how many; and how a reload changes it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bridge.config import Config
from bridge.errors import ConfigError
from bridge.serving.sockets import Listener, bind_all

__all__ = ["Plan"]


@dataclass(slots=True)
class Plan:
    """What workers are started from.

    Attributes:
        config: The settings.
        listeners: What they listen on.
        count: How many there are to be.
        generation: Told apart by this number: workers of another plan are replaced.
    """

    config: Config
    listeners: list[Listener]
    count: int
    generation: int = 0

    def reloaded(self, read_config: Callable[[], Config] | None, generation: int) -> Plan:
        """Return the plan by the settings as they are now; sockets whose address has stayed are kept.

        Raises:
            BridgeError: The settings cannot be used; nothing has changed then.
        """
        from bridge.serving.checks import check
        from bridge.telemetry.logs import configure

        config = self.config if read_config is None else read_config()
        check(config)
        count = self.count if config.workers == self.config.workers else config.workers or 1
        plan = Plan(config, bind_all(config, keep=self.listeners), count, generation)
        try:
            configure(config)  # of this process; the new workers take it over
        except ConfigError:
            plan.close_beside(self)
            raise
        return plan

    def close_beside(self, other: Plan) -> None:
        """Close the sockets that *other* does not have."""
        for listener in self.listeners:
            if listener not in other.listeners:
                listener.close()
