"""The program that has started a master beside itself: its signals, and its end."""

from __future__ import annotations

import selectors
from collections.abc import Callable

from bridge.core.log import gen_log
from bridge.supervisor.channel import Channel

__all__ = ["STOP_SIGNALS", "Program"]

STOP_SIGNALS = frozenset({"SIGTERM", "SIGINT", "SIGQUIT"})


class Program:
    """The line from the program. Its end asks for a stop.

    A terminal sends its signals to the program and to the master. So those that ask for a stop are counted on both
    ways, and one that has come on the other way already has no effect.

    Args:
        line: This end of the line.
    """

    def __init__(self, line: Channel) -> None:
        self.line = line
        self._own = self._passed = 0

    def fileno(self) -> int:
        """Return the descriptor of the line."""
        return self.line.fileno()

    def close(self) -> None:
        """Close this end of the line. May be called again."""
        self.line.close()

    def listen(self, selector: selectors.BaseSelector, obey: Callable[[str], None]) -> None:
        """Call *obey* with each signal that the program passes on, when *selector* is asked."""

        def receive() -> None:
            for _, name in self.line.receive():
                self._passed += name in STOP_SIGNALS
                if name not in STOP_SIGNALS or self._passed > self._own:
                    obey(str(name))
            if not self.line.open:
                selector.unregister(self.line)
                self.line.close()
                if not self._own and not self._passed:
                    gen_log.info("The program that has started the server has ended")
                    obey("SIGTERM")

        selector.register(self.line, selectors.EVENT_READ, receive)

    def new(self, name: str) -> bool:
        """Tell whether a signal that this process has got itself is one that has not come from the program already."""
        self._own += name in STOP_SIGNALS
        return name not in STOP_SIGNALS or self._own > self._passed
