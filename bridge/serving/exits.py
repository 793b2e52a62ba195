"""The exit statuses of the command."""

from __future__ import annotations

__all__ = ["BIND_FAILED", "INTERRUPTED", "LIFESPAN_FAILED", "OK", "TARGET_FAILED", "USAGE"]

#: A graceful stop.
OK = 0
#: The server cannot listen on an address.
BIND_FAILED = 1
#: A setting cannot be used.
USAGE = 2
#: The application cannot be imported, or its interface cannot be detected.
TARGET_FAILED = 3
#: The application was imported, but its lifespan startup failed.
LIFESPAN_FAILED = 4
#: Interrupted before the server had started: 128 + SIGINT, as shells count.
INTERRUPTED = 130
