"""Delegates that translate requests for applications: ASGI, WSGI."""
