"""``litestar run`` with the plugin."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import ROOT
from tests.support.running import Running, get

pytest.importorskip("litestar", reason="Litestar is not installed (extra dev)")

pytestmark = pytest.mark.long  # its import takes a second, in every process

APPLICATION = """
from contextlib import contextmanager
from pathlib import Path

from litestar import Litestar, get
from litestar.plugins import CLIPlugin

from bridge.contrib.litestar import BridgePlugin


class Around(CLIPlugin):
    @contextmanager
    def server_lifespan(self, app):
        print("around: begin", flush=True)
        yield
        print("around: end", flush=True)


@get("/", sync_to_thread=False)
def index() -> str:
    return "hi"


def create_app() -> Litestar:
    return Litestar([index], plugins=[BridgePlugin(), *AROUND])


AROUND = []
app = create_app()
"""
COMMAND = [sys.executable, "-m", "litestar"]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "app.py").write_text(APPLICATION)
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ["run"],
        pytest.param(["--app", "app:create_app", "run", "--wc", "2", "--threads", "2"], marks=pytest.mark.wide),
        pytest.param(["run", "--reload"], marks=pytest.mark.long),
    ],
    ids=" ".join,
)
def test_run(place: Path, words: list[str]) -> None:
    if "--reload" in words:
        pytest.importorskip("watchfiles", reason="watchfiles is not installed (extra reload)")
    command = [*COMMAND, *words, "--port", "0"]
    with Running(command=command, cwd=place, environ={"PYTHONPATH": str(ROOT)}) as server:
        assert get(server.address())[2] == b"hi"
        assert server.end() == 0


@pytest.mark.slow
@pytest.mark.parametrize("number", ["SIGTERM", pytest.param("SIGINT", marks=pytest.mark.wide)])
def test_plugins_around_the_server(place: Path, number: str) -> None:
    (place / "app.py").write_text(APPLICATION.replace("AROUND = []", "AROUND = [Around()]"))
    command = [*COMMAND, "run", "--port", "0"]
    with Running(command=command, cwd=place, environ={"PYTHONPATH": str(ROOT)}) as server:
        server.output.wait("around: begin")
        assert get(server.address())[2] == b"hi"
        assert server.end(number) == 0
        server.output.wait("around: end")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "message"),
    [(["--thraeds", "2"], "did you mean --threads?"), (["--create-self-signed-cert"], "bridge dev --https")],
)
def test_bad_words(place: Path, words: list[str], message: str) -> None:
    done = subprocess.run(
        [*COMMAND, "run", *words], cwd=place, env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode in {1, 2}
    assert message in done.stderr


@pytest.mark.slow
@pytest.mark.wide
def test_help(place: Path) -> None:
    done = subprocess.run(
        [*COMMAND, "run", "--help"], cwd=place, env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert "with bridge" in done.stdout
    assert "--reload-dir" in done.stdout
