"""WSGI applications (PEP 3333) on an event loop: the loop talks to the clients, threads run the application."""

from bridge.adapters.wsgi.delegate import WSGIDelegate

__all__ = ["WSGIDelegate"]
