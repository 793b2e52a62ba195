"""What is published serves the README's examples, from an empty environment, on each Python that is installed.

Four ways: the source with a compiler and without one, the wheel for this platform, and the wheel without compiled part.
Everything else comes from the package index; without it nothing is tested here.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support import ROOT
from tests.support.running import Running, get
from tests.test_build import build
from tests.test_docs import blocks
from tests.test_docs_commands import SHELL

pytestmark = [pytest.mark.long, pytest.mark.time_limit(1200)]

PYTHONS = ("3.11", "3.12", "3.13", "3.14", "3.15")
COMPILER = shutil.which("cc") or shutil.which("gcc")
EXAMPLES = [text for name, text in blocks("README.md") if name == "hello.py"]
FRAMEWORKS = ("flask", "fastapi", "tornado")


def interpreter(version: str) -> str | None:
    """Return a Python of this version: this one, one on the PATH, or one of pyenv's."""
    candidates = [shutil.which(f"python{version}")]
    if sys.version_info[:2] == tuple(map(int, version.split("."))):
        candidates.insert(0, sys.executable)
    if shutil.which("pyenv"):
        for name in run("pyenv", "versions", "--bare").split():
            if name.startswith(f"{version}."):
                candidates.append(f"{run('pyenv', 'prefix', name).strip()}/bin/python")
    for found in filter(None, candidates):
        if not subprocess.run([found, "-c", "import ssl, venv"], capture_output=True, check=False).returncode:
            return found
    return None


def run(*command: str | Path, **environment: str) -> str:
    """Run a command that has to succeed; return what it printed."""
    names = {name: value for name, value in os.environ.items() if name not in ("BRIDGE_BUILD", "PYTHONPATH")}
    done = subprocess.run(
        [*map(str, command)], env=names | environment, cwd="/", capture_output=True, text=True, timeout=900, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@dataclass
class Published:
    """The files that are published, but for the platform's wheel, which each Python has its own of."""

    source: Path
    pure: Path


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Published:
    folder = tmp_path_factory.mktemp("published")
    answer = subprocess.run(
        [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--dest", str(folder), "hatchling"],
        capture_output=True,
        text=True,
        check=False,
    )
    if answer.returncode:
        pytest.skip(f"the package index is not reached: {answer.stderr.strip().splitlines()[-1]}")
    source, said = build(ROOT, folder / "source", "sdist")
    assert source is not None, said
    pure, said = build(ROOT, folder / "pure", BRIDGE_BUILD="pure")
    assert pure is not None, said
    return Published(source, pure)


@dataclass
class Environment:
    """An environment that has only what was asked for."""

    folder: Path

    @property
    def python(self) -> Path:
        return self.folder / "bin/python"

    @property
    def command(self) -> Path:
        return self.folder / "bin/bridge"

    def install(self, *what: str | Path, **environment: str) -> str:
        return run(self.python, "-m", "pip", "install", "--disable-pip-version-check", *what, **environment)


@pytest.fixture(params=PYTHONS)
def environment(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Environment]:
    python = interpreter(request.param)
    if python is None:
        pytest.skip("this Python is not installed")
    run(python, "-m", "venv", tmp_path / "venv")
    yield Environment(tmp_path / "venv")
    shutil.rmtree(tmp_path / "venv", ignore_errors=True)


def serves_the_examples(environment: Environment, tmp_path: Path) -> None:
    """Install the frameworks, and ask each example of the README once."""
    environment.install(*FRAMEWORKS)
    assert len(EXAMPLES) >= len(FRAMEWORKS)
    for number, text in enumerate(EXAMPLES):
        folder = tmp_path / f"example{number}"
        folder.mkdir()
        (folder / "hello.py").write_text(text)
        command = [str(environment.command), "run", "hello:app", "--port", "0"]
        with Running(command=command, cwd=folder, environ={"PYTHONPATH": ""}) as server:
            status, _, content = get(server.address(), "/")
            assert (status, b"ello" in content) == (200, True), content
            assert server.end() == 0
            assert "Traceback" not in "\n".join(server.messages.lines)


def speedups(environment: Environment) -> str:
    """Return how the answer of ``bridge --version`` ends."""
    said = run(environment.command, "--version")
    assert said == run(environment.python, "-m", "bridge", "--version")
    match = re.fullmatch(r"bridge \S+ .*speedups: (\w+)\n", said, re.DOTALL)
    assert match is not None, said
    return match[1]


@pytest.mark.skipif(COMPILER is None, reason="there is no compiler")
def test_the_source_with_a_compiler(environment: Environment, published: Published, tmp_path: Path) -> None:
    environment.install(published.source)
    assert speedups(environment) == "compiled"
    serves_the_examples(environment, tmp_path)


def test_the_source_without_a_compiler(environment: Environment, published: Published, tmp_path: Path) -> None:
    path = str(environment.folder / "bin")  # no cc is on it
    said = environment.install("--verbose", published.source, PATH=path, CC="")
    lines = [line.strip() for line in said.splitlines() if "bridge: built without" in line]
    assert len(lines) == 1, said
    assert speedups(environment) == "python"
    serves_the_examples(environment, tmp_path)


@pytest.mark.skipif(COMPILER is None, reason="there is no compiler")
def test_the_wheel_for_this_platform(environment: Environment, published: Published, tmp_path: Path) -> None:
    wheels = tmp_path / "wheels"
    run(environment.python, "-m", "pip", "wheel", "--no-deps", "-w", wheels, published.source, BRIDGE_BUILD="compiled")
    (wheel,) = wheels.iterdir()
    assert f"-cp{''.join(environment_version(environment))}-" in wheel.name
    environment.install(wheel, PATH=str(environment.folder / "bin"))
    assert speedups(environment) == "compiled"
    serves_the_examples(environment, tmp_path)


def environment_version(environment: Environment) -> list[str]:
    """Return the environment's version of Python, as its two numbers."""
    return run(environment.python, "-c", "import sys; print(*sys.version_info[:2])").split()


def test_the_wheel_without_compiled_part(environment: Environment, published: Published, tmp_path: Path) -> None:
    assert published.pure.name.endswith("-py3-none-any.whl")
    environment.install(published.pure)
    assert speedups(environment) == "python"
    serves_the_examples(environment, tmp_path)


def test_the_lines_of_the_start_page(published: Published, tmp_path: Path) -> None:
    with tarfile.open(published.source) as files:
        files.extractall(tmp_path, filter="data")
    checkout = tmp_path / published.source.name.removesuffix(".tar.gz")
    lines = SHELL.findall((checkout / "docs/start.md").read_text(encoding="utf-8"))[0]
    assert "pip install" in lines
    run("sh", "-euxc", f"cd {checkout}\n{lines}")
    assert speedups(Environment(checkout / ".venv")) == ("compiled" if COMPILER else "python")
