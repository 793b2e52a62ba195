"""The units that are shipped, run as they are by something that plays systemd."""

from __future__ import annotations

import os
import signal
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.running import REPOSITORY, Client, Lines, get
from tests.support.systemd import Service, read_unit

pytestmark = pytest.mark.slow

UNITS = REPOSITORY / "examples" / "systemd"
APPLICATION = """\
import os, time
def application(environ, start_response):
    if environ["PATH_INFO"] == "/sleep":
        time.sleep(0.5)
    text = "{} {} {}".format(os.getpid(), environ["REMOTE_ADDR"], {!r}).encode()
    start_response("200 OK", [("Content-Length", str(len(text)))])
    return [text]
"""


class Site:
    """What the units expect on a machine, below a directory."""

    def __init__(self, root: Path, units: Path = UNITS) -> None:
        self.root = root
        self.module = root / "srv/mysite/mysite/wsgi.py"
        self.path = str(root / "run/mysite.sock")
        for directory in ("srv/mysite/.venv/bin", "srv/mysite/mysite", "run"):
            (root / directory).mkdir(parents=True)
        command = root / "srv/mysite/.venv/bin/bridge"
        command.write_text(f'#!/bin/sh\nexec {sys.executable} -m bridge "$@"\n')
        command.chmod(0o755)
        self.write("one")
        self.notes: list[str] = []
        read, write = os.pipe()
        self.messages = Lines(os.fdopen(read, "rb"))
        environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(REPOSITORY), "PYTHONDONTWRITEBYTECODE": "1"}
        self.service = Service(units / "mysite.service", root, self.notes.append, environ, write)
        os.close(write)

    def write(self, word: str) -> None:
        self.module.write_text(APPLICATION.replace("{!r}", repr(word), 1) if word else "1 / 0\n")


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    found = Site(tmp_path)
    yield found
    if "stopped" not in " ".join(found.notes):
        found.service.stop()
    found.messages.join()


def ask(site: Site, path: str = "/", *lines: str) -> list[str]:
    status, _, content = get(site.path, path, *lines)
    assert status == 200
    return content.decode().split(" ")


def test_the_shipped_units(site: Site) -> None:
    with Client(site.path) as early:  # before the service is ready, and before it was started if need be
        early.send()
        assert early.read()[0] == 200
    service = site.service
    service.wait(lambda: service.ready)
    assert service.status == "4 workers"
    assert stat.S_IMODE(os.stat(site.path).st_mode) == 0o660
    assert ask(site, "/", "X-Forwarded-For: 192.0.2.7")[1:] == ["192.0.2.7", "one"]
    assert len({ask(site)[0] for _ in range(100)}) > 1
    site.write("two")
    service.reload()
    assert ask(site)[2] == "two"
    site.write("")
    service.reload()  # which fails: the old ones stay, and systemd is told that it is over
    assert ask(site)[2] == "two"
    site.messages.wait("Reload failed, the old workers go on")
    site.write("three")
    old = service.pid
    os.kill(old, signal.SIGUSR2)
    service.wait(lambda: service.pid != old)
    assert service.process.wait(20) == 0  # until then its workers may still take a connection
    assert ask(site)[2] == "three"
    with Client(site.path) as client:
        client.send("/sleep")
        ask(site)
        status = service.stop()
        assert client.read()[0] == 200
    assert status == 0
    assert not any(note.startswith("killed") for note in site.notes)
    assert "STOPPING=1" in site.notes


def test_the_watchdog_of_the_shipped_unit(tmp_path: Path) -> None:
    """With a shorter time: a master that stands still is killed and started again, and no connection is refused."""
    units = tmp_path / "units"
    units.mkdir()
    for name in ("mysite.service", "mysite.socket"):
        text = (UNITS / name).read_text()
        (units / name).write_text(text.replace("WatchdogSec=20", "WatchdogSec=2"))
    assert read_unit(UNITS / "mysite.service")["Service"]["WatchdogSec"] == ["20"]
    (tmp_path / "root").mkdir()
    site = Site(tmp_path / "root", units)
    service = site.service
    try:
        service.wait(lambda: service.beats >= 3)
        first = service.pid
        os.kill(first, signal.SIGSTOP)
        service.wait(lambda: service.starts == 2 and service.ready)
        assert "the watchdog was not fed" in site.notes
        assert ask(site)[2] == "one"
        assert service.pid != first
        beats = service.beats
        service.wait(lambda: service.beats > beats + 1)
    finally:
        status = service.stop()
        site.messages.join()
    assert status == 0
