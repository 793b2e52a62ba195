"""Makes ``tests/`` importable, and with it the helpers in ``support``; every run of the tests is the same run."""

from __future__ import annotations

from hypothesis import settings

# The same examples every time, and none fails because the machine was busy. To look for new ones:
# pytest --hypothesis-profile=default --hypothesis-seed=N
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")
