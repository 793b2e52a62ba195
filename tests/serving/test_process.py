"""What the settings change for the whole process."""

from __future__ import annotations

import os
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import pytest

from bridge.config import Config
from bridge.config.sources import load
from bridge.errors import ConfigError
from bridge.serving import process
from bridge.serving.embedding import Server
from bridge.serving.process import at_origin, prepare_process, set_title


@pytest.fixture(autouse=True)
def own_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    monkeypatch.setattr(process, "_origin", "")
    monkeypatch.setattr(os, "environ", os.environ.copy())
    before = os.getcwd()
    os.chdir(tmp_path)
    yield tmp_path
    os.chdir(before)


def test_a_relative_directory_counts_from_the_start_of_the_process(own_process: Path) -> None:
    (own_process / "a").mkdir()
    prepare_process(Config())
    assert Path.cwd() == own_process
    for _ in range(2):  # a reload
        prepare_process(Config(chdir="a"))
        assert Path.cwd() == own_process / "a"
        assert at_origin(os.getcwd) == str(own_process)
        assert Path.cwd() == own_process / "a"
    prepare_process(Config())
    assert Path.cwd() == own_process


def test_a_directory_that_does_not_exist(own_process: Path) -> None:
    with pytest.raises(ConfigError, match=r"--chdir .*/nowhere: No such file or directory"):
        prepare_process(Config(chdir="nowhere"))


def test_variables(own_process: Path) -> None:
    (own_process / "one").write_text('GREETING="hello, world"\nHOME=/elsewhere\n', encoding="utf-8")
    home = os.environ["HOME"]
    prepare_process(load(["a:a", "--env", "A=1,2", "--env", "B=x=y", "--env-file", "one"], {}))
    assert [os.environ[name] for name in ("A", "B", "GREETING", "HOME")] == ["1,2", "x=y", "hello, world", home]


@pytest.mark.parametrize("text", ["A", "=1", ""])
def test_a_text_that_is_no_variable(text: str) -> None:
    with pytest.raises(ConfigError, match="is not NAME=VALUE"):
        load(["--env=" + text], {})


def test_a_file_of_variables_that_does_not_exist() -> None:
    with pytest.raises(ConfigError, match="--env-file missing: No such file"):
        prepare_process(Config(env_file=("missing",)))


def test_a_file_of_variables_needs_a_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dotenv", None)
    with pytest.raises(ConfigError, match="python-dotenv"):
        prepare_process(Config(env_file=("missing",)))


def test_the_title(monkeypatch: pytest.MonkeyPatch) -> None:
    titles: list[str] = []
    fake = types.ModuleType("setproctitle")
    fake.setproctitle = titles.append  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "setproctitle", fake)
    set_title(Config(), "master")
    set_title(Config(process_name="shop"), "master")
    assert titles == ["shop: master"]
    monkeypatch.setitem(sys.modules, "setproctitle", None)
    with pytest.raises(ConfigError, match="--process-name: needs the package setproctitle"):
        set_title(Config(process_name="shop"), "master")


def test_a_server_in_a_program_leaves_the_process_alone() -> None:
    with pytest.raises(ConfigError, match="the whole process"):
        Server("a:a", chdir="/")


FIELDS = [
    (["--header", "X-A: 1, 2", "--header", "x-b:"], ((b"x-a", b"1, 2"), (b"x-b", b""))),
    (["--headers=A: b"], ((b"a", b"b"),)),
]


@pytest.mark.parametrize(("argv", "fields"), FIELDS)
def test_fields(argv: list[str], fields: object) -> None:
    assert load(argv, {}).header == fields


@pytest.mark.parametrize(
    "text", ["a", "a b: c", "a: b\x00", "content-length: 1", "Transfer-Encoding: chunked", "é: 1", "a: €", ": a"]
)
def test_a_text_that_is_no_field(text: str) -> None:
    with pytest.raises(ConfigError, match="is not NAME: VALUE"):
        load(["--header", text], {})


def test_fields_and_variables_in_a_file(own_process: Path) -> None:
    text = '[header]\nX-Frame-Options = "DENY"\n[env]\nA = "1,2"\nB = "3"\n'
    (own_process / "bridge.toml").write_text(text, encoding="utf-8")
    config = load([], {})
    assert config.header == ((b"x-frame-options", b"DENY"),)
    assert config.env == (("A", "1,2"), ("B", "3"))
