"""Tornado's documented interface, over connections and streams."""
