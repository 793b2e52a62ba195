"""Runs ``bridge`` as on a system that has less: without some modules, functions, signals and options of sockets.

``python -m tests.support.bare run TARGET ...``. What is hidden is what Windows or PyPy do not have.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import os
import signal
import socket
import sys

MODULES = ("fcntl", "grp", "pwd", "resource", "termios", "uvloop")
FUNCTIONS = (
    *(
        "fork",
        "forkpty",
        "register_at_fork",
        "sendfile",
        "eventfd",
        "eventfd_read",
        "eventfd_write",
        "sched_getaffinity",
    ),
    *("getuid", "geteuid", "getgid", "getegid", "getgroups", "initgroups", "setuid", "seteuid", "setgid", "setegid"),
    *("setgroups", "setsid", "getpgid", "setpgid", "killpg", "fchown", "chown", "lchown", "mkfifo", "wait", "waitid"),
    *("O_NOFOLLOW", "O_DIRECTORY", "O_NONBLOCK", "O_CLOEXEC", "O_NOCTTY", "O_TMPFILE", "O_PATH"),
)
SIGNALS = ("SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGCHLD", "SIGTTIN", "SIGTTOU", "SIGWINCH", "SIGALRM", "SIGPIPE")
SIGNAL_FUNCTIONS = ("setitimer", "alarm", "pthread_sigmask", "pthread_kill", "sigwait", "siginterrupt")
SOCKET_NAMES = ("SO_REUSEPORT", "SO_PEERCRED", "MSG_DONTWAIT")  # not AF_UNIX: asyncio asks for it on this system


def _refused(*_: object) -> None:
    raise NotImplementedError


def hide() -> None:
    """Take away what other systems lack. The standard library has been imported before, and keeps its own."""
    for name in ("asyncio", "logging.handlers", "shutil", "ssl", "subprocess", "tempfile", "http.client", "random"):
        importlib.import_module(name)
    loop = asyncio.SelectorEventLoop
    loop.add_signal_handler = loop.remove_signal_handler = _refused  # type: ignore[method-assign]
    for name in MODULES:
        sys.modules[name] = None  # type: ignore[assignment]
    for owner, names in (
        (os, FUNCTIONS),
        (signal, (*SIGNALS, *SIGNAL_FUNCTIONS)),
        (socket, SOCKET_NAMES),
        (gc, ("freeze", "unfreeze")),  # PyPy has none
    ):
        for name in names:
            vars(owner).pop(name, None)


if __name__ == "__main__":
    hide()
    from bridge.cli import main

    sys.exit(main(sys.argv[1:]))
