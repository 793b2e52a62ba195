"""The exceptions of bridge: each class says who is at fault and what happens next.

This module knows nothing else of the package; every layer may import it.
"""

from __future__ import annotations

TYPE_CHECKING = False  # typing is heavy, and --version needs none of it
if TYPE_CHECKING:
    from types import TracebackType

__all__ = [
    "BindError",
    "BridgeError",
    "ConfigError",
    "ConnectionGone",
    "FramingError",
    "LifespanFailed",
    "LimitExceeded",
    "LocalProtocolError",
    "RemoteProtocolError",
    "RequestSyntaxError",
    "RequestTimeout",
    "UnsupportedFeature",
    "caused_by_disconnect",
    "traceback_of",
]


class BridgeError(Exception):
    """The base of every exception that bridge raises on purpose."""


class ConfigError(BridgeError, ValueError):
    """A setting has a value that cannot be used. `bridge run` raises it before it opens a socket."""


class BindError(BridgeError, OSError):
    """An address cannot be listened on; the message names it and the reason.

    Attributes:
        errno: The system's error number, for programs to compare; None if there is none.
    """

    def __init__(self, message: str, cause: Exception | None = None) -> None:
        super().__init__(message)
        self.errno = getattr(cause, "errno", None)


class LifespanFailed(BridgeError):
    """The application cannot start: it reported a failure, raised an exception, or ended during startup."""


class RemoteProtocolError(BridgeError):
    """The peer broke a rule. The server answers ``status`` if nothing was sent yet, and closes the connection.

    Attributes:
        status: The HTTP status code of the answer.
    """

    status = 400


class RequestSyntaxError(RemoteProtocolError):
    """The request head is malformed (RFC 9112 sections 2 to 5): 400."""


class FramingError(RemoteProtocolError):
    """It is not certain where the message ends (RFC 9112 sections 6 and 7): 400."""


class LimitExceeded(RemoteProtocolError):
    """A part of the request exceeds a limit of this server: 413, 414 or 431."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class UnsupportedFeature(RemoteProtocolError):
    """The request is well-formed, but asks for something that this server does not do: 501, or 505 for the version."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class RequestTimeout(RemoteProtocolError):
    """The peer did not send the rest of its request in time (RFC 9110 section 15.5.9): 408."""

    status = 408


class LocalProtocolError(BridgeError):
    """The application broke a rule. The server answers 500 if nothing was sent yet, else it aborts the connection."""


class ConnectionGone(BridgeError, OSError):
    """The peer left, or the connection was closed: nothing more can be sent. It is never logged as an error."""


def caused_by_disconnect(error: BaseException | None, before: tuple[BaseException, ...] = ()) -> bool:
    """Tell whether *error* is a ConnectionGone, or was caused by one.

    Args:
        error: The exception.
        before: The exceptions already looked at, since causes may form a circle.
    """
    while error is not None and not any(error is each for each in before):
        if isinstance(error, ConnectionGone):
            return True
        before = (*before, error)
        if isinstance(error, BaseExceptionGroup):
            return all(caused_by_disconnect(each, before) for each in error.exceptions)
        error = error.__context__ if error.__cause__ is None else error.__cause__
    return False


def traceback_of(
    error: BaseException | None,
) -> tuple[type[BaseException], BaseException, TracebackType | None] | None:
    """Return what ``exc_info`` of a logger takes, for an exception that has been kept.

    Loggers drop an exception that is false, such as one with ``__len__``. They never drop a tuple.

    Args:
        error: The exception; None for no traceback.
    """
    return None if error is None else (type(error), error, error.__traceback__)
