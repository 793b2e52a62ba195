"""Tornado's own tests, run against bridge; see ``test_suite``."""
