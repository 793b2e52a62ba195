"""The commands that steer a running server: ``bridge status``, ``top``, ``reload`` and others."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from bridge.operations.client import Client, NotReached, find
from bridge.telemetry.processes import runs

__all__ = ["COMMANDS", "HELP", "run"]

OK, FAILED, USAGE = 0, 1, 2

# Seconds between two checks of a process that is about to end.
_LOOK = 0.1

HELP = """\
usage: bridge COMMAND [--socket PATH | --pid FILE] [options]

Control a running server over its control socket.

  bridge status [--json]           show what the server and its workers do; exit status 0 if it serves
  bridge top [--interval 1] [--count N]
                                   show this again and again, with rates
  bridge reload [--wait] [--timeout 60]
                                   replace the workers by new ones, as SIGHUP does. With --wait, the exit status is 0
                                   when all new workers serve; it is 1, and the reason is printed, when the new ones
                                   fail and the old ones go on
  bridge scale N                   run N workers
  bridge recycle N                 replace worker N by a new one
  bridge drain [--wait]            tell probes that the server is not ready, while it still serves. With --wait, return
                                   when --drain-delay is over
  bridge undrain                   tell probes that the server is ready again
  bridge stop [--wait] [--timeout 60]
                                   stop gracefully, as SIGTERM does. With --wait, return when the server has ended
  bridge dump [--worker N] [--json]
                                   show the stacks of threads and tasks, and the requests that they serve
  bridge log-level LEVEL [--for 5m]
                                   set the lowest level of messages that are written; with --for, for this time
  bridge reopen                    open the log files again

If only one server runs, you need neither --socket nor --pid. curl --unix-socket PATH http://localhost/status works too.
"""


class _Options(NamedTuple):
    """What a command line says.

    Attributes:
        words: The arguments that are not options.
        values: The options with their values; empty for those without one.
    """

    words: list[str]
    values: dict[str, str]


class _Wrong(Exception):
    """The command line is wrong."""


# For each command, its options and whether they have a value, and how many words it takes.
_COMMON = {"--socket": True, "--pid": True}
_ALLOWED: dict[str, tuple[dict[str, bool], int]] = {
    "status": ({"--json": False}, 0),
    "top": ({"--interval": True, "--count": True}, 0),
    "reload": ({"--wait": False, "--timeout": True}, 0),
    "scale": ({}, 1),
    "recycle": ({}, 1),
    "drain": ({"--wait": False}, 0),
    "undrain": ({}, 0),
    "stop": ({"--wait": False, "--timeout": True}, 0),
    "dump": ({"--worker": True, "--json": False}, 0),
    "log-level": ({"--for": True}, 1),
    "reopen": ({}, 0),
}


def run(command: str, words: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run a command and return its exit status: 0, 1 if it has failed, 2 if the command line is wrong.

    Args:
        command: One of COMMANDS.
        words: What follows it.
        environ: The environment.
    """
    if "--help" in words or "-h" in words:
        print(HELP, end="")
        return OK
    try:
        options = _parse(command, words)
        client = Client(find(options.values.get("--socket"), options.values.get("--pid"), environ))
        status = COMMANDS[command](client, options)
        sys.stdout.flush()
        return status
    except _Wrong as exc:
        return _fail(f"bridge {command}: {exc}", USAGE)
    except NotReached as exc:
        several = "several servers" in str(exc)
        return _fail(f"bridge {command}: {exc}", USAGE if several else FAILED)
    except BrokenPipeError:  # the reader, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return OK
    except KeyboardInterrupt:
        return 130


def _fail(text: str, status: int) -> int:
    print(text, file=sys.stderr)
    return status


def _parse(command: str, words: Sequence[str]) -> _Options:
    allowed, number = _ALLOWED[command]
    allowed = {**_COMMON, **allowed}
    found = _Options([], {})
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--"):
            found.words.append(word)
            continue
        name, equals, value = word.partition("=")
        if name == "--control-socket":  # as the server's own option is called
            name = "--socket"
        if name not in allowed:
            raise _Wrong(f"{name}: there is no such option; allowed are {', '.join(sorted(allowed))}")
        if not allowed[name]:
            if equals:
                raise _Wrong(f"{name} takes no value")
        elif not equals:
            if not rest:
                raise _Wrong(f"{name}: the value is missing")
            value = rest.pop(0)
        found.values[name] = value
    if len(found.words) != number:
        wanted = "one word" if number else "no words"
        raise _Wrong(f"it takes {wanted}, not {' '.join(found.words) or 'none'}")
    return found


def _seconds(options: _Options, name: str, default: float) -> float:
    text = options.values.get(name, "")
    if not text:
        return default
    try:
        value = float(text.removesuffix("s"))
    except ValueError:
        value = 0.0
    if not 0 < value < 1e6:
        raise _Wrong(f"{name}: {text!r} is not a time above 0 in seconds")
    return value


def _ask(
    client: Client, method: str, path: str, query: Mapping[str, str] | None = None, timeout: float | None = 30.0
) -> Any:
    """Return what the server answers; end the command if it refuses."""
    status, content = client.ask(method, path, query, timeout=timeout)
    if status >= 400:
        raise _Refused(content if isinstance(content, dict) else {"error": f"status {status}"})
    return content


class _Refused(NotReached):
    """The server has refused. It is reported like all other failures."""

    def __init__(self, content: dict[str, Any]) -> None:
        text = str(content.get("error", ""))
        if content.get("allowed"):
            text += f"; allowed: {content['allowed']}"
        if content.get("traceback"):
            text += "\n" + str(content["traceback"]).rstrip()
        super().__init__(text)


# ---------------------------------------------------------------------- commands


def _status(client: Client, options: _Options) -> int:
    found = _ask(client, "GET", "/status")
    if "--json" in options.values:
        print(json.dumps(found, indent=2))
    else:
        print("\n".join(_table(found, None, 0.0)))
    return OK if found["state"] in {"serving", "reloading"} else FAILED


def _top(client: Client, options: _Options) -> int:
    interval = _seconds(options, "--interval", 1.0)
    count = options.values.get("--count", "")
    if count and not count.isdecimal():
        raise _Wrong(f"--count: {count!r} is not a whole number")
    left = int(count) if count else -1
    before: dict[str, Any] | None = None
    at = 0.0
    clear = "\x1b[H\x1b[J" if sys.stdout.isatty() else ""
    while left:
        found, now = _ask(client, "GET", "/status"), time.monotonic()
        print(clear + "\n".join(_table(found, before, now - at)), flush=True)
        before, at = found, now
        left -= 1
        if left:
            time.sleep(interval)
    return OK


def _reload(client: Client, options: _Options) -> int:
    if "--wait" not in options.values:
        _ask(client, "POST", "/reload")
        print("the reload begins")
        return OK
    timeout = _seconds(options, "--timeout", 60.0)
    found = _ask(client, "POST", "/reload", {"wait": f"{timeout:g}"}, timeout + 5)
    print(f"reloaded: {found['workers']} workers serve")
    if "note" in found:
        print(found["note"], file=sys.stderr)
    return OK


def _scale(client: Client, options: _Options) -> int:
    print(f"{_ask(client, 'POST', '/scale', {'workers': options.words[0]})['workers']} workers")
    return OK


def _recycle(client: Client, options: _Options) -> int:
    found = _ask(client, "POST", "/recycle", {"worker": options.words[0]})
    print(f"replaced: {', '.join(map(str, found['recycled']))}")
    return OK


def _drain(client: Client, options: _Options) -> int:
    found = _ask(client, "POST", "/drain")
    print("draining: serving on, and not ready", flush=True)
    if "--wait" in options.values:
        time.sleep(found["delay"])
    return OK


def _undrain(client: Client, options: _Options) -> int:
    _ask(client, "POST", "/undrain")
    print("ready again")
    return OK


def _stop(client: Client, options: _Options) -> int:
    timeout = _seconds(options, "--timeout", 60.0)
    pid = _ask(client, "POST", "/stop")["pid"]
    if "--wait" not in options.values:
        print("stopping")
        return OK
    end = time.monotonic() + timeout
    while runs(pid):
        if time.monotonic() > end:
            raise NotReached(f"process {pid} has not ended within {timeout:g} s")
        time.sleep(_LOOK)
    print("stopped")
    return OK


def _dump(client: Client, options: _Options) -> int:
    worker = options.values.get("--worker")
    found = _ask(client, "GET", "/dump", None if worker is None else {"worker": worker})
    if "--json" in options.values:
        print(json.dumps(found, indent=2))
        return OK
    for part in found["workers"]:
        print(f"worker {part['worker']} (pid {part['pid']})")
        if "error" in part:
            print(f"  {part['error']}")
        for request in part.get("requests", ()):
            print(f"  request {request['request']} from {request['client']}, for {request['age']} s")
        for thread in part.get("threads", ()):
            print(f"  thread {thread['name']}")
            print("".join(f"    {line}\n" for line in thread["stack"]), end="")
        for task in part.get("tasks", ()):
            served = f": {task['request']}, for {task['age']} s" if task["request"] else ""
            print(f"  task {task['name']}{served}")
            print("".join(f"    {line}\n" for line in task["stack"]), end="")
    return OK


def _log_level(client: Client, options: _Options) -> int:
    query = {"level": options.words[0]}
    if "--for" in options.values:
        query["for"] = options.values["--for"]
    found = _ask(client, "POST", "/log-level", query)
    print(f"messages from {found['level']} on" + (f", for {found['for']:g} s" if found["for"] else ""))
    return OK


def _reopen(client: Client, options: _Options) -> int:
    _ask(client, "POST", "/reopen")
    print("the log files are open again")
    return OK


COMMANDS: dict[str, Callable[[Client, _Options], int]] = {
    "status": _status,
    "top": _top,
    "reload": _reload,
    "scale": _scale,
    "recycle": _recycle,
    "drain": _drain,
    "undrain": _undrain,
    "stop": _stop,
    "dump": _dump,
    "log-level": _log_level,
    "reopen": _reopen,
}


# ---------------------------------------------------------------------- tables


def _table(found: dict[str, Any], before: dict[str, Any] | None, seconds: float) -> list[str]:
    """Return the lines that show a state.

    Args:
        found: The state.
        before: An earlier one, for rates; None for none.
        seconds: The time between the two.
    """
    where = ", ".join(found["listeners"])
    lines = [
        f"{found['application']} ({found['interface']}) on {where}",
        *([f"probes and metrics on {', '.join(found['admin'])}"] if found.get("admin") else []),
        f"{found['state']}, pid {found['pid']}, for {_age(found['uptime'])}, bridge {found['version']}",
    ]
    earlier = {worker["pid"]: worker for worker in before["workers"]} if before else {}
    rows = [["worker", "pid", "state", "age", "req/s", "active", "busy", "lag", "threads", "conns", "rss"]]
    for worker in found["workers"]:
        old = earlier.get(worker["pid"])
        counted = "requests" in worker
        rate = "-"
        if counted and old is not None and seconds > 0:
            rate = f"{(worker['requests'] - old['requests']) / seconds:.1f}"
        threads = worker.get("threads", {})
        rows.append(
            [
                str(worker["worker"]),
                str(worker["pid"]),
                worker["state"],
                _age(worker["age"]),
                rate,
                str(worker["active"]) if counted else "-",
                f"{worker['busy']:.0%}" if counted else "-",
                f"{worker['loop_lag'] * 1000:.0f} ms" if counted else "-",
                f"{threads['busy']}/{sum(threads.values())}" if counted else "-",
                str(worker["connections"]) if counted else "-",
                f"{worker['rss'] / (1 << 20):.0f} MiB" if worker.get("rss") else "-",
            ]
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines += ["  ".join(text.rjust(width) for text, width in zip(row, widths, strict=True)) for row in rows]
    if not found.get("counts", True):
        lines.append("requests are counted with --control-socket, --admin-bind or --metrics-path")
    return lines


def _age(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"
