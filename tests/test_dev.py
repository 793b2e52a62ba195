"""``bridge dev``: what it finds, and what it makes of its arguments."""

from __future__ import annotations

from pathlib import Path

import pytest

from bridge.apps.loading import TargetError
from bridge.dev import development_words, find
from tests.support.running import Running, get

FLASK = "from flask import Flask\napp = Flask(__name__)\n"


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(place: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(text)


FOUND: list[tuple[dict[str, str], dict[str, str], str]] = [
    ({"app.py": FLASK}, {}, "app:app"),
    ({"main.py": "from fastapi import FastAPI\napi = FastAPI()"}, {}, "main:api"),
    ({"main.py": "import fastapi\nmine: object = fastapi.FastAPI()"}, {}, "main:mine"),
    ({"app.py": "def create_app(): ..."}, {}, "app:create_app()"),
    ({"wsgi.py": "def application(environ, start_response): ..."}, {}, "wsgi:application"),
    ({"app/__init__.py": "", "app/main.py": FLASK}, {}, "app.main:app"),
    ({"src/main.py": FLASK}, {}, "src/main.py:app"),
    ({"main.py": FLASK, "app.py": FLASK}, {}, "main:app"),
    ({"hello.py": FLASK, "test_hello.py": FLASK, "util.py": "x = 1", "setup.py": FLASK}, {}, "hello:app"),
    ({"main.py": FLASK, "app.py": "x = ("}, {}, "main:app"),
    ({"hello.py": FLASK, "bad.py": "x = (", "deep.py": "-" * 100_000 + "1", "a-b.py": FLASK}, {}, "hello:app"),
    ({"hello.py": FLASK, "pyproject.toml": "tool = 5", "bridge.toml": "a = " + "[" * 9999}, {}, "hello:app"),
    ({"pyproject.toml": '[tool.bridge]\ntarget = "a:b"', "app.py": FLASK}, {}, "a:b"),
    ({"bridge.toml": 'target = "a:b"'}, {}, "a:b"),
    ({"pyproject.toml": '[tool.fastapi]\nentrypoint = "a:b"'}, {}, "a:b"),
    ({"hello.py": FLASK}, {"FLASK_APP": "hello"}, "hello:app"),
    ({"shop/__init__.py": "def create_app(): ..."}, {"FLASK_APP": "shop"}, "shop:create_app()"),
    ({}, {"FLASK_APP": "hello:web"}, "hello:web"),
    ({"app.py": FLASK}, {"BRIDGE_TARGET": "a:b"}, "a:b"),
    (
        {"manage.py": "os.environ.setdefault('DJANGO_SETTINGS_MODULE', 'site1.settings')", "site1/wsgi.py": "",
         "site1/asgi.py": ""},
        {},
        "site1.wsgi:application",
    ),
    (
        {"manage.py": 'os.environ.setdefault("DJANGO_SETTINGS_MODULE", "site1.settings.dev")', "site1/wsgi.py": "",
         "site1/asgi.py": "application = ProtocolTypeRouter({})"},
        {},
        "site1.asgi:application",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("files", "environ", "target"), FOUND)
def test_applications_are_found(place: Path, files: dict[str, str], environ: dict[str, str], target: str) -> None:
    write(place, files)
    assert find(environ).target == target


def test_nothing_is_found() -> None:
    with pytest.raises(TargetError, match=r"no application was found.*bridge dev module:app"):
        find({})


def test_two_are_found(place: Path) -> None:
    write(place, {"main.py": "a = Flask('a')\nb = Flask('b')"})
    with pytest.raises(TargetError, match=r"more than one application: main:a and main:b; name one"):
        find({})


def test_two_files_of_unusual_names(place: Path) -> None:
    write(place, {"one.py": FLASK, "two.py": FLASK})
    with pytest.raises(TargetError, match=r"more than one application: one:app and two:app; name one"):
        find({})


@pytest.mark.parametrize(
    ("files", "environ"),
    [({"main.py": "x = 1\ny = (", "app.py": FLASK}, {}), ({"main.py": "x = 1\ny = (", "one.py": FLASK}, {}),
     ({"hello.py": "x = 1\ny = (", "util.py": ""}, {}), ({"hello.py": "x = 1\ny = ("}, {"FLASK_APP": "hello"})],
)  # fmt: skip
def test_the_application_s_file_is_no_python(place: Path, files: dict[str, str], environ: dict[str, str]) -> None:
    write(place, files)
    with pytest.raises(TargetError, match=r"TARGET: (main|hello).py in line 2: SyntaxError: .*; mend it"):
        find(environ)


def test_the_arguments(place: Path) -> None:
    write(place, {"app.py": FLASK})
    words, found, authority = development_words(["--port", "0"], {})
    assert authority == ""
    assert words[:4] == ["--port", "0", "app:app", "--reload"]
    assert found is not None
    assert found.how == "app.py: app"
    given = ["a:b", "--no-debug", "--no-reload", "--reload-include", "x"]
    assert development_words(given, {}) == (given, None, "")
    assert development_words([*given[1:], "--", "a:b"], {}).words == [*given[1:], "--", "a:b"]


FRAMEWORKS = {
    "flask": (
        "from flask import Flask\napp = Flask(__name__)\n@app.get('/bad')\ndef bad(): raise ValueError('mine')\n"
    ),
    "starlette": (
        "from starlette.applications import Starlette\nfrom starlette.routing import Route\n"
        "def bad(request): raise ValueError('mine')\napp = Starlette(routes=[Route('/bad', bad)])\n"
    ),
    "fastapi": (
        "from fastapi import FastAPI\napp = FastAPI()\n@app.get('/bad')\ndef bad(): raise ValueError('mine')\n"
    ),
    "django": (
        "import django\nfrom django.conf import settings\nfrom django.core.handlers.wsgi import WSGIHandler\n"
        "from django.urls import path\n"
        "settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=['*'], SECRET_KEY='x')\ndjango.setup()\n"
        "def bad(request): raise ValueError('mine')\nurlpatterns = [path('bad', bad)]\napp = WSGIHandler()\n"
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FRAMEWORKS)
def test_exceptions_of_frameworks_are_shown(place: Path, name: str) -> None:
    pytest.importorskip(name, reason=f"{name} is not installed (extra dev)")
    write(place, {"site1.py": FRAMEWORKS[name]})
    with Running("site1:app", "--debug", cwd=place) as server:
        status, _, page = get_local(server.address())
        assert status == 500
        assert b"ValueError" in page
        assert b"mine" in page


def get_local(address: tuple[str, int]) -> tuple[int, dict[str, str], bytes]:
    """Ask as a browser on this machine does; the page may come in chunks."""
    from http.client import HTTPConnection

    connection = HTTPConnection(*address, timeout=60)
    connection.request("GET", "/bad", headers={"Host": f"localhost:{address[1]}"})
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, dict(answer.headers), content


@pytest.mark.slow
def test_it_serves_what_it_has_found(place: Path) -> None:
    write(place, {"app.py": "def app(environ, start_response):\n"
                            "    start_response('200 OK', [('Content-Length', '2')])\n"
                            "    return [b'hi']\n"})  # fmt: skip
    import sys

    command = [sys.executable, "-m", "bridge", "dev", "--port", "0", "--no-reload"]
    with Running(command=command, cwd=place) as server:
        assert get(server.address())[2] == b"hi"
        assert "bridge: app:app, found in app.py: app" in server.messages.text
        assert server.end() == 0
