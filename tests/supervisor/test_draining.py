"""Before a stop the server says that it is not ready, and serves on: --drain-delay, --health-path."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from tests.supervisor.test_administration import FORMS, until
from tests.support.running import Client, Running, get

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("app", "form"),
    [*(("plain:asgi", form) for form in FORMS), ("plain:wsgi", "workers"), ("tornado_style:callable_app", "alone")],
)
def test_a_stop_is_announced_and_all_is_served_until_then(app: str, form: str, tmp_path: Path) -> None:
    admin = str(tmp_path / "admin.sock")
    options = ["--admin-bind", f"unix:{admin}", "--health-path", "/healthz", "--drain-delay", "1h", *FORMS[form]]
    with Running(app, *options) as server:
        address = server.address()
        server.messages.wait("A stop takes up to 3630 s: --drain-delay 3600 and --timeout-graceful-shutdown 30")
        assert get(address, "/healthz")[::2] == (200, b"ok\n")
        with Client(address) as idle:
            assert "connection" not in idle.get()[1]
            server.signal("SIGTERM")
            server.messages.wait("Draining on SIGTERM: serving for 3600.0 s more; a second SIGTERM stops now")
            until(lambda: get(address, "/healthz")[0] == 503)
            assert get(address, "/healthz")[2] == b"not ready: draining\n"
            for served in range(20):
                status, fields, _ = get(address)
                assert (status, fields.get("connection")) == (200, "close")
                assert get(admin, "/readyz")[0] == 503
                assert get(admin, "/livez")[0] == 200
                assert get(admin, "/metrics")[0] == 200
                if served == 0:
                    assert idle.get()[1].get("connection") == "close"
            if form != "alone":
                server.signal("SIGHUP")
                server.messages.wait("SIGHUP: not while the server drains")
            assert server.end("SIGTERM") == 0  # a second signal waits no longer
    assert "healthz" not in server.output.text


@pytest.mark.parametrize("form", FORMS)
def test_a_drain_ends_after_its_time(form: str) -> None:
    with Running("plain:asgi", "--drain-delay", "0.5", *FORMS[form]) as server:
        server.address()
        began = time.monotonic()
        assert server.end("SIGTERM") == 0
        assert time.monotonic() - began > 0.5
        assert "Drained: stopping" in server.messages.text


@pytest.mark.parametrize("form", FORMS)
def test_other_signals_do_not_wait(form: str) -> None:
    with Running("plain:asgi", "--drain-delay", "1h", *FORMS[form]) as server:
        server.address()
        assert server.end("SIGINT") == 0


CHECK = """
import os, pathlib
import plain
asgi = plain.asgi
def check():
    return pathlib.Path(os.environ["CHECKED"]).exists()
"""


@pytest.mark.parametrize("form", ["alone", "workers"])
def test_the_check_decides(form: str, tmp_path: Path) -> None:
    (tmp_path / "checked.py").write_text(CHECK)
    admin, flag = str(tmp_path / "admin.sock"), tmp_path / "flag"
    options = ["--admin-bind", f"unix:{admin}", "--readiness-check", "checked:check", "--health-path", "/h"]
    environ = {
        "CHECKED": str(flag),
        "PYTHONPATH": f"{tmp_path}:{Path.cwd()}:{Path(__file__).parent.parent / 'support/apps'}",
    }
    with Running("checked:asgi", *options, *FORMS[form], environ=environ) as server:
        address = server.address()
        until(lambda: b"the check returned False" in get(admin, "/readyz")[2])
        assert get(address, "/h")[0] == 503
        assert get(admin, "/livez")[0] == 200
        assert get(address)[0] == 200  # what the check says is for probes
        flag.touch()
        until(lambda: b"[+] check: the check passed" in get(admin, "/readyz?verbose")[2])
        assert get(admin, "/readyz")[0] == 200


@pytest.mark.parametrize(
    ("options", "status", "text"),
    [
        (["--readiness-check", "plain:missing"], 3, "missing"),
        (["--health-path", "health"], 2, "is not a path that begins with /"),
        (["--health-path", "/a", "--mount", "/a=plain:asgi"], 2, "an application is mounted at /a"),
        (["--health-path", "/a", "--metrics-path", "/a"], 2, "is --metrics-path, too"),
        (["--ready-workers", "3", "--workers", "2"], 2, "is more than --workers, 2"),
        (["--ready-workers", "some"], 2, "is not any, all, or a whole number"),
        (["--admin-bind", "127.0.0.1:8000"], 2, "is an address of the application"),
        (["--admin-bind", "here"], 2, "--admin-bind"),
        (["--metrics-allow-from", "somewhere"], 2, "--metrics-allow-from"),
    ],
)
def test_settings_that_cannot_be_used(options: list[str], status: int, text: str) -> None:
    with Running("plain:asgi", *options, *(["--port", "8000"] if "--admin-bind" in options else [])) as server:
        assert server.end("") == status
    assert text in server.messages.lines[-1]


def test_the_admin_address_in_use(tmp_path: Path) -> None:
    admin: Any = str(tmp_path / "admin.sock")
    with Running("plain:asgi", "--admin-bind", f"unix:{admin}") as one:
        one.address()
        for form in FORMS.values():
            with Running("plain:asgi", "--admin-bind", f"unix:{admin}", *form) as other:
                assert other.end("") == 1
                assert "cannot listen on unix:" in other.messages.lines[-1]
        assert get(admin, "/livez")[0] == 200
