"""The messages between the master and its child processes: one enum for each direction.

A message is a word with values. The values of each word are below; `bridge.supervisor.channel` carries the messages.
"""

from __future__ import annotations

import enum

__all__ = ["FromProgram", "FromWatcher", "FromWorker", "ToWorker"]


class ToWorker(enum.StrEnum):
    """What the master orders a worker to do."""

    RETIRE = "retire"
    """Finish the requests in progress and end: other processes serve the same sockets. No values."""

    DRAIN = "drain"
    """Go on serving, but announce the end. Values: seconds that idle connections stay open for that; whether
    applications get notice of a stop."""

    UNDRAIN = "undrain"
    """Serve as before DRAIN. No values."""

    DUMP = "dump"
    """Write what the process does into the file whose descriptor comes with the message. Value: the dump's number."""

    LOG_LEVEL = "log-level"
    """Log messages from this level on. Value: the level."""

    STOP = "stop"
    """Finish the requests in progress and end. Value: their time in seconds, or None for as long as they take."""

    FORCE = "force"
    """Cut off the requests in progress and end. No values."""

    INTERRUPTED = "interrupted"
    """The master was told to end by SIGINT or SIGQUIT; STOP or FORCE follows. Sent for hooks only. No values."""

    REOPEN = "reopen"
    """Open the log files again. Values: the paths of those whose new descriptors come with the message."""


class FromWorker(enum.StrEnum):
    """What a worker reports. Each report is a sign of life too."""

    READY = "ready"
    """The worker accepts connections. Value: the application's interface in words."""

    BEAT = "beat"
    """The event loop runs. No values."""

    FINISHED = "finished"
    """The worker has served its time and asks for a successor. Value: ``requests``, ``lifetime``, or ``asked``."""

    STUCK = "stuck"
    """Every thread of a full pool is busy for too long; the worker asks for a successor. No values."""

    DUMPED = "dumped"
    """What DUMP has asked for is written. Value: the dump's number."""

    CHECKED = "checked"
    """The readiness check has another result. Values: whether the worker is ready, and a few words."""

    DRAINING = "draining"
    """The worker accepts no more connections. No values."""

    FAILED = "failed"
    """The worker cannot start. Values: its exit status, the reason in one line, the traceback or an empty text."""


class FromProgram(enum.StrEnum):
    """What the program that has started a master beside itself passes on."""

    SIGNAL = "signal"
    """The program has got a signal. Value: its name."""


class FromWatcher(enum.StrEnum):
    """What the process that watches source files reports."""

    CHANGED = "changed"
    """Files have changed. Values: their paths."""
