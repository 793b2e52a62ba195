"""Every run of the tests is the same run, and no failed assertion is swallowed by a server.

No test runs for ever: each of its phases has 120 seconds, or those of ``@pytest.mark.time_limit(seconds)``. Then it
fails where it stands, with the stacks of all threads, and the next one runs.
"""

from __future__ import annotations

import faulthandler
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import settings

from tests.support import protocols
from tests.support.faults import listening
from tests.support.protocols import pytest_generate_tests

__all__ = ["pytest_generate_tests"]

# The same examples every time, and none fails because the machine was busy. To look for new ones:
# pytest --hypothesis-profile=default --hypothesis-seed=N
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")

# Several times what the slowest test takes, on a machine that does other things as well.
TIME_LIMIT = 120.0
AGAIN = 3.0


def pytest_configure(config: pytest.Config) -> None:
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell's background job; servers would inherit that
        signal.signal(signal.SIGINT, signal.default_int_handler)
    config.addinivalue_line("markers", "http1(reason): what only HTTP/1 has; not run over HTTP/2")
    config.addinivalue_line("markers", "wide_over_http2: `make test` runs it over HTTP/1 only")
    config.addinivalue_line("markers", f"time_limit(seconds): each phase of the test may take this, not {TIME_LIMIT:g}")


class TooLong(KeyboardInterrupt):
    """The test has had its time. Of this kind, because both event loops let it through from wherever it is raised."""


@contextmanager
def limited(item: pytest.Item) -> Iterator[None]:
    """Fail what runs here when it takes too long.

    A signal, because it reaches the main thread wherever it waits. It comes again a few seconds later: what has caught
    the first one does not keep the test from ending.
    """
    marker = item.get_closest_marker("time_limit")
    seconds = float(marker.args[0]) if marker is not None else TIME_LIMIT

    over = False

    def too_long(number: int, frame: object) -> None:
        if over:
            return
        faulthandler.dump_traceback(file=2, all_threads=True)
        raise TooLong

    before = signal.signal(signal.SIGALRM, too_long)
    signal.setitimer(signal.ITIMER_REAL, seconds, AGAIN)
    try:
        yield
    except TooLong as exc:
        over = True
        failure = pytest.fail.Exception(f"the test has not ended within {seconds:g} s")
        raise failure.with_traceback(exc.__traceback__) from None
    finally:
        over = True
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Iterator[None]:
    with limited(item):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Also fail a test in whose applications an assertion has failed, whoever serves them: servers survive that."""
    with limited(item), listening() as errors:
        result = yield
    errors.check_assertions()
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    with limited(item):
        return (yield)


@pytest.fixture
def protocol(request: pytest.FixtureRequest) -> Iterator[str]:
    """The version of HTTP that the test runs over, see ``tests/support/protocols.py``."""
    protocols.now = getattr(request, "param", "http1")
    yield protocols.now
    protocols.now = "http1"


@pytest.fixture(autouse=True)
def _nothing_stays() -> Iterator[None]:
    """Let no test choose a directory, or another server's loggers, for the tests that follow."""
    yield
    logs = sys.modules.get("bridge.telemetry.logs")
    if logs is not None:
        logs._stands_for.clear()
    process = sys.modules.get("bridge.serving.process")
    if process is not None:
        process.forget_directory()
