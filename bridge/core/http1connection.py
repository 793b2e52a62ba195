"""HTTP/1.x connections under Tornado's documented names."""

from __future__ import annotations

from bridge.core.tornado.client import HTTP1Connection
from bridge.core.tornado.parameters import HTTP1ConnectionParameters
from bridge.core.tornado.serverconnection import HTTP1ServerConnection

__all__ = ["HTTP1Connection", "HTTP1ConnectionParameters", "HTTP1ServerConnection"]
