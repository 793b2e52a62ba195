"""The non-blocking HTTP server; it knows neither ASGI nor WSGI."""
