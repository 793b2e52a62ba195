"""Delegates around delegates: they change or refuse a request on its way, and know interfaces only."""
