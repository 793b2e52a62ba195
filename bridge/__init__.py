"""bridge: one HTTP server for ASGI, WSGI and Tornado-style applications."""

__version__ = "0.1.0.dev0"
