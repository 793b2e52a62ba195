"""What a master starts its workers with: settings, sockets, their number; and how a reload changes that."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bridge.config import Config
from bridge.core.log import gen_log
from bridge.errors import ConfigError
from bridge.serving.process import at_origin, prepare_process
from bridge.serving.sockets import Listener, bind_all
from bridge.supervisor.workers import STARTING, Worker

if TYPE_CHECKING:
    import ssl

__all__ = ["PRELOADED", "Plan", "name_threads"]

#: What a reload does not do after ``--preload``.
PRELOADED = "--preload: the application stays as it was imported; SIGUSR2 brings new code"


@dataclass(slots=True)
class Plan:
    """The workers as they should be.

    Attributes:
        config: The settings.
        listeners: The listening sockets that all workers share.
        count: The number of workers.
        generation: The number of this plan. Workers of another generation are replaced.
        empty_context: The context from which each worker makes its TLS context; None without TLS. So a client can
            resume the session of one worker with any other one. A new plan has a new one: its authorities may be
            others.
    """

    config: Config
    listeners: list[Listener]
    count: int
    generation: int = 0
    empty_context: ssl.SSLContext | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        """Make the empty context."""
        if self.config.ssl_certfile is not None:
            from bridge.serving.certificates import empty_context

            self.empty_context = empty_context()

    def reloaded(self, read_config: Callable[[], Config] | None, generation: int) -> Plan:
        """Return the plan for the settings as they are now. Sockets whose address is still wanted are kept.

        Args:
            read_config: Reads the settings; None for the same settings as before.
            generation: The number of the new plan.

        Raises:
            BridgeError: The settings cannot be used, and nothing has changed.
        """
        from bridge.serving.checks import check
        from bridge.serving.privileges import future_identity
        from bridge.telemetry.logs import configure

        config = self.config if read_config is None else at_origin(read_config)
        config = prepare_process(config)
        check(config)
        same = str(config.workers) == str(self.config.workers)  # the text of a range has both of its ends
        count = self.count if same else int(config.workers or 1)
        plan = Plan(config, bind_all(config, keep=self.listeners), count, generation)
        try:
            configure(config, later=future_identity(config))  # the logs of this process; the new workers inherit them
        except ConfigError:
            plan.close_unshared(self)
            raise
        return plan

    def reason_for_end(self, worker: Worker) -> str:
        """Return why a worker has ended, in a word, while the master goes on."""
        if worker.cause:
            return worker.cause
        if worker.dismissed or worker.generation != self.generation:
            return "reload"
        if worker.slot >= self.count:
            return "scale"
        return "failed" if worker.state == STARTING else "crashed"

    def close_unshared(self, other: Plan) -> None:
        """Close the listeners of this plan that *other* does not use."""
        for listener in self.listeners:
            if listener not in other.listeners:
                listener.close()


def name_threads() -> None:
    """Log the threads that the import has started: a fork leaves them, and the locks that they hold, behind."""
    threads = [thread for thread in threading.enumerate() if thread is not threading.main_thread()]
    names = [repr(thread.name) for thread in threads if not thread.name.startswith("bridge-")]
    if names:
        gen_log.warning(
            "--preload: the import has started threads, which do not run in the workers: %s; "
            "start them with the first request, or leave --preload out",
            ", ".join(names[:5]),
        )
