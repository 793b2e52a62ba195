"""The lifespan of an ASGI application (ASGI lifespan specification 2.0)."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import MutableMapping
from typing import Any

from bridge.adapters.asgi.messages import MESSAGE_ERRORS, explain
from bridge.core.log import app_log
from bridge.errors import LifespanFailed, LocalProtocolError, traceback_of
from bridge.forks import end_if_forked

__all__ = ["Lifespan"]


class Lifespan:
    """Runs an application's lifespan task, from startup to shutdown.

    Args:
        app: An ASGI 3 application.
        mode: ``on``: a failure of any kind ends the start. ``auto``: an application that raises or returns before it
            answers has no lifespan, which is no error.

    Attributes:
        state: What the application puts into ``scope["state"]``; requests get shallow copies.
        context: The context of the lifespan task; after the start it holds what the startup has set.
        supported: The application has a lifespan; False once a start in ``auto`` mode has shown that it has none.
    """

    def __init__(self, app: Any, mode: str = "auto") -> None:
        self._app = app
        self._mode = mode
        self._task: asyncio.Task[None] | None = None
        self._messages: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._answer: asyncio.Future[str | None] | None = None
        self._stage = ""
        self._received = False
        self._wants_notice = False
        self._started = False
        self.context = contextvars.copy_context()
        self.state: dict[str, Any] = {}
        self.supported = True

    async def startup(self) -> None:
        """Send lifespan.startup and wait for the application's answer.

        Raises:
            LifespanFailed: The application failed to start.
        """
        self._task = asyncio.get_running_loop().create_task(self._run(), context=self.context)
        error = await self._ask("startup")
        if error is not None:
            raise LifespanFailed(error)
        self._started = True

    def notify(self) -> None:
        """Send lifespan.shutdown.notice if the application has asked for it; do not wait for anything.

        An application asks with ``"shutdown_notice": True`` in its lifespan.startup.complete. The others never get this
        message: they would take any message after the startup for the shutdown.
        """
        if self._wants_notice and self._task is not None and not self._task.done():
            self._wants_notice = False  # once
            self._messages.put_nowait({"type": "lifespan.shutdown.notice"})

    async def shutdown(self, timeout: float | None) -> None:
        """Send lifespan.shutdown, wait for the answer and the end of the task, and log a failure.

        Args:
            timeout: Seconds until the task is cancelled; None to wait as long as it takes.
        """
        task = self._task
        if task is None or task.done():
            return
        try:
            if self._started:  # else the start was given up, and the application waits for no event
                async with asyncio.timeout(timeout):
                    error = await self._ask("shutdown")
                    if error is not None:
                        app_log.error("Lifespan shutdown failed: %s", error)
                    await asyncio.wait({task})
        except TimeoutError:
            app_log.error("Lifespan shutdown took longer than %g s", timeout)
        if not task.done():
            task.cancel()
            await asyncio.wait({task}, timeout=1.0)

    async def _ask(self, stage: str) -> str | None:
        """Send the event of *stage*, wait for the answer, and return the application's reason if it failed."""
        self._stage = stage
        self._answer = asyncio.get_running_loop().create_future()
        self._messages.put_nowait({"type": f"lifespan.{stage}"})
        return await self._answer

    def _settle(self, reason: str | None) -> None:
        """End the wait for an answer: with None, or with the reason of a failure."""
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(reason)

    async def _run(self) -> None:
        scope = {
            "type": "lifespan",
            "asgi": {"version": "3.0", "spec_version": "2.0"},
            "state": self.state,
            "extensions": {"lifespan.shutdown.notice": {}},
        }
        try:
            await self._app(scope, self._receive, self._send)
        except (asyncio.CancelledError, GeneratorExit):
            self._settle("it was cancelled")
            raise
        except BaseException as exc:  # SystemExit and KeyboardInterrupt end the application, not the server
            end_if_forked(exc)
            if self._stage == "startup" and self._answer is not None and not self._answer.done():
                if self._mode == "auto" and isinstance(exc, Exception):  # SystemExit does not mean "no lifespan"
                    # By the specification an application that raises has no lifespan. One with a broken lifespan raises
                    # as well, but it has received the message by then, and most applications without one have not.
                    app_log.log(
                        logging.WARNING if self._received else logging.DEBUG,
                        "The application is served without a lifespan (--lifespan on would end the start): %r",
                        exc,
                    )
                    self.supported = False
                    self._settle(None)
                    return
                app_log.error("Exception in lifespan startup", exc_info=traceback_of(exc))
                self._settle(f"the application raised {exc!r}")
                return
            app_log.error("Exception in the application's lifespan", exc_info=traceback_of(exc))
            self._settle(f"the application raised {exc!r}")
        else:
            if self._stage == "startup" and self._answer is not None and not self._answer.done():
                self.supported = False
                self._settle(None if self._mode == "auto" else "the application returned without an answer")
            else:
                self._settle(None)

    async def _receive(self) -> MutableMapping[str, Any]:
        self._received = True
        return await self._messages.get()

    async def _send(self, message: MutableMapping[str, Any]) -> None:
        try:
            kind = message["type"]
            stage = self._stage
            if kind not in (f"lifespan.{stage}.complete", f"lifespan.{stage}.failed"):
                raise LocalProtocolError(f"unexpected ASGI message {kind!r} in lifespan {stage}")
            if self._answer is not None and self._answer.done() and not self._answer.cancelled():
                raise LocalProtocolError(f"{kind} after another answer to lifespan.{stage}")
            if kind == "lifespan.startup.complete":
                self._wants_notice = bool(message.get("shutdown_notice", False))
            failed = kind.endswith("failed")
            self._settle((message.get("message", "") or "the application gave no reason") if failed else None)
        except MESSAGE_ERRORS as exc:
            explain(message, exc)
            raise
