"""Tornado's own short cuts on bridge: ``Application.listen()`` and Tornado's testing classes name its HTTPServer.

A program that constructs the server itself needs nothing of this: it imports HTTPServer from
``bridge.core.httpserver``.
"""

from __future__ import annotations

import importlib
import sys

__all__ = ["install"]


def install() -> None:
    """Let Tornado, where it starts a server by name, start bridge's; may be called again.

    To be called before other modules import ``HTTPServer`` from ``tornado.httpserver``: what they have imported stays
    what it is.

    Raises:
        ImportError: Tornado is not installed.
    """
    from bridge.core.httpserver import HTTPServer

    tornado = importlib.import_module("tornado.httpserver")
    importlib.import_module("tornado.web")
    original = tornado.HTTPServer
    if original is HTTPServer:
        return
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] == "tornado" and module is not None:
            for attribute, value in list(vars(module).items()):
                if value is original:
                    setattr(module, attribute, HTTPServer)
