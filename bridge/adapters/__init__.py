"""Delegates that translate between exchanges and applications: ASGI, WSGI, several of them on one port."""
