"""Files of settings that lie: programs that raise, leave or print, binary files, directories, values of any type."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from bridge import cli
from bridge.dialects import dialect
from bridge.dialects.command import config_of
from bridge.dialects.gunicornfile import checked
from bridge.dialects.table import Option, Takes, Translation, Usage
from bridge.errors import ConfigError

pytestmark = pytest.mark.usefixtures("place")


COMMANDS = [
    ("gunicorn", "-c", "lying.py"),
    ("gunicorn", "-c", "python:lying"),
    ("hypercorn", "-c", "file:lying.py"),
    ("hypercorn", "-c", "python:lying"),
]
PROGRAMS = [
    ("raise ValueError('no\\nand no')", "ValueError: no and no"),
    ("raise BaseException('x' * 1000)", "BaseException: xxx"),
    ("raise type('E', (Exception,), {'__str__': lambda self: 1 / 0})", "E"),
    ("import sys\nsys.exit('gone')", "SystemExit: gone"),
    ("def f(): f()\nf()", "RecursionError: "),
    ("import asyncio\nraise asyncio.CancelledError", "CancelledError"),
    ("\0", "null bytes"),
    ("x = '\xff'", "SyntaxError: "),
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
@pytest.mark.parametrize(("text", "message"), PROGRAMS, ids=[message for _, message in PROGRAMS])
def test_programs_that_raise(
    place: Path, command: tuple[str, ...], text: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "lying.py").write_bytes(text.encode("latin-1"))
    assert cli.main([*command, "a:a"]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1, err
    assert message in err
    assert len(err) < 500


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_programs_that_print_and_change_the_directory(place: Path, command: tuple[str, ...]) -> None:
    (place / "sub").mkdir()
    (place / "lying.py").write_text("import os\nprint('hello')\nos.chdir('sub')\nworkers = 2\n")
    name, *words = command
    for _ in range(2):  # the second time stands for a reload
        assert dialect(name).translate([*words, "a:a"], {}).layer["workers"].text == "2"
        assert os.getcwd() == str(place)
        sys.modules.pop("lying", None)


@pytest.mark.parametrize(
    "words",
    [("gunicorn", "-c", "{}"), ("hypercorn", "-c", "{}"), ("hypercorn", "-c", "file:{}"), ("uwsgi", "--ini", "{}")],
    ids=" ".join,
)
@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("folder", "'folder': Is a directory"),
        ("/dev/zero", "more than 16 MiB"),
        ("binary.ini", "binary.ini"),
        ("a\0b", "null"),
        ("[" * 5000, "name too long"),
    ],
)
def test_paths_that_are_no_files_of_settings(
    place: Path, words: tuple[str, ...], path: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "folder").mkdir()
    (place / "binary.ini").write_bytes(bytes(range(256)) * 4000)
    name, *more = [word.format(path) for word in words]
    assert cli.main([name, *more, "a:a"] if name != "uwsgi" else [name, *more]) == 2
    assert message in capsys.readouterr().err


def test_toml_that_is_too_deep(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "h.toml").write_text("a = " + "[" * 100_000)
    assert cli.main(["hypercorn", "-c", "h.toml", "a:a"]) == 2
    assert "h.toml: " in capsys.readouterr().err


class Unprintable:
    def __repr__(self) -> str:
        raise RuntimeError("no")


VALUES: tuple[object, ...] = (
    None, True, 0, 5, -1, 2.5, 10**5000, float("nan"), "", "zzz", "9" * 5000, "a\nb\0", "\udcff", b"x", [], [5],
    ["a", "b"], (None,), {}, {"a": 5}, {"root": 5}, {5}, object(), Unprintable(), lambda: None, len, int, os, "os.path",
)  # fmt: skip


@pytest.mark.parametrize("name", ["gunicorn", "uvicorn", "hypercorn", "waitress-serve"])  # of files and keywords
def test_a_value_of_any_type_is_taken_or_refused(name: str) -> None:
    spoken = dialect(name)
    for row in spoken.rows:
        for value in VALUES:
            option = Option(
                row, [value] if row.takes is Takes.LIST and not isinstance(value, list) else value, row.name
            )
            t = Translation()
            t.set("target", "a:a")
            try:
                t.take(checked(option) if name == "gunicorn" else option)
                spoken.finish(t)
                config_of(t, {})
            except (Usage, ConfigError) as exc:
                assert len(str(exc)) < 1000, (row.name, str(exc))
