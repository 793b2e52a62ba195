"""The three loggers of the server, under one parent named ``bridge``.

Nothing here installs a handler or sets a level: that is the program's affair.
"""

from __future__ import annotations

import logging

__all__ = ["access_log", "app_log", "gen_log"]

# One line per finished response, if somebody asks for it.
access_log = logging.getLogger("bridge.access")

# What an application did wrong: exceptions that nobody caught.
app_log = logging.getLogger("bridge.application")

# Everything else: refused requests, failed handshakes, the server's own warnings.
gen_log = logging.getLogger("bridge.general")
