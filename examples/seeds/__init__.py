"""The samples of Tornado's documentation, 3.1 to 6.x, with ``bridge.core`` in place of ``tornado`` in their imports."""
