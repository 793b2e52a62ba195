"""Mistakes that newcomers make: each is answered by its cure."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bridge import cli
from bridge.apps.loading import TargetError, load_target
from bridge.apps.mistakes import server_started_by


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    path, modules = sys.path[:], set(sys.modules)
    yield tmp_path
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        del sys.modules[name]


STARTED = [
    ("from flask import Flask\napp = Flask(__name__)\napp.run()", "line 3, app.run()"),
    ("import flask\nweb = flask.Flask('x')\nweb.run(port=1)", "line 3, web.run()"),
    ("import uvicorn\nuvicorn.run('a:b')", "line 2, uvicorn.run()"),
    ("import waitress\nwaitress.serve(app)", "line 2, waitress.serve()"),
    ("app = Flask('x')\nif __name__ == '__main__':\n    app.run()", ""),
    ("import asyncio\nasyncio.run(f())", ""),
    ("import subprocess\nsubprocess.run(['ls'])", ""),
    ("cli = Group()\ncli.run()", ""),
    ("def f():\n    app.run()", ""),
    ("x = (", ""),
]


@pytest.mark.parametrize(("source", "found"), STARTED)
def test_a_server_that_the_import_would_start(place: Path, source: str, found: str) -> None:
    (place / "a.py").write_text(source)
    assert server_started_by(str(place / "a.py")) == found
    if found:
        with pytest.raises(TargetError, match=r"starts another server when the module is imported; put it under: if"):
            load_target("a:app", factory=False, app_dir=None)


def test_a_relative_import_outside_its_package(place: Path) -> None:
    (place / "shop").mkdir()
    (place / "shop" / "main.py").write_text("from .models import x\napp = 1")
    with pytest.raises(TargetError, match=r"name it with the package, from the directory above"):
        load_target("shop/main.py:app", factory=False, app_dir=None)


@pytest.mark.parametrize("name", ["bridge.py", "bridge/__init__.py"])
def test_a_module_of_the_users_that_is_called_bridge(place: Path, name: str) -> None:
    (place / name).parent.mkdir(exist_ok=True)
    (place / name).write_text("app = 1")
    with pytest.raises(TargetError, match=r"the name 'bridge' is taken by the server; rename the module"):
        load_target("bridge:app", factory=False, app_dir=None)
    (place / "other.py").write_text("from bridge import database")
    with pytest.raises(TargetError, match=r"has a module of its own that is called bridge.*rename it"):
        load_target("other:app", factory=False, app_dir=None)


def test_django_without_its_settings(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("django", reason="Django is not installed (extra dev)")
    monkeypatch.delenv("DJANGO_SETTINGS_MODULE", raising=False)
    (place / "a.py").write_text("from django.core.exceptions import ImproperlyConfigured\n"
                                "raise ImproperlyConfigured('define DJANGO_SETTINGS_MODULE')")  # fmt: skip
    with pytest.raises(TargetError, match=r"--env DJANGO_SETTINGS_MODULE=project.settings"):
        load_target("a:app", factory=False, app_dir=None)


def test_an_object_that_is_no_application(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "a.py").write_text("class Database: pass\napp = Database()")
    assert cli.main(["run", "a:app", "--check-config"]) == 3
    assert "TARGET names the object that the framework has made" in capsys.readouterr().err


OTHERS = [
    (["a:a", "-k", "gthread"], "`bridge gunicorn ...` takes it"),
    (["a:a", "--timeout", "30"], "looks like a command line of gunicorn: `bridge gunicorn ...` takes it"),
    (["a:a", "--http", "h11"], "`bridge uvicorn ...` takes it"),
    (["a:a", "--prot", "1"], "did you mean --port?"),
]


@pytest.mark.parametrize(("words", "message"), OTHERS)
def test_options_of_another_server(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", *words]) == 2
    assert capsys.readouterr().err.strip().endswith(message)


def test_a_misspelt_variable(capsys: pytest.CaptureFixture[str]) -> None:
    environ = {
        "BRIDGE_WORKER": "0",
        "BRIDGE_SPEEDUPS": "0",
        "BRIDGE_PROT": "1",
        "BRIDGE_SERVICE_HOST": "x",
        "BRIDGE_PORT_80_TCP": "y",
        "BRIDGE_QUITE_OTHER": "z",
    }
    cli._name_misspelt(environ)
    assert capsys.readouterr().err == "bridge: BRIDGE_PROT: there is no such variable; did you mean BRIDGE_PORT?\n"
