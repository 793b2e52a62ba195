"""Runs ``bridge`` as on a system that has less: without some modules, functions, signals and options of sockets.

``python -m tests.support.bare run TARGET ...``. What is hidden is what Windows or PyPy do not have.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import importlib
import os
import select
import signal
import socket
import sys
import tempfile

MODULES = ("fcntl", "grp", "pwd", "resource", "termios", "uvloop")
FUNCTIONS = (
    *("fork", "forkpty", "register_at_fork", "posix_spawn", "posix_spawnp", "wait", "wait3", "wait4", "waitid"),
    *("getuid", "geteuid", "getgid", "getegid", "getgroups", "initgroups", "setuid", "seteuid", "setgid", "setegid"),
    *("setgroups", "setsid", "getpgid", "getpgrp", "setpgid", "killpg", "nice", "setpriority"),
    *("chown", "fchown", "lchown", "fchmod", "fchdir", "mkfifo", "statvfs", "fstatvfs", "lockf", "fdatasync"),
    *("sendfile", "pread", "pwrite", "readv", "writev", "pipe2", "get_blocking", "set_blocking", "memfd_create"),
    *("eventfd", "eventfd_read", "eventfd_write", "openpty", "ttyname", "uname", "sysconf", "confstr", "getloadavg"),
    *("sched_getaffinity", "sched_setaffinity", "sched_yield"),
    *("O_NOFOLLOW", "O_DIRECTORY", "O_NONBLOCK", "O_CLOEXEC", "O_NOCTTY", "O_TMPFILE", "O_PATH", "O_ASYNC", "O_SYNC"),
)
SIGNALS = {"SIGABRT", "SIGFPE", "SIGILL", "SIGINT", "SIGSEGV", "SIGTERM"}  # Windows has no others that we could ask for
SIGNAL_FUNCTIONS = (
    *("setitimer", "getitimer", "alarm", "pause", "siginterrupt"),
    *("pthread_sigmask", "pthread_kill", "sigpending", "sigwait", "sigwaitinfo", "sigtimedwait"),
)
SELECT = ("poll", "epoll", "PIPE_BUF")
SOCKET = ("AF_UNIX", "SO_REUSEPORT", "SO_PEERCRED", "MSG_DONTWAIT", "MSG_NOSIGNAL", "SOCK_CLOEXEC", "SOCK_NONBLOCK")


def _refused(*_: object) -> None:
    raise NotImplementedError


class Proactor(asyncio.SelectorEventLoop):
    """The default loop, which refuses what that of Windows has not."""

    add_reader = remove_reader = add_writer = remove_writer = _refused  # type: ignore[assignment]


def hide() -> None:
    """Take away what other systems lack. The standard library has been imported before, and keeps its own."""
    for name in ("asyncio", "logging.handlers", "shutil", "ssl", "subprocess", "tempfile", "http.client", "random"):
        importlib.import_module(name)
    loop = asyncio.SelectorEventLoop
    loop.add_signal_handler = loop.remove_signal_handler = _refused  # type: ignore[method-assign]
    asyncio.ProactorEventLoop = Proactor  # type: ignore[attr-defined]
    asyncio.new_event_loop = Proactor
    for name in MODULES:
        sys.modules[name] = None  # type: ignore[assignment]
    tempfile._O_TMPFILE_WORKS = False  # type: ignore[attr-defined]
    socket.socketpair = functools.partial(socket.socketpair, socket.AF_UNIX)  # the loop's own
    signals = {name for name in dir(signal) if name.startswith("SIG") and name.isalnum()}
    for owner, names in (
        (os, FUNCTIONS),
        (signal, (*(signals - SIGNALS), *SIGNAL_FUNCTIONS)),
        (select, SELECT),
        (socket, SOCKET),
        (gc, ("freeze", "unfreeze")),  # PyPy has none
    ):
        for name in names:
            vars(owner).pop(name, None)


if __name__ == "__main__":
    hide()
    from bridge.cli import main

    sys.exit(main(sys.argv[1:]))
