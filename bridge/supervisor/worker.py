"""The life of a worker process: serve, report to the master, obey its orders."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any

from bridge import forks
from bridge.apps.lifecycle import MountPoint
from bridge.apps.loading import TargetError
from bridge.config import Config
from bridge.core.log import gen_log
from bridge.errors import BridgeError, ConfigError, LifespanFailed
from bridge.serving import instrumentation
from bridge.serving.ending import ending
from bridge.serving.exits import BIND_FAILED, LIFESPAN_FAILED, OK, TARGET_FAILED, USAGE
from bridge.serving.loops import Signals, process_loop
from bridge.serving.middleware import trusted_peers
from bridge.serving.privileges import drop_privileges
from bridge.serving.process import set_title
from bridge.serving.server import Server, run_prepared
from bridge.serving.sockets import Listener
from bridge.supervisor.channel import Channel
from bridge.supervisor.heartbeat import DUMP_SIGNAL, Heartbeat, write_no_stacks, write_stacks_on_signal
from bridge.supervisor.messages import FromWorker, ToWorker
from bridge.telemetry import messages
from bridge.telemetry.linewriter import without_waiting
from bridge.telemetry.logs import error_descriptor, take

if TYPE_CHECKING:
    import ssl

    from bridge.hooks.worker import WorkerHooks
    from bridge.telemetry.metrics.arena import Arena, Block
    from bridge.telemetry.metrics.process import ProcessMetrics

__all__ = ["IDLE_GRACE", "run_worker"]

#: Seconds for which a retiring worker keeps idle connections, so that their last response can announce the end.
IDLE_GRACE = 5.0

# Seconds that requests of the old code have after a reload in development.
_RELOADED = 5.0
# Characters of a reason and of a traceback for the master: the line has room for them at once.
_LONGEST_REASON = 4096
_LONGEST_TRACEBACK = 16384


def run_worker(
    config: Config,
    app: Any,
    listeners: Sequence[Listener],
    channel: Channel,
    mount_points: list[MountPoint] | None = None,
    counts: tuple[tuple[Arena, ...], Block] | None = None,
    hooks: WorkerHooks | None = None,
    empty_context: ssl.SSLContext | None = None,
) -> int:
    """Serve until the master orders the end, or is gone. Return the process's exit status.

    Args:
        config: The settings.
        app: The application; without it, the worker imports ``config.target``.
        listeners: The listening sockets, shared with the master and the other workers.
        channel: The line to the master.
        mount_points: The applications, if the master has loaded them.
        counts: The memory of all processes, and the cells of this one; None to count nothing.
        hooks: Functions of the user's; None for none.
        empty_context: The TLS context is made from it, so that all workers share the keys of session tickets.
    """
    messages.begin_process()
    _default_signals()
    in_child = forks.add(lambda: _in_child(channel))
    channel.end_process_when_closed()  # ends an import that hangs when the master is gone
    write_stacks_on_signal(without_waiting(error_descriptor(config)))
    try:
        set_title(config, "worker")
        drop_privileges(config)
        if instrumentation.wanted(config):
            instrumentation.instrument()
        if hooks is not None:
            hooks.forked()
        with process_loop(config.loop) as loop:
            server = Server(config, app, listeners, mount_points, _metrics(config, counts), empty_context)
            worker = _Worker(config, server, channel, hooks)
            run_prepared(loop, worker.server, worker.serve)
    except BridgeError as exc:
        if isinstance(exc, TargetError) and exc.app_traceback:
            messages.say("", logging.ERROR, exc.app_traceback)
        code, text = failure(config, exc)
        channel.end_nothing()
        traceback = exc.app_traceback[-_LONGEST_TRACEBACK:] if isinstance(exc, TargetError) else ""
        channel.send(FromWorker.FAILED, code, text[:_LONGEST_REASON], traceback)
        return code
    finally:
        if hooks is not None:
            hooks.exiting()
        forks.remove(in_child)
    return OK


def _metrics(config: Config, counts: tuple[tuple[Arena, ...], Block] | None) -> ProcessMetrics | None:
    if counts is None:
        return None
    from bridge.telemetry.metrics.process import ProcessMetrics

    arenas, block = counts
    return ProcessMetrics(arenas, block, config, trusted_peers(config))


def failure(config: Config, exc: BridgeError) -> tuple[int, str]:
    """Return the exit status and the message for a server that cannot start because of *exc*."""
    if isinstance(exc, TargetError):
        return TARGET_FAILED, str(exc)
    if isinstance(exc, LifespanFailed):
        return LIFESPAN_FAILED, f"{config.target or 'the application'}: lifespan startup failed: {exc}"
    return USAGE if isinstance(exc, ConfigError) else BIND_FAILED, str(exc)


def _default_signals() -> None:
    """Undo the master's handling of signals.

    A terminal sends its signals to all processes. Workers ignore those, and the master decides for all.
    """
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTTIN, signal.SIGTTOU, signal.SIGCHLD, signal.SIGWINCH, DUMP_SIGNAL):
        signal.signal(number, signal.SIG_DFL)
    for number in _HANDLED:
        signal.signal(number, _ignore)  # SIG_IGN would be inherited by the application's own children


_HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1)


def _in_child(channel: Channel) -> None:
    """Take away from a child of the application everything that belongs to the worker."""
    forks.reset_signals(_HANDLED, _ignore)
    write_no_stacks()
    forks.drop((channel.fileno(),))


def _ignore(number: int, frame: object) -> None:
    forks.was_for_a_child(number)


class _Worker:
    """The part of a worker that runs on the loop."""

    def __init__(self, config: Config, server: Server, channel: Channel, hooks: WorkerHooks | None = None) -> None:
        self.server = server
        self._hooks = hooks
        self._loop: asyncio.AbstractEventLoop | None = None
        if hooks is not None:
            server.around = hooks.wrap
        self._config = config
        self._channel = channel
        server.on_limit = lambda: self._ask_for_successor(server.limit)
        server.on_draining = lambda: channel.send(FromWorker.DRAINING)
        server.on_readiness = lambda holds, detail: channel.send(FromWorker.CHECKED, holds, detail)
        self._orders: dict[object, Callable[..., None]] = {
            ToWorker.RETIRE: self._retire,
            ToWorker.DRAIN: lambda grace, notify: server.drain(grace, notify=notify),
            ToWorker.UNDRAIN: server.undrain,
            ToWorker.DUMP: self._dump,
            ToWorker.LOG_LEVEL: lambda level: logging.getLogger("bridge").setLevel(level.upper()),
            ToWorker.STOP: self._end,
            ToWorker.INTERRUPTED: self._interrupted,
            ToWorker.FORCE: self._force,
            ToWorker.REOPEN: self._reopen_logs,
        }

    def serve(self) -> Coroutine[Any, Any, None]:
        """Return :meth:`run`, after the call of the user's function post_worker_init."""
        if self._hooks is not None:
            self._hooks.initialised(self.server.mount_points, self._end_soon)
        return self.run()

    def _end_soon(self) -> None:
        """Ask for a successor, from a handler of a signal."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._on_signal, signal.SIGTERM)

    def _stop(self, *arguments: Any, **options: Any) -> None:
        self.server.stop(*arguments, **options)
        if self._hooks is not None:
            self._hooks.stopping()

    def _end(self, timeout: float | None) -> None:
        if self.server.should_exit:
            ending.within(timeout)
        self._stop(timeout)

    def _retire(self) -> None:
        if self._config.reload:  # in development, idle connections and streams would keep a browser on the old code
            graceful = self._config.timeout_graceful_shutdown
            self._stop(_RELOADED if graceful is None else min(_RELOADED, graceful), replaced=True)
        else:
            self._stop(idle_grace=IDLE_GRACE, replaced=True)

    def _interrupted(self) -> None:
        if self._hooks is not None and not self._hooks.interrupted():
            self.server.force()

    async def run(self) -> None:
        """Serve until the server has stopped."""
        self._loop = loop = asyncio.get_running_loop()
        server = self.server
        loop.add_reader(self._channel.fileno(), self._obey)
        try:
            handled = list(_HANDLED)
            if self._hooks is not None and self._hooks.terminate is not None:
                handled.remove(signal.SIGTERM)  # a function of the user's handles it, and calls the server's handler
            with Signals(handled) as signals:
                signals.deliver(self._on_signal)
                async with server:
                    self._channel.end_nothing()  # the loop takes over
                    if self._hooks is not None:
                        self._hooks.serving(loop, lambda: self._ask_for_successor("asked"))
                    self._channel.send(FromWorker.READY, server.kind)
                    heartbeat = Heartbeat(loop, self._config.timeout_worker, self._beat, self._stuck)
                    try:
                        await server.stopped()
                        ending.within(server.graceful)
                        await server.shutdown()
                    finally:
                        heartbeat.stop()
        finally:
            loop.remove_reader(self._channel.fileno())

    def _beat(self) -> None:
        self._channel.send(FromWorker.BEAT)

    def _stuck(self) -> None:
        if self._hooks is not None:
            self._hooks.stuck()
        self._channel.send(FromWorker.STUCK)

    def _force(self) -> None:
        ending.within(0.0)
        self.server.force()

    def _reopen_logs(self, *paths: str) -> None:
        """Open the log files again: those of *paths* by the descriptors that the master has sent."""
        descriptors = self._channel.descriptors
        for path in paths[: len(descriptors)]:
            take(path, descriptors.pop(0))
        self.server.reopen_logs()

    def _dump(self, number: int) -> None:
        """Write what the process does into the file that the master has sent."""
        with open(self._channel.descriptors.pop(0), "wb") as file:
            file.write(json.dumps(self.server.dump()).encode())
        self._channel.send(FromWorker.DUMPED, number)

    def _ask_for_successor(self, reason: str) -> None:
        """Report that this worker has served its time. It serves until the master retires it."""
        self._channel.send(FromWorker.FINISHED, reason)

    def _obey(self) -> None:
        """Carry out the master's orders. If the master is gone, stop."""
        server = self.server
        for word, *values in self._channel.receive():
            try:
                self._orders[word](*values)
            except Exception:  # later orders, such as a stop, must still be carried out
                gen_log.exception("What the master has ordered has failed: %s", word)
        if not self._channel.open:
            asyncio.get_running_loop().remove_reader(self._channel.fileno())
            if not server.should_exit:
                gen_log.error("The master process is gone: stopping")
                server.stop()

    def _on_signal(self, number: int) -> None:
        """Ask for a successor on SIGTERM, which the master never sends; other signals are the master's business."""
        if number == signal.SIGTERM and not self.server.should_exit:
            self._ask_for_successor("asked")
        elif number == signal.SIGUSR1:
            self.server.reopen_logs()
        elif number in {signal.SIGINT, signal.SIGQUIT}:
            self._interrupted()
