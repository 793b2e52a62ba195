"""ASGI 3 applications (ASGI specification 3.0, HTTP and WebSocket sub-specification 2.5) on the event loop."""

from bridge.adapters.asgi.delegate import ASGIDelegate

__all__ = ["ASGIDelegate"]
