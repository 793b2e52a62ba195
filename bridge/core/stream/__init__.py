"""Tornado's IOStream and its form with TLS, over asyncio's transports."""
