"""Lets ``Application.listen()`` and Tornado's testing classes, which name Tornado's own HTTPServer, start bridge's.

A program that constructs the server itself does not need this. It imports HTTPServer from ``bridge.core.httpserver``.
"""

from __future__ import annotations

import importlib
import sys

__all__ = ["install"]


def install() -> None:
    """Put bridge's HTTPServer in the place of Tornado's in all of Tornado's modules; may be called again.

    Call it before other modules import ``HTTPServer`` from ``tornado.httpserver``: a name that they have imported does
    not change.

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
