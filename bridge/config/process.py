"""The settings for processes and development, a part of the table in `bridge.config.settings`."""

from __future__ import annotations

import os

from bridge.config.kinds import (
    DIRECTORY,
    FILE,
    MODE,
    SWITCH,
    TEXT,
    VARIABLES,
    off_or,
    seconds,
    whole,
    whole_or,
    words,
)
from bridge.config.table import Settings, setting

__all__ = ["DEVELOPMENT", "WORKERS", "ProcessConfig", "usable_cpus"]

WORKERS = "Processes"
DEVELOPMENT = "Development"


def usable_cpus() -> int:
    """Count the CPUs this process may run on, which a container often restricts."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class ProcessConfig(Settings):
    """The number of processes, their user, and when they are replaced."""

    workers: int | None = setting(
        WORKERS,
        whole_or("auto", usable_cpus, 1000),
        None,
        "worker processes, under a master that replaces them; auto is one per CPU",
        short="-w",
        foreign=("WEB_CONCURRENCY",),
        shown="none, one process",
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
        "add a random number of requests up to this, different for each worker",
        aliases=("max-requests-jitter",),
    )
    workers_lifetime: float | None = setting(
        WORKERS, off_or(seconds()), None, "replace a worker after this time", aliases=("restart-interval",)
    )
    workers_lifetime_jitter: float = setting(
        WORKERS, seconds(zero=True), 0.0, "add a random time up to this, different for each worker"
    )
    timeout_worker: float | None = setting(
        WORKERS,
        off_or(seconds()),
        30.0,
        "replace a worker whose event loop stands still for this long, and log where it stands",
        aliases=("timeout-worker-healthcheck", "deadlock-timeout"),
    )
    timeout_worker_startup: float | None = setting(
        WORKERS,
        off_or(seconds()),
        60.0,
        "how long a worker may take to import and start the application",
        aliases=("startup-timeout",),
    )
    pid: str | None = setting(WORKERS, FILE, None, "write the process number into this file", aliases=("pid-file",))
    user: str | None = setting(WORKERS, TEXT, None, "become this user after listening", shown="the current one")
    group: str | None = setting(
        WORKERS, TEXT, None, "become this group after listening", short="-g", shown="the current one"
    )
    umask: int | None = setting(WORKERS, MODE, None, "the file mode creation mask", shown="the current one")

    chdir: str | None = setting(
        WORKERS,
        DIRECTORY,
        None,
        "change to this directory first; other paths are relative to it",
        shown="the current one",
    )
    env: tuple[tuple[str, str], ...] = setting(
        WORKERS,
        VARIABLES,
        (),
        "NAME=VALUE, an environment variable for the application; may be repeated",
        aliases=("raw-env",),
        secret=True,
    )
    env_file: tuple[str, ...] = setting(
        WORKERS,
        words("FILES", "a list of files"),
        (),
        "files of environment variables for the application, such as .env; variables that exist are kept",
        aliases=("env-files",),
    )
    process_name: str | None = setting(
        WORKERS,
        TEXT,
        None,
        "the name of the processes in ps and top; needs the package setproctitle",
        aliases=("proc-name",),
    )

    reload: bool = setting(DEVELOPMENT, SWITCH, False, "restart when a source file changes")
    reload_dir: tuple[str, ...] = setting(
        DEVELOPMENT,
        words("DIRS", "a list of directories"),
        (),
        "watch these directories",
        aliases=("reload-dirs", "reload-paths"),
        shown="the application's",
    )
    reload_include: tuple[str, ...] = setting(
        DEVELOPMENT,
        words("PATTERNS", "a list of patterns such as *.html"),
        (),
        "also watch files with such names, beside *.py",
    )
    reload_exclude: tuple[str, ...] = setting(
        DEVELOPMENT,
        words("PATTERNS", "a list of patterns such as test_*"),
        (),
        "do not watch such files or directories",
    )
    reload_delay: float = setting(
        DEVELOPMENT, seconds(), 0.1, "wait this long for more changes to the files", aliases=("reload-tick",)
    )
    debug: bool = setting(
        DEVELOPMENT,
        SWITCH,
        False,
        "show exceptions in the browser, with a console for WSGI; on the loopback interface only",
    )
    debug_anywhere: bool = setting(
        DEVELOPMENT, SWITCH, False, "allow --debug on any interface: everyone who reaches it can run code here"
    )
