"""Runs a server from its settings: in this process, or under a master with workers."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from bridge.config import Config
from bridge.core.log import gen_log
from bridge.errors import BindError, LifespanFailed
from bridge.serving import instrumentation
from bridge.serving.checks import check, check_system
from bridge.serving.ending import ending
from bridge.serving.exits import BIND_FAILED, LIFESPAN_FAILED, OK
from bridge.serving.loops import Signals, process_loop
from bridge.serving.orphans import Orphans
from bridge.serving.process import forget_directory, prepare_process, set_title
from bridge.serving.server import Server, fast_stop_timeout, note_times, run_prepared, serving_line
from bridge.supervisor.heartbeat import Heartbeat, cancel_stacks, write_stacks_later
from bridge.telemetry import messages, streams

if TYPE_CHECKING:
    from bridge.supervisor.program import Program

__all__ = ["run"]


def run(
    config: Config,
    app: Any = None,
    read_config: Callable[[], Config] | None = None,
    *,
    own_process: bool = False,
    program: Program | None = None,
) -> int:
    """Serve until a signal asks for a stop; return the process's exit status.

    The status is 0 after a stop that was asked for, 1 if an address cannot be listened on, 4 if the application's
    lifespan fails.

    Args:
        config: The settings.
        app: The application; without it, the server imports what ``config.target`` names.
        read_config: Reads the settings again when a reload is asked for; raises ConfigError.
        own_process: The process ends with the server; otherwise a program goes on.
        program: The program that has started this process beside itself.

    Raises:
        ConfigError: A setting cannot be used.
        TargetError: The target cannot be imported, or its interface cannot be detected.
        KeyboardInterrupt: SIGINT came during the start of a process without workers.
    """
    from bridge.serving.privileges import future_identity
    from bridge.telemetry.logs import configure

    streams.complete()
    if own_process:
        _undo_inherited_signals()
    check_system(config)
    alone = config.workers is None and not config.reload
    if own_process and not alone and instrumentation.wrapped():
        instrumentation.start_again()
    config = prepare_process(config)
    configure(config, later=future_identity(config))
    ending.begin(owned=own_process)
    try:
        with messages.serving():
            return _run(config, app, read_config, program)
    finally:
        if not own_process:
            ending.give_back()
            forget_directory()


def _undo_inherited_signals() -> None:
    """Undo what this process has inherited for signals from the program that started it.

    If SIGCHLD is ignored, the system forgets the statuses of children. Blocked signals never arrive.
    """
    if hasattr(signal, "SIGCHLD") and signal.getsignal(signal.SIGCHLD) == signal.SIG_IGN:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _run(config: Config, app: Any, read_config: Callable[[], Config] | None, program: Program | None) -> int:
    check(config)
    instruments = instrumentation.wanted(config)
    if config.debug:
        import bridge.serving.debugging  # noqa: F401 - its secret is one for all workers

        gen_log.warning(
            "--debug: exceptions are shown to clients%s",
            ", on any interface: everyone who reaches the console can run code here" if config.debug_anywhere else "",
        )
    if config.umask is not None:
        os.umask(config.umask)
    numbers = [getattr(signal, name) for name in _HANDLED if hasattr(signal, name)]
    alone = config.workers is None and not config.reload
    try:
        with Signals(numbers, ending=_ENDING) as signals:
            try:
                set_title(config, "server" if alone else "master")
                if alone:
                    if instruments and not instrumentation.wrapped():
                        instrumentation.instrument()
                    return _run_single(config, app, signals)
                return _run_master(config, app, read_config, signals, program)
            except BaseException:  # the application may have turned Interrupted into any exception
                if signals.ended is None:
                    raise
        gen_log.info("Stopping on %s, before the start was complete", signals.ended.name)
        if signals.ended == signal.SIGINT:
            raise KeyboardInterrupt from None
        return OK
    except BindError as exc:
        messages.fail(f"bridge: {exc}")
        return BIND_FAILED
    except LifespanFailed as exc:
        messages.fail(f"bridge: {config.target}: lifespan startup failed: {exc}")
        return LIFESPAN_FAILED


def _run_master(
    config: Config,
    app: Any,
    read_config: Callable[[], Config] | None,
    signals: Signals,
    program: Program | None,
) -> int:
    from bridge.supervisor.master import Master
    from bridge.supervisor.pidfile import PidFile

    master = Master(config, app, read_config, signals)
    master.program = program
    pid_file = PidFile(config.pid, takes_over=master.takes_over) if config.pid is not None else None
    if pid_file is not None and master.takes_over:
        master.on_ready = pid_file.write
    if config.reload:
        from bridge.supervisor.reload import Watcher

        master.watch = Watcher(config)
        master.workers.adopt(master.watch.pid)
    remove = [master.remove_files] if pid_file is None else [pid_file.remove, master.remove_files]
    ending.files += remove
    try:
        return master.run()
    finally:
        if pid_file is not None:
            pid_file.remove()  # a file that names another process stays


def _run_single(config: Config, app: Any, signals: Signals) -> int:
    os.environ["BRIDGE_WORKER"] = "0"
    pid_file = None
    if config.pid is not None:
        from bridge.supervisor.pidfile import PidFile

        pid_file = PidFile(config.pid)
    try:
        if pid_file is not None:
            ending.files.append(pid_file.remove)
        with process_loop(config.loop) as loop:
            process = _SingleProcess(config, app, signals)
            ending.files.append(process.server.remove_files)
            run_prepared(loop, process.server, process.run, signals.stop_listening)
    finally:
        if pid_file is not None:
            pid_file.remove()
    return OK


class _SingleProcess:
    """One process without a master: its server, signals and systemd."""

    def __init__(self, config: Config, app: Any, signals: Signals) -> None:
        from bridge.serving.systemd import Notifier
        from bridge.telemetry.linewriter import without_waiting
        from bridge.telemetry.logs import error_descriptor

        self._config = config
        self.server = Server(config, app)
        self.server.ask_stop = lambda: self._on_signal(signal.SIGTERM)
        self._signals = signals
        self._app = app
        self._notifier = Notifier()
        self._log = error_descriptor(config)
        self._stacks = without_waiting(self._log)
        self._heartbeat: Heartbeat | None = None
        self._drained = False

    async def run(self) -> None:
        """Serve until a signal asks for a stop."""
        loop = asyncio.get_running_loop()
        server = self.server
        task = asyncio.current_task()
        assert task is not None
        try:
            self._signals.cancel(task)
            await server.startup()
            self._signals.check()
            self._signals.deliver(self._on_signal, self._limit)
            messages.say(serving_line(self._config, self._app, server.kind, server.sockets))
            note_times(self._config)
            self._notifier.ready("serving")
            if self._notifier.watchdog is not None:
                self._alive(loop, self._notifier.watchdog)
            if self._config.timeout_worker is not None and not self._config.debug:
                self._heartbeat = Heartbeat(loop, self._config.timeout_worker, self._beat, self._stuck)
            orphans = Orphans(loop)
            await server.stopped()
            orphans.stop()
            ending.within(server.graceful)
            cancel_stacks()
            self._notifier.stopping("stopping")
            await server.shutdown()
        finally:
            if self._heartbeat is not None:
                self._heartbeat.stop()
                cancel_stacks()
            if self._stacks != self._log:
                os.close(self._stacks)
            await server.shutdown()

    def _limit(self, number: int) -> float | None:
        """Return the seconds that requests have after a signal."""
        if number not in _ENDING:
            return None
        if signal.Signals(number).name == "SIGQUIT" or self.server.should_exit:
            return 0.0
        if number == signal.SIGINT:
            return fast_stop_timeout(self._config)
        graceful, delay = self._config.timeout_graceful_shutdown, self._config.drain_delay
        return graceful if graceful is None or self._drained else graceful + (delay or 0.0)

    def _beat(self) -> None:
        assert self._config.timeout_worker is not None
        write_stacks_later(self._stacks, self._config.timeout_worker)

    def _stuck(self) -> None:
        gen_log.error("No thread is left to serve with; with --workers, this process would be replaced")

    def _alive(self, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        self._notifier.alive()
        loop.call_later(seconds, self._alive, loop, seconds)

    def _on_signal(self, number: int) -> None:
        """Stop gracefully at the first signal, at once at the second."""
        server = self.server
        name = signal.Signals(number).name
        if name in _NEED_MASTER:
            gen_log.warning("%s needs a master process: start with --workers", name)
        elif name == "SIGHUP":
            gen_log.info("SIGHUP: reopening log files and reading certificates again; new code needs --workers")
            server.reopen_logs()
            server.reload_certificates()
        elif name == "SIGUSR1":
            server.reopen_logs()
        elif server.should_exit:
            gen_log.warning("Stopping at once on %s", name)
            server.force()
        else:
            if name == "SIGTERM" and self._drains_first():
                return
            gen_log.info("Stopping on %s", name)
            if name == "SIGQUIT":
                server.force()
            elif name == "SIGINT":
                server.stop(fast_stop_timeout(self._config))
            else:
                server.stop()

    def _drains_first(self) -> bool:
        """Begin ``--drain-delay``, and tell whether a stop has to wait for it. A second signal waits no longer."""
        server, delay = self.server, self._config.drain_delay
        if not delay or self._drained:
            return False
        self._drained = True
        gen_log.info("Draining on SIGTERM: serving for %.1f s more; a second SIGTERM stops now", delay)
        self._notifier.stopping("draining")
        server.drain(delay)
        asyncio.get_running_loop().call_later(delay, self._end_drain)
        return True

    def _end_drain(self) -> None:
        if not self.server.should_exit:
            gen_log.info("Drained: stopping")
            self.server.stop()


_HANDLED = ("SIGINT", "SIGTERM", "SIGQUIT", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGTTIN", "SIGTTOU")
_ENDING = [getattr(signal, name) for name in _HANDLED[:3] if hasattr(signal, name)]
_NEED_MASTER = frozenset({"SIGUSR2", "SIGTTIN", "SIGTTOU"})
