"""Its place makes ``tests/`` importable, and with it the helpers in ``support``."""
