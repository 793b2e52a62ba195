"""The settings for processes and development, a part of the table in `bridge.config.settings`."""

from __future__ import annotations

import math
import os

from bridge.config.hooks import HOOKS, Hooks
from bridge.config.kinds import (
    DIRECTORY,
    FILE,
    MODE,
    SIZE,
    SWITCH,
    TEXT,
    VARIABLES,
    Kind,
    off_or,
    seconds,
    whole,
    words,
)
from bridge.config.table import Settings, setting

__all__ = ["DEVELOPMENT", "WORKERS", "ProcessConfig", "WorkerCount", "usable_cpus"]

WORKERS = "Processes"
DEVELOPMENT = "Development"


class WorkerCount(int):
    """A number of worker processes: the least that there are.

    Attributes:
        most: The most that there are, when there is much to do.
        why: How the number was found, if the settings do not give it.
    """

    most: int
    why: str

    def __new__(cls, number: int, why: str = "", most: int = 0) -> WorkerCount:
        """Return *number* as a WorkerCount. Without *most* the number never changes."""
        self = super().__new__(cls, number)
        self.most = max(most, number)
        self.why = why
        return self

    def __str__(self) -> str:
        return f"{int(self)}..{self.most}" if self.most > self else str(int(self))


def usable_cpus() -> WorkerCount:
    """Count the CPUs that this process can make use of, and say why there are not more.

    That is the least of: those it may run on, ``PYTHON_CPU_COUNT`` (as in Python 3.13), and the time that its control
    groups allow, rounded up.
    """
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    machine = os.cpu_count() or cpus
    found = cpus
    why = f"{machine} CPU{'' if machine == 1 else 's'}"
    if cpus < machine:
        why += f", may run on {cpus}"
    wanted = os.environ.get("PYTHON_CPU_COUNT", "")
    if wanted.isdecimal() and int(wanted):
        found = min(found, int(wanted))
        why += f", PYTHON_CPU_COUNT is {int(wanted)}"
    from bridge.config.cgroups import cpu_quota

    quota = cpu_quota()
    if quota is not None:
        why += f", cgroup allows {quota:g}"
        found = min(found, math.ceil(quota))
    return WorkerCount(max(found, 1), why=why)


def _workers(text: str) -> WorkerCount:
    word = text.strip().lower()
    if word in {"auto", "0"}:
        return usable_cpus()
    low, dots, high = word.partition("..")
    least = whole(1, 1000).parse(low)
    most = whole(1, 1000).parse(high) if dots else least
    if most < least:
        raise ValueError(text)
    return WorkerCount(least, most=most)


WORKER_COUNT = Kind(_workers, "a whole number from 1 to 1000, a range such as 2..8, or auto", "N")


def _percent(text: str) -> float:
    value = float(whole(1, 100).parse(text.strip().removesuffix("%")))
    return value


PERCENT = Kind(_percent, "a whole number from 1 to 100, or with a % such as 85%", "PERCENT")


class ProcessConfig(Settings):
    """The number of processes, their user, and when they are replaced."""

    workers: int | WorkerCount | None = setting(
        WORKERS,
        WORKER_COUNT,
        None,
        "how many worker processes run under a master that replaces them; auto is one for each CPU that the"
        " container may use; 2..8 follows the load within this range",
        short="-w",
        foreign=("WEB_CONCURRENCY",),
        shown="none, one process",
    )
    workers_idle: float = setting(
        WORKERS,
        seconds(),
        60.0,
        "if --workers is a range: how long fewer workers must have been enough before one ends",
    )
    workers_max_rss: int | None = setting(
        WORKERS, off_or(SIZE), None, "replace a worker that uses more memory than this", aliases=("workers-max-memory",)
    )
    rss_interval: float = setting(WORKERS, seconds(), 10.0, "how often the master measures the memory of the workers")
    rss_samples: int = setting(
        WORKERS,
        whole(1, 1000),
        2,
        "how many measurements in a row must be above --workers-max-rss before the worker is replaced",
    )
    memory_target: float | None = setting(
        WORKERS,
        off_or(PERCENT),
        None,
        "replace the largest worker when all processes together use more than this percentage of the container's"
        " memory",
    )
    preload: bool = setting(
        WORKERS, SWITCH, False, "import the application once, before the workers are started", aliases=("preload-app",)
    )
    limit_max_requests: int | None = setting(
        WORKERS, off_or(whole(1)), None, "replace a worker after this many requests", aliases=("max-requests",)
    )
    limit_max_requests_jitter: int = setting(
        WORKERS,
        whole(0),
        0,
        "the largest random number that is added to --limit-max-requests, different for each worker",
        aliases=("max-requests-jitter",),
    )
    limit_max_requests_exclude: tuple[str, ...] = setting(
        WORKERS,
        words("PATHS", "a list of paths"),
        (),
        "paths whose requests do not count for --limit-max-requests, such as /health; /static/* is every path"
        " that begins with /static/",
    )
    workers_lifetime: float | None = setting(
        WORKERS, off_or(seconds()), None, "replace a worker after this time", aliases=("restart-interval",)
    )
    workers_lifetime_jitter: float = setting(
        WORKERS,
        seconds(zero=True),
        0.0,
        "the longest random time that is added to --workers-lifetime, different for each worker",
    )
    timeout_worker: float | None = setting(
        WORKERS,
        off_or(seconds()),
        30.0,
        "how long a worker's event loop may stand still; then the log shows where, and the worker is replaced",
        aliases=("timeout-worker-healthcheck", "deadlock-timeout"),
    )
    timeout_worker_startup: float | None = setting(
        WORKERS,
        off_or(seconds()),
        60.0,
        "how long a worker may take to import and start the application",
        aliases=("startup-timeout",),
    )
    pid: str | None = setting(
        WORKERS,
        FILE,
        None,
        "the file into which the number of the process (with workers, of the master) is written",
        aliases=("pid-file",),
    )
    user: str | None = setting(
        WORKERS, TEXT, None, "the user that the server becomes after it has bound its sockets", shown="the current one"
    )
    group: str | None = setting(
        WORKERS,
        TEXT,
        None,
        "the group that the server gets after it has bound its sockets",
        short="-g",
        shown="the current one",
    )
    umask: int | None = setting(WORKERS, MODE, None, "the file mode creation mask", shown="the current one")

    chdir: str | None = setting(
        WORKERS,
        DIRECTORY,
        None,
        "the directory to change to first; other paths are relative to it",
        shown="the current one",
    )
    env: tuple[tuple[str, str], ...] = setting(
        WORKERS,
        VARIABLES,
        (),
        "NAME=VALUE: set an environment variable for the application; may be repeated",
        aliases=("raw-env",),
        secret=True,
    )
    env_file: tuple[str, ...] = setting(
        WORKERS,
        words("FILES", "a list of files"),
        (),
        "files with environment variables for the application, such as .env; they do not change variables that"
        " are already set",
        aliases=("env-files",),
    )
    process_name: str | None = setting(
        WORKERS,
        TEXT,
        None,
        "the name of the processes in ps and top; needs the package setproctitle",
        aliases=("proc-name",),
    )

    hooks: Hooks = setting(
        WORKERS,
        HOOKS,
        Hooks(),
        "POINT=module:function: call this function at a point such as when_ready; the page on hooks has all"
        " points; may be repeated",
    )

    reload: bool = setting(DEVELOPMENT, SWITCH, False, "restart when a source file changes")
    reload_dir: tuple[str, ...] = setting(
        DEVELOPMENT,
        words("DIRS", "a list of directories"),
        (),
        "the directories that are watched",
        aliases=("reload-dirs", "reload-paths"),
        shown="the application's",
    )
    reload_include: tuple[str, ...] = setting(
        DEVELOPMENT,
        words("PATTERNS", "a list of patterns such as *.html"),
        (),
        "patterns for the names of further files to watch, beside *.py",
    )
    reload_exclude: tuple[str, ...] = setting(
        DEVELOPMENT,
        words("PATTERNS", "a list of patterns such as test_*"),
        (),
        "patterns for the names of files and directories that are not watched",
    )
    reload_delay: float = setting(
        DEVELOPMENT, seconds(), 0.1, "how long to wait for more changes before the restart", aliases=("reload-tick",)
    )
    debug: bool = setting(
        DEVELOPMENT,
        SWITCH,
        False,
        "show exceptions in a browser on this machine, with a console for WSGI; only if the server listens on the"
        " loopback interface",
    )
    debug_anywhere: bool = setting(
        DEVELOPMENT,
        SWITCH,
        False,
        "show exceptions and the console to everybody: whoever reaches the server can run code in it",
    )
