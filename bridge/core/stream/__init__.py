"""Streams: Tornado's IOStream and its TLS form, over asyncio."""
