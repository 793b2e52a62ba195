"""``--metrics-app``: what the application counts with prometheus_client is shown, and its files are looked after."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.supervisor.test_administration import FORMS, counters, probes, samples, until
from tests.support.running import APPS, PATIENCE, REPOSITORY, Running, get, surroundings

pytestmark = pytest.mark.slow

prometheus_client = pytest.importorskip("prometheus_client", reason="prometheus_client is not installed")

CODE = """
import os
from prometheus_client import Counter, Gauge, Histogram
from plain import asgi

ORDERS = Counter("shop_orders", "Orders.", ["kind"])
WORKERS = Gauge("shop_workers", "Workers.", multiprocess_mode="livesum")
TAKEN = Histogram("shop_taken_seconds", "How long orders take.")

async def app(scope, receive, send):
    if scope["type"] == "http":
        WORKERS.set(1)
        ORDERS.labels("usual").inc()
        TAKEN.observe(0.02)
    await asgi(scope, receive, send)
"""
ORDERS = 'shop_orders_total{kind="usual"}'


@pytest.fixture
def environ(tmp_path: Path) -> Iterator[dict[str, str]]:
    (tmp_path / "shop.py").write_text(CODE)
    (tmp_path / "tmp").mkdir()
    found = Path(prometheus_client.__file__).parent.parent
    yield {"PYTHONPATH": f"{tmp_path}:{APPS}:{REPOSITORY}:{found}", "TMPDIR": str(tmp_path / "tmp")}
    assert os.listdir(tmp_path / "tmp") == []


@pytest.mark.parametrize("form", FORMS)
def test_what_the_application_counts_is_shown(form: str, environ: dict[str, str]) -> None:
    options = ["--admin-bind", "127.0.0.1:0", "--metrics-path", "/metrics", "--metrics-app"]
    with Running("shop:app", *options, *FORMS[form], environ=environ) as server:
        address = server.address()
        where = probes(server)
        for _ in range(20):
            get(address)
        for place in (where, address):
            found = samples(place)
            assert found[ORDERS] == 20
            assert found["shop_taken_seconds_count"] == 20
            assert found["http_server_request_duration_seconds_count" + SERVED] == 20
        text = get(where, "/metrics", "Accept: application/openmetrics-text")[2]
        assert text.endswith(b"\n# EOF\n")
        assert text.count(b"# EOF") == 1
        names = re.findall(rb"^# TYPE (\S+)", text, re.MULTILINE)
        assert len(names) == len(set(names))
        assert server.end() == 0


SERVED = '{http_request_method="GET",http_response_status_code="200",url_scheme="http",network_protocol_version="1.1"}'


def test_no_counter_falls_and_no_file_is_left(environ: dict[str, str], tmp_path: Path) -> None:
    options = ["--admin-bind", "127.0.0.1:0", "--metrics-app", "--workers", "2"]
    with Running("shop:app", *options, environ=environ) as server:
        address = server.address()
        where = probes(server)
        served = 0
        last: dict[str, float] = {}

        def serve() -> None:
            nonlocal served, last
            for _ in range(20):
                assert get(address)[0] == 200
            served += 20
            before, last = last, counters(samples(where))
            assert [key for key, value in before.items() if last.get(key, -1.0) < value] == []
            assert last[ORDERS] == served

        serve()
        os.kill(next(iter(server.current().values())), signal.SIGKILL)
        server.messages.wait("is ready", 3)
        serve()
        server.signal("SIGHUP")
        server.messages.wait("Reloaded")
        server.messages.wait("ended with status 0", 2)
        serve()
        until(lambda: samples(where)["shop_workers"] <= 2)
        (directory,) = (tmp_path / "tmp").iterdir()
        owners = {re.split(r"[_.]", name)[-2] for name in os.listdir(directory)}
        assert owners == {f"ended-{server.pid}", *map(str, server.current().values())}
        server.signal("SIGUSR2")
        new = re.search(r"pid (\d+)", server.messages.wait("this one retires"))
        assert new is not None
        assert server.process.wait(PATIENCE) == 0
        serve()
        os.kill(int(new[1]), signal.SIGTERM)
        server.messages.join()


def test_files_of_an_earlier_run_do_not_count(environ: dict[str, str], tmp_path: Path) -> None:
    directory = tmp_path / "kept"
    environ = {**environ, "PROMETHEUS_MULTIPROC_DIR": str(directory)}
    for _ in range(2):
        options = ["--admin-bind", "127.0.0.1:0", "--metrics-app", "--workers", "1"]
        with Running("shop:app", *options, environ=environ) as server:
            get(server.address())
            assert samples(probes(server))[ORDERS] == 1
            assert server.end() == 0
        assert directory.exists()


def test_files_that_nobody_can_read_are_told_once(environ: dict[str, str], tmp_path: Path) -> None:
    directory = tmp_path / "kept"
    environ = {**environ, "PROMETHEUS_MULTIPROC_DIR": str(directory)}
    options = ["--admin-bind", "127.0.0.1:0", "--metrics-app", "--workers", "1"]
    with Running("shop:app", *options, environ=environ) as server:
        get(server.address())
        where = probes(server)
        (directory / f"counter_{os.getpid()}.db").write_bytes(b"\xff\xff\0\0" * 20_000)
        for _ in range(3):
            found = samples(where)
            assert ORDERS not in found
            assert found["http_server_request_duration_seconds_count" + SERVED] == 1
        os.unlink(directory / f"counter_{os.getpid()}.db")
        assert samples(where)[ORDERS] == 1
        assert server.end() == 0
        assert len(re.findall("metrics cannot be read", server.messages.text)) == 1


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--metrics-app"], "needs --admin-bind or --metrics-path"),
        (["--metrics-app", "--metrics-path", "/m", "--user", "nobody", "--workers", "1"], "not with --user, unless"),
    ],
)
def test_settings_that_cannot_be_used(options: list[str], reason: str) -> None:
    words = [sys.executable, "-m", "bridge", "run", "plain:asgi", "--port", "0", *options]
    environ = {**surroundings(), "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(words, cwd=APPS, env=environ, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 2
    assert f"--metrics-app: {reason}" in done.stderr
