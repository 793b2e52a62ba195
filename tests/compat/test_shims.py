"""``bridge install-shims``: commands with other servers' names."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from bridge.compat.shims import install_shims
from bridge.dialects import NAMES
from bridge.errors import ConfigError
from tests.support import ROOT
from tests.support.running import Running, get

APPLICATION = "def app(environ, start_response):\n    start_response('200 OK', [])\n    return [b'hi']\n"


def test_they_are_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert install_shims([str(tmp_path / "bin")]) == 0
    assert f"export PATH={tmp_path}/bin:$PATH\n" in capsys.readouterr().out
    assert {path.name for path in (tmp_path / "bin").iterdir()} == set(NAMES)
    for path in (tmp_path / "bin").iterdir():
        assert os.access(path, os.X_OK)
    assert install_shims([str(tmp_path / "bin")]) == 0  # its own ones are written anew


@pytest.mark.parametrize("content", [b"", b"#!/bin/sh\necho mine\n", b"\xff\n\xff\n"])
def test_what_is_not_ours_stays(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "uvicorn").write_bytes(content)
    with pytest.raises(ConfigError, match=r"uvicorn: this file is not bridge's; choose another directory"):
        install_shims([str(tmp_path)])
    assert [path.name for path in tmp_path.iterdir()] == ["uvicorn"]
    assert (tmp_path / "uvicorn").read_bytes() == content


def test_what_is_no_file_is_not_ours(tmp_path: Path) -> None:
    (tmp_path / "uvicorn").mkdir()
    with pytest.raises(ConfigError, match="uvicorn: this file is not bridge's"):
        install_shims([str(tmp_path)])
    (tmp_path / "uvicorn").rmdir()
    (tmp_path / "uwsgi").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="uwsgi: this file is not bridge's"):
        install_shims([str(tmp_path)])


def test_a_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "bin").write_text("")
    with pytest.raises(ConfigError, match=r"install-shims: .*bin: File exists"):
        install_shims([str(tmp_path / "bin")])


@pytest.mark.parametrize(("words", "status"), [([], 2), (["a", "b"], 2), (["--help"], 0)])
def test_usage(words: list[str], status: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert install_shims(words) == status
    assert "usage: bridge install-shims DIR" in capsys.readouterr().out


@pytest.mark.slow
def test_a_platform_starts_gunicorn_by_name(tmp_path: Path) -> None:
    install_shims([str(tmp_path / "bin")])
    (tmp_path / "app.py").write_text(APPLICATION)
    environ = {"PATH": f"{tmp_path}/bin:/usr/bin:/bin", "PYTHONPATH": str(ROOT)}
    command = ["/usr/bin/env", "gunicorn", "-b", "127.0.0.1:0", "-w", "1", "app:app"]
    with Running(command=command, cwd=tmp_path, environ=environ) as server:
        assert get(server.address())[2] == b"hi"
        assert server.end() == 0
    done = subprocess.run(
        [tmp_path / "bin" / "uvicorn", "--foo", "a:a"], env=environ, capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "No such option: --foo" in done.stderr
