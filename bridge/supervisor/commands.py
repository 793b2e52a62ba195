"""Carries out the commands that a master's owner sends to its control socket."""

from __future__ import annotations

import itertools
import json
import logging
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any

from bridge.core.log import gen_log
from bridge.operations.messages import Answer, Respond, as_json, refusal
from bridge.operations.parameters import LEVELS, choice, duration, only, whole
from bridge.operations.routes import Command, Refused
from bridge.supervisor.heartbeat import DUMP_SIGNAL
from bridge.supervisor.messages import ToWorker
from bridge.supervisor.plan import PRELOADED
from bridge.supervisor.workers import kill

if TYPE_CHECKING:
    from bridge.supervisor.steered import Steered
    from bridge.supervisor.workers import Worker

__all__ = ["Commands"]

# Seconds that a client waits for a reload at most, and seconds that a worker may take for a dump.
_RELOAD_TIME = 60.0
_DUMP_TIME = 3.0
# Bytes of a worker's part of a dump that are read.
_LARGEST_PART = 16 << 20
# Seconds for which idle connections stay open when a drain without --drain-delay begins.
_DRAIN_GRACE = 30.0
_MOST_WORKERS = 1000
_NEVER = float("inf")


@dataclass(slots=True)
class _Waiting:
    """A client that waits for the end of a reload.

    Attributes:
        respond: Takes the answer.
        until: When the wait ends without one (seconds of the monotonic clock).
    """

    respond: Respond
    until: float


@dataclass(slots=True)
class _Dump:
    """A dump that workers are asked for.

    Attributes:
        number: Its number, which workers name when their part is written.
        respond: Takes the answer.
        until: When the answer is due (seconds of the monotonic clock).
        files: Process id -> the file that the worker writes to.
        slots: The places of those workers.
        done: The workers that have written.
    """

    number: int
    respond: Respond
    until: float
    files: dict[int, int]
    slots: dict[int, int]
    done: set[int] = field(default_factory=set)


class Commands:
    """Carries out the commands.

    Args:
        master: The master.
    """

    def __init__(self, master: Steered) -> None:
        self._master = master
        self._next: list[_Waiting] = []  # for the reload that begins next
        self._current: list[_Waiting] = []
        self._dumps: list[_Dump] = []
        self._numbers = itertools.count()
        self._level_until = _NEVER
        self.reports: dict[str, Command] = {"/config": self._config, "/workers": self._workers, "/dump": self._dump}
        self.commands: dict[str, Command] = {
            "/reload": self._reload,
            "/scale": self._scale,
            "/recycle": self._recycle,
            "/drain": self._drain,
            "/undrain": self._undrain,
            "/stop": self._stop,
            "/log-level": self._log_level,
            "/reopen": self._reopen,
        }

    # ------------------------------------------------------------------ time

    def next_event(self) -> list[float]:
        """Return the times at which :meth:`check` has something to do."""
        times = [waiting.until for waiting in (*self._next, *self._current)] + [dump.until for dump in self._dumps]
        return [moment for moment in (*times, self._level_until) if moment != _NEVER]

    def check(self, now: float) -> None:
        """Answer clients whose time is over, and undo changes that were made for a limited time."""
        for waiters in (self._next, self._current):
            for waiting in [each for each in waiters if each.until <= now]:
                waiters.remove(waiting)
                waiting.respond(refusal(504, "the reload has not ended so far, and goes on"))
        for dump in self._dumps[:]:
            if dump.until <= now or dump.done >= dump.files.keys() & self._pids:
                self._dumps.remove(dump)
                self._end_dump(dump)
        if self._level_until <= now:
            self._level_until = _NEVER
            self._set_level(self._master.plan.config.log_level)

    def close(self) -> None:
        """Answer all who still wait: the master ends."""
        waiters, dumps = [*self._next, *self._current], self._dumps
        self._next, self._current, self._dumps = [], [], []
        for waiting in waiters:
            waiting.respond(refusal(409, "the server stops"))
        for dump in dumps:
            self._end_dump(dump)

    # ------------------------------------------------------------------ told by the master

    def reload_begins(self) -> None:
        """Take note that the next reload begins."""
        self._current += self._next
        self._next = []

    def reload_ended(self, error: str, traceback: str) -> None:
        """Answer those who wait for the reload.

        Args:
            error: Why the old workers go on; empty if the new ones serve.
            traceback: What the application has raised, if that is why.
        """
        waiters, self._current = self._current, []
        for waiting in waiters:
            if error:
                waiting.respond(refusal(500, error, traceback=traceback))
            else:
                answer = {"reloaded": True, "workers": self._master.plan.count}
                waiting.respond(as_json(answer | ({"note": PRELOADED} if self._master.plan.config.preload else {})))

    def dumped(self, worker: Worker, number: int) -> None:
        """Take note that a worker has written its part of a dump. Several dumps may be asked for at once."""
        for dump in self._dumps:
            if dump.number == number:
                dump.done.add(worker.pid)

    # ------------------------------------------------------------------ reports

    def _config(self, query: Mapping[str, str], respond: Respond) -> None:
        only(query)
        config = self._master.plan.config
        shown = {name: getattr(config, name) for name, row in config.rows.items() if not row.secret}
        respond(Answer(200, json.dumps(shown, indent=2, default=str).encode() + b"\n", "application/json"))

    def _workers(self, query: Mapping[str, str], respond: Respond) -> None:
        only(query)
        now = time.monotonic()
        respond(
            as_json(
                [
                    {
                        "worker": worker.slot,
                        "pid": worker.pid,
                        "state": worker.state,
                        "generation": worker.generation,
                        "age": round(now - worker.started, 3),
                        "silent": round(now - (worker.beat or worker.started), 3),
                    }
                    for worker in self._master.workers
                ]
            )
        )

    def _dump(self, query: Mapping[str, str], respond: Respond) -> None:
        only(query, "worker")
        workers = [worker for worker in self._master.workers if worker.state != "starting"]
        if "worker" in query:
            workers = self._of_slot(query)
        if not workers:
            raise Refused(409, "no worker has started")
        dump = _Dump(next(self._numbers), respond, time.monotonic() + _DUMP_TIME, {}, {})
        try:
            for worker in workers:
                dump.files[worker.pid] = os.memfd_create("bridge-dump")
                dump.slots[worker.pid] = worker.slot
        except OSError as exc:
            for descriptor in dump.files.values():
                os.close(descriptor)
            raise Refused(503, f"no file for the dump: {exc.strerror}") from exc
        for worker in workers:
            worker.channel.send(ToWorker.DUMP, dump.number, descriptors=[dump.files[worker.pid]])
        self._dumps.append(dump)

    @property
    def _pids(self) -> set[int]:
        return {worker.pid for worker in self._master.workers}

    def _end_dump(self, dump: _Dump) -> None:
        found = []
        pids = self._pids
        for pid, descriptor in dump.files.items():
            part: dict[str, Any] = {"worker": dump.slots[pid], "pid": pid}
            with open(descriptor, "rb") as file:
                if pid in dump.done:
                    part |= _part(file)
                elif pid in pids:
                    blocked = "the loop is blocked; the log shows where it stands"
                    part["error"] = f"no answer for {_DUMP_TIME:g} s: {blocked}"
                    kill(pid, DUMP_SIGNAL)
                else:  # another process may have its number by now
                    part["error"] = "the worker has ended before it could answer"
            found.append(part)
        dump.respond(as_json({"workers": found}))

    # ------------------------------------------------------------------ commands

    def _reload(self, query: Mapping[str, str], respond: Respond) -> None:
        only(query, "wait")
        self._not_while("draining", "stopping", "starting")
        self._not_while_handing_over()
        self._master.ask_reload()
        if "wait" not in query:
            respond(as_json({"reloading": True}, 202))
            return
        patience = duration(query, "wait") if query["wait"] else _RELOAD_TIME
        self._next.append(_Waiting(respond, time.monotonic() + patience))

    def _not_while_handing_over(self) -> None:
        if self._master.successor is not None:
            raise Refused(409, "a new master is starting (SIGUSR2), which would not know of this: ask when it serves")

    def _scale(self, query: Mapping[str, str], respond: Respond) -> None:
        only(query, "workers")
        self._not_while("draining", "stopping")
        self._not_while_handing_over()
        self._master.scale(whole(query, "workers", 1, _MOST_WORKERS))
        respond(as_json({"workers": self._master.plan.count}))

    def _recycle(self, query: Mapping[str, str], respond: Respond) -> None:
        only(query, "worker")
        self._not_while("draining", "stopping", "starting")
        workers = [worker for worker in self._of_slot(query) if worker.state == "ready"]
        if not workers:
            raise Refused(409, "the worker is not ready")
        for worker in workers:
            worker.finished = True
            worker.cause = worker.cause or "asked"
            gen_log.info("Worker %d (pid %d) is replaced: a command asks for it", worker.slot, worker.pid)
        respond(as_json({"recycled": [worker.pid for worker in workers]}))

    def _drain(self, query: Mapping[str, str], respond: Respond) -> None:
        only(query)
        self._not_while("stopping", "starting")
        self._not_while_handing_over()
        delay = self._master.plan.config.drain_delay
        if self._master.phase != "draining":
            gen_log.info("Draining: serving on, and not ready, until a stop or `bridge undrain`")
            self._master.drain(delay or _DRAIN_GRACE, notify=False)
        respond(as_json({"draining": True, "delay": delay}))

    def _undrain(self, query: Mapping[str, str], respond: Respond) -> None:
        only(query)
        if self._master.phase != "draining":
            raise Refused(409, f"the server is {self._master.phase}, not draining")
        self._master.undrain()
        respond(as_json({"draining": False}))

    def _stop(self, query: Mapping[str, str], respond: Respond) -> None:
        only(query)
        self._master.ask_stop()
        respond(as_json({"stopping": True, "pid": os.getpid()}, 202))

    def _log_level(self, query: Mapping[str, str], respond: Respond) -> None:
        only(query, "level", "for")
        self._not_while_handing_over()
        level = choice(query, "level", LEVELS)
        period = duration(query, "for") if query.get("for") else None
        self._level_until = _NEVER if period is None else time.monotonic() + period
        self._set_level(level)
        respond(as_json({"level": level, "for": period}))

    def _set_level(self, level: str) -> None:
        logging.getLogger("bridge").setLevel(level.upper())
        gen_log.info("Messages of level %s and above are logged from now on", level)
        self._master.workers.standing = [
            *(order for order in self._master.workers.standing if order[0] != ToWorker.LOG_LEVEL),
            (ToWorker.LOG_LEVEL, (level,)),
        ]
        self._master.workers.broadcast(ToWorker.LOG_LEVEL, level)

    def _reopen(self, query: Mapping[str, str], respond: Respond) -> None:
        only(query)
        self._master.reopen()
        respond(as_json({"reopened": True}))

    # ------------------------------------------------------------------ what several of them need

    def _not_while(self, *phases: str) -> None:
        if self._master.phase in phases:
            raise Refused(409, f"not while the server is {self._master.phase}")

    def _of_slot(self, query: Mapping[str, str]) -> list[Worker]:
        slot = whole(query, "worker", 0, _MOST_WORKERS)
        found = [worker for worker in self._master.workers if worker.slot == slot]
        if not found:
            slots = sorted({worker.slot for worker in self._master.workers})
            raise Refused(400, f"there is no worker {slot}", allowed=slots)
        return found


def _part(file: IO[bytes]) -> dict[str, Any]:
    """Return a worker's part of a dump, or what is wrong with it, since another process has written it."""
    file.seek(0)
    data = file.read(_LARGEST_PART + 1)
    if len(data) > _LARGEST_PART:
        return {"error": f"the answer is larger than {_LARGEST_PART >> 20} MiB"}
    try:
        part = json.loads(data)
    except (ValueError, RecursionError):
        part = None
    return part if isinstance(part, dict) else {"error": "the answer is garbled"}
