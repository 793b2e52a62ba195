"""The server's three loggers, under one parent named ``bridge``.

This module installs no handler and sets no level. That is left to the program.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

__all__ = ["access_log", "app_log", "error_text", "gen_log"]

# One line for each finished response, if the access log is on.
access_log = logging.getLogger("bridge.access")

# Faults of the application: exceptions that it did not catch.
app_log = logging.getLogger("bridge.application")

# Everything else: refused requests, failed handshakes, the server's own warnings.
gen_log = logging.getLogger("bridge.general")

# Takes text for standard error and never waits; None where code may write there itself.
error_text: Callable[[str], None] | None = None
