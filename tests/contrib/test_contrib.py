"""Django's and Flask's commands with bridge in them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

import pytest

from tests.support import ROOT
from tests.support.running import Running, get

SETTINGS = """
SECRET_KEY = "x"
DEBUG = True
ROOT_URLCONF = "urls"
ALLOWED_HOSTS = ["*"]
STATIC_URL = "/static/"
DATABASES = {}
USE_TZ = True
INSTALLED_APPS = [%s]
"""
URLS = """
from django.http import HttpResponse
from django.urls import path

urlpatterns = [path("", lambda request: HttpResponse("asgi" if hasattr(request, "scope") else "wsgi"))]
"""
MANAGE = """
import os, sys
os.environ["DJANGO_SETTINGS_MODULE"] = "settings"
from django.core.management import execute_from_command_line
execute_from_command_line(sys.argv)
"""
APPS = '"bridge.contrib.django", "django.contrib.staticfiles", "shop"'


@pytest.fixture
def site(tmp_path: Path) -> Path:
    pytest.importorskip("django", reason="Django is not installed (extra dev)")
    (tmp_path / "settings.py").write_text(SETTINGS % APPS + 'WSGI_APPLICATION = "wsgi.application"\n')
    (tmp_path / "urls.py").write_text(URLS)
    (tmp_path / "manage.py").write_text(MANAGE)
    for kind in ("wsgi", "asgi"):
        (tmp_path / f"{kind}.py").write_text(
            f"from django.core.{kind} import get_{kind}_application\napplication = get_{kind}_application()\n"
        )
    (tmp_path / "shop" / "static").mkdir(parents=True)
    (tmp_path / "shop" / "__init__.py").write_text("")
    (tmp_path / "shop" / "static" / "a.css").write_text("p {}")
    return tmp_path


def address(line: str) -> tuple[str, int]:
    match = re.search(r"http://([\d.]+):(\d+)", line)
    assert match is not None
    return match[1], int(match[2])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["wsgi", "asgi"])
@pytest.mark.parametrize("options", [["--noreload"], []], ids=["alone", "reloader"])
def test_runserver(site: Path, kind: str, options: list[str]) -> None:
    if kind == "asgi":
        with (site / "settings.py").open("a") as file:
            file.write('ASGI_APPLICATION = "asgi.application"\n')
    command = [sys.executable, "manage.py", "runserver", "127.0.0.1:0", *options]
    environ = {"PYTHONPATH": f"{ROOT}{os.pathsep}{site}"}
    with Running(command=command, cwd=site, environ=environ) as server:
        where = address(server.output.wait(r"Starting .*development server at"))
        assert get(where)[2] == kind.encode()
        assert get(where, "/static/a.css")[2] == b"p {}"
        server.output.wait(r'"GET /static/a.css HTTP/1.1" 200')


@pytest.mark.slow
def test_runserver_on_a_port_that_is_taken(site: Path) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as sock:
        where = f"127.0.0.1:{sock.getsockname()[1]}"
        done = subprocess.run(
            [sys.executable, "manage.py", "runserver", "--noreload", where],
            cwd=site, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=60,
            check=False,
        )  # fmt: skip
    assert "That port is already in use." in done.stderr


@pytest.mark.slow
def test_serve(site: Path) -> None:
    command = [sys.executable, "manage.py", "serve", "--port", "0", "--workers", "1"]
    with Running(command=command, cwd=site, environ={"PYTHONPATH": f"{ROOT}{os.pathsep}{site}"}) as server:
        assert get(server.address())[2] == b"wsgi"
        assert server.end() == 0


@pytest.mark.slow
def test_the_check_of_the_place(site: Path) -> None:
    apps = ", ".join(reversed(APPS.split(", ")))
    (site / "settings.py").write_text(SETTINGS % apps)
    done = subprocess.run(
        [sys.executable, "manage.py", "check"], cwd=site, env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "(bridge.E001)" in done.stderr


@pytest.mark.slow
def test_flask_serve(tmp_path: Path) -> None:
    pytest.importorskip("flask", reason="Flask is not installed (extra dev)")
    (tmp_path / "app.py").write_text(
        "from flask import Flask\nfrom bridge.contrib.flask import serve\napp = Flask(__name__)\n"
        "app.cli.add_command(serve)\n@app.get('/')\ndef index(): return 'hi'\n"
    )
    command = [sys.executable, "-m", "flask", "serve", "--port", "0"]
    with Running(command=command, cwd=tmp_path) as server:
        host, port = server.address()
        with urlopen(f"http://{host}:{port}/") as answer:
            assert answer.read() == b"hi"
        assert server.end() == 0
    done = subprocess.run(
        [sys.executable, "-m", "flask", "serve", "--prot", "1"], cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "did you mean --port?" in done.stderr
