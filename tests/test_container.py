"""examples/docker: the image is built and run without Docker, as an ordinary user, over a root that is read-only."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import ROOT
from tests.support.container import instructions
from tests.test_build import build

DOCKER = ROOT / "examples/docker"


def test_what_a_careful_image_has() -> None:
    found = dict(instructions((DOCKER / "Dockerfile").read_text(encoding="utf-8")))
    assert found["USER"] == "10001:10001"  # a number: Kubernetes' runAsNonRoot cannot judge a name
    assert found["STOPSIGNAL"] == "SIGTERM"
    assert found["HEALTHCHECK"].endswith('CMD ["bridge", "status"]')
    assert json.loads(found["ENTRYPOINT"]) == ["bridge", "run"]


def test_continued_lines_are_one_instruction() -> None:
    assert instructions("# a\nFROM x AS y\nENV A=1 \\\n    B=2\n") == [("FROM", "x AS y"), ("ENV", "A=1      B=2")]


@pytest.mark.long
@pytest.mark.time_limit(600)
def test_the_image_is_built_and_run(tmp_path: Path) -> None:
    if os.geteuid() or not shutil.which("unshare"):
        pytest.skip("needs root and unshare")
    layers = "lowerdir=/,upperdir=u/u,workdir=u/w"
    mounts = f"mkdir u r && mount -t tmpfs t u && mkdir u/u u/w && mount -t overlay o -o {layers} r"
    tried = subprocess.run(["unshare", "--mount", "sh", "-c", mounts], cwd=tmp_path, capture_output=True, check=False)
    if tried.returncode:
        pytest.skip(f"no layers here: {tried.stderr.decode()}")
    wheel, said = build(ROOT, tmp_path / "dist", BRIDGE_BUILD="pure")
    assert wheel is not None, said
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = str(listener.getsockname()[1])
    done = subprocess.run(
        ["unshare", "--mount", sys.executable, "-m", "tests.support.container", str(DOCKER), port, str(wheel)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    if "No matching distribution" in done.stderr or "NewConnectionError" in done.stderr:
        pytest.skip("the package index is not reached")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["health"] == 0, found["status"]
    assert found["content"] == "hello from a container\n"
    assert found["owner"] == 10001
    assert "Read-only file system" in found["write"]
    assert found["end"] == 0
    assert found["unhealthy"] == 1
