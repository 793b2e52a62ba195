"""Decides what a forked child keeps of the server: its own children keep all, the application's children nothing.

A child that the application forks (``multiprocessing``, ``os.fork``) has to behave as it would outside of a server.
So it gets the signal handlers from before the server, and every descriptor of the server leads to the null device.
Then a connection that the server closes is really closed, and no port stays taken. Descriptors are replaced and not
closed: objects that the child has inherited would otherwise close what gets their numbers next.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import logging
import operator
import os
import signal
import sys
import threading
import weakref
from collections.abc import Callable, Iterable
from typing import Any, NoReturn

__all__ = [
    "FAULTS",
    "add",
    "begin_afresh",
    "children",
    "drop",
    "drop_connections",
    "end_if_forked",
    "fork",
    "leave",
    "remove",
    "reset_signals",
    "was_for_a_child",
]

#: What a delegate's code may raise: anything. It ends a request, not the server; :func:`end_if_forked` ends a child.
FAULTS = (BaseException,)

# Libraries that collect data and send it in the background: the module, the function that sends the rest, and the most
# seconds for that.
_SENDERS = (
    ("ddtrace.trace", "tracer.shutdown", 5.0),
    ("newrelic.agent", "shutdown_agent", 2.5),
    ("sentry_sdk", "flush", 2.0),
)

_in_child: list[Callable[[], None]] = []
_forking = 0  # the thread that is forking a child of the server's own
_forked = False
_server = 0  # the process that has set the signal handlers
_children: set[int] = set()  # of the application's
# When more children than this are remembered, those that were reaped are forgotten.
_MANY = 1000


def add(in_child: Callable[[], None]) -> Callable[[], None]:
    """Call a function in every child that the application forks. Return it, for :func:`remove`."""
    global _server
    _server = os.getpid()
    _in_child.append(in_child)
    return in_child


def remove(in_child: Callable[[], None]) -> None:
    """Undo :func:`add`. May be called again."""
    with contextlib.suppress(ValueError):
        _in_child.remove(in_child)


def fork() -> int:
    """Fork a child of the server's own, which keeps everything; see ``os.fork``."""
    global _forking
    _forking = threading.get_ident()
    try:
        return os.fork()
    finally:
        _forking = 0


_held = threading.local()


def _before_fork() -> None:
    """Block signals: one that reaches the child before its handlers are reset would be lost."""
    if _in_child and hasattr(signal, "pthread_sigmask"):
        _held.mask = signal.pthread_sigmask(signal.SIG_BLOCK, _HELD)


def _after_fork_in_parent() -> None:
    try:
        if _in_child and _forking != threading.get_ident():
            _note_child()
    finally:
        _let_signals_come()


def _note_child() -> None:
    """Note the child that this thread has just forked. Linux lists the youngest child last."""
    with contextlib.suppress(OSError):
        with open("/proc/thread-self/children", "rb") as file:
            found = file.read().split()
        if found:
            _children.add(int(found[-1]))
    if len(_children) > _MANY:
        _children.intersection_update(children())


def children() -> set[int]:
    """Return the application's forked children that are not reaped yet; on Linux only.

    No object stands for those of ``os.fork`` and ``pty.fork``, but the application may ask for their status later.
    """
    return {pid for pid in _children.copy() if _is_child(pid)}


def _is_child(pid: int) -> bool:
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except OSError:
        return False
    return True


def _let_signals_come() -> None:
    mask = _held.__dict__.pop("mask", None)
    if mask is not None:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _after_fork_in_child() -> None:
    try:
        _after_fork()
    finally:
        _let_signals_come()


_HELD = [
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGQUIT", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGTTIN", "SIGTTOU", "SIGCHLD")
    if hasattr(signal, name)
]


def _after_fork() -> None:
    global _forked, _server
    _children.clear()
    if _forking == threading.get_ident():
        _server = os.getpid()
        with contextlib.suppress(ValueError):  # only the main thread has one
            signal.set_wakeup_fd(-1)  # it is the parent's: it would report the child's signals to the parent
        return
    functions = _in_child[::-1]  # last in, first out
    _in_child.clear()  # they are the parent's, also for children of this child
    if not functions:
        return
    _forked = True
    signal.set_wakeup_fd(-1)  # otherwise this process's signals would be reported to the parent
    _forget_loop()
    for function in functions:
        with contextlib.suppress(Exception):
            function()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)


def _forget_loop() -> None:
    """Unset this thread's event loop, which the parent uses too. Python 3.12 does that by itself."""
    if sys.version_info < (3, 12):
        policy: Any = asyncio.get_event_loop_policy()
        if isinstance(policy, asyncio.events.BaseDefaultEventLoopPolicy):
            policy._local = policy._Local()  # type: ignore[attr-defined]  # as Python 3.12 does it


def drop(descriptors: Iterable[int]) -> None:
    """Let *descriptors* lead to the null device in this process."""
    nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for number in descriptors:
        if number >= 0 and number != nothing:
            with contextlib.suppress(OSError):
                os.fstat(number)  # a number that is free stays free
                os.dup2(nothing, number, inheritable=False)
    os.close(nothing)


def drop_connections(names: Iterable[object]) -> None:
    """Let all sockets with these local addresses lead to the null device, listening ones and connections.

    This looks at every descriptor of the process: no list has all connections at every moment, for example those in
    their handshake.

    Args:
        names: What ``getsockname()`` has returned for sockets that listen.
    """
    import socket

    wanted = {_port(name) for name in names}
    found = []
    for number in _descriptors():
        try:
            sock = socket.socket(fileno=number)
        except OSError:
            continue  # it is no socket
        try:
            if _port(sock.getsockname()) in wanted:
                found.append(number)
        except OSError:
            pass
        finally:
            sock.detach()
    drop(found)


def _port(name: Any) -> object:
    """Return the part that a listening socket's local address has in common with those of its connections."""
    return name[1] if isinstance(name, tuple) else name


def _descriptors() -> list[int]:
    for directory in ("/proc/self/fd", "/dev/fd"):
        with contextlib.suppress(OSError):
            return [int(name) for name in os.listdir(directory)]
    return list(range(os.sysconf("SC_OPEN_MAX")))


def was_for_a_child(number: int) -> bool:
    """Tell whether a signal has come so early in a child of the application that it called the server's handler.

    The signal then gets its default action, which may end the process: ``multiprocessing`` ends children that have
    just begun.
    """
    if not _server or os.getpid() == _server:
        return False
    signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    os.kill(os.getpid(), number)
    return True


def reset_signals(numbers: Iterable[int], ours: Callable[..., object]) -> None:
    """Give the signals whose handler is *ours* the action that they have in a new interpreter."""
    for number in numbers:
        if signal.getsignal(number) == ours:
            usual = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
            signal.signal(number, usual)


# ---------------------------------------------------------------------- the end of a child


def end_if_forked(exc: BaseException) -> None:
    """In a child of the application's, let an exception that reaches the server end the process as usual.

    Otherwise the child would go on as a second server, with the parent's requests.
    """
    if not _forked:
        return
    if isinstance(exc, SystemExit):
        code = exc.code
        if code is not None and not isinstance(code, int):
            print(code, file=sys.stderr)
            code = 1
        leave(code or 0)
    sys.excepthook(type(exc), exc, exc.__traceback__)
    leave(1)


def _send_rest(module: str, function: str, seconds: float) -> None:
    """Let a library send what it still has, for a limited time (seconds)."""
    operator.attrgetter(function)(sys.modules[module])(seconds)


def begin_afresh() -> None:
    """In a child of the server's own, drop what the parent does at its end and in its children.

    That means functions that were registered with ``atexit``, finalizers, such as those of temporary directories,
    and the child processes of ``multiprocessing``. ``multiprocessing`` does the same in its children.

    Libraries that send what a process has gathered (traces, errors) have to do that in each process, at its end.
    """
    _in_child.clear()
    clear = getattr(atexit, "_clear", None)
    if clear is None:
        return
    clear()
    finalize: Any = weakref.finalize
    for info in list(finalize._registry.values()):
        info.atexit = False
    if finalize._registered_with_atexit:
        atexit.register(finalize._exitfunc)
    atexit.register(logging.shutdown)
    for module, function, seconds in _SENDERS:
        if module in sys.modules:
            atexit.register(_send_rest, module, function, seconds)
    util: Any = sys.modules.get("multiprocessing.util")
    if util is not None:
        process: Any = sys.modules["multiprocessing.process"]
        process._children = set()
        util._finalizer_registry.clear()
        util._run_after_forkers()
        atexit.register(util._exit_function)


def leave(code: int) -> NoReturn:
    """End this forked process here: the parent's program, which called this, must not go on in the child.

    Threads that are no daemons are waited for, and what is registered with ``atexit`` is called, as usual.
    """
    try:
        for step in (threading._shutdown, atexit._run_exitfuncs):  # type: ignore[attr-defined]  # no other way to call them
            with contextlib.suppress(BaseException):
                step()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
    finally:
        os._exit(code)
