"""Connections on asyncio transports: the only ring that touches transports, clocks and deadlines."""
