"""Every run of the tests is the same run, and no failed assertion is swallowed by a server."""

from __future__ import annotations

from collections.abc import Generator

import pytest
from hypothesis import settings

from tests.support.faults import listening

# The same examples every time, and none fails because the machine was busy. To look for new ones:
# pytest --hypothesis-profile=default --hypothesis-seed=N
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Generator[None, object, object]:
    """Fail a test in whose applications an assertion has failed, whoever serves them: servers survive that."""
    with listening() as errors:
        result = yield
    errors.check_assertions()
    return result
