"""The distribution: what is in it, with and without a compiler, and that two builds give the same bytes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.support import ROOT

pytestmark = pytest.mark.long  # each build takes seconds

MODULE = f"bridge/_speedups{sysconfig.get_config_var('EXT_SUFFIX')}"


def build(source: Path, target: Path, kind: str = "wheel", **environment: str) -> tuple[Path | None, str]:
    """Return the file that was built, None if there is none, and what was printed."""
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(target)],
        cwd=source,
        env={name: value for name, value in os.environ.items() if name != "BRIDGE_BUILD"} | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    found = [*target.glob("*.whl"), *target.glob("*.tar.gz")] if target.exists() else []
    assert bool(found) is (done.returncode == 0), done.stderr
    return (found[0] if found else None), done.stdout + done.stderr


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An unpacked source distribution, as somebody gets it who builds a wheel of it."""
    directory = tmp_path_factory.mktemp("sdist")
    archive, said = build(ROOT, directory / "first", "sdist")
    again, _ = build(ROOT, directory / "second", "sdist")
    assert archive is not None, said
    assert again is not None
    assert archive.read_bytes() == again.read_bytes()
    with tarfile.open(archive) as files:
        files.extractall(directory, filter="data")
    return directory / archive.name.removesuffix(".tar.gz")


def names(wheel: Path | None) -> set[str]:
    assert wheel is not None
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


def test_the_source_distribution_has_what_a_build_and_the_tests_need(source: Path) -> None:
    for name in ("bridge/_speedups.c", "hatch_build.py", "Makefile", "tests/conftest.py", "LICENSE", "README.md"):
        assert (source / name).is_file()
    assert not [*source.rglob("*.so")]
    assert not [*source.rglob("__pycache__")]


def test_a_pure_wheel(source: Path, tmp_path: Path) -> None:
    wheel, _ = build(source, tmp_path / "one", BRIDGE_BUILD="pure")
    again, _ = build(ROOT, tmp_path / "two", BRIDGE_BUILD="pure")
    assert wheel is not None
    assert again is not None
    assert wheel.name.endswith("-py3-none-any.whl")
    assert wheel.read_bytes() == again.read_bytes()
    assert {name for name in names(wheel) if "_speedups" in name} == {"bridge/_speedups.pyi"}
    assert all(name.startswith("bridge/") for name in names(wheel))


@pytest.mark.skipif(not shutil.which("cc") and not shutil.which("gcc"), reason="there is no compiler")
def test_a_compiled_wheel(source: Path, tmp_path: Path) -> None:
    wheel, said = build(source, tmp_path / "one", BRIDGE_BUILD="compiled")
    again, _ = build(ROOT, tmp_path / "two")
    assert wheel is not None
    assert again is not None
    assert "none-any" not in wheel.name
    assert wheel.read_bytes() == again.read_bytes()
    assert MODULE in names(wheel)
    assert "bridge/_speedups.c" not in names(wheel)
    assert "warning" not in said


def test_without_a_compiler_there_is_one_line(source: Path, tmp_path: Path) -> None:
    wheel, said = build(source, tmp_path / "one", CC="/nonexistent/cc")
    assert wheel is not None
    assert wheel.name.endswith("-py3-none-any.whl")
    (line,) = [line for line in said.splitlines() if line.startswith("bridge: ")]
    assert line.startswith("bridge: built without its compiled part: ")
    wheel, said = build(source, tmp_path / "two", CC="/nonexistent/cc", BRIDGE_BUILD="compiled")
    assert wheel is None


def test_another_mode_is_refused(source: Path, tmp_path: Path) -> None:
    wheel, said = build(source, tmp_path, BRIDGE_BUILD="odd")
    assert wheel is None
    assert "BRIDGE_BUILD=odd: expected one of pure, compiled, or nothing" in said
