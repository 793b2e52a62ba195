"""Every command on the pages for users of other servers works as it stands there, but for the port."""

from __future__ import annotations

import re
import shlex
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest

from bridge import cli
from tests.support import ROOT
from tests.support.running import Running

PAGES = sorted((ROOT / "docs").glob("from-*.md"))
APPLICATIONS = """
def wsgi(environ, start_response):
    start_response("200 OK", [("Content-Length", "4")])
    return [b"wsgi"]

async def asgi(scope, receive, send):
    if scope["type"] != "http":
        raise NotImplementedError
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
    await send({"type": "http.response.body", "body": b"asgi"})

class Delegate:
    def start_request(self, server_connection, request_connection):
        from bridge.core.httputil import HTTPHeaders, HTTPMessageDelegate, ResponseStartLine

        class Answer(HTTPMessageDelegate):
            def finish(self):
                head = ResponseStartLine("HTTP/1.1", 200, "OK")
                request_connection.write_headers(head, HTTPHeaders({"Content-Length": "4"}), b"torn")
                request_connection.finish()

        return Answer()

tornado = Delegate()
"""

FASTAPI = """
from fastapi import FastAPI, Response

app = FastAPI()

@app.get("/")
async def root():
    return Response(b"asgi")
"""


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


def commands() -> Iterator[tuple[str, str]]:
    for page in PAGES:
        for text in blocks(page, "sh"):
            for line in text.splitlines():
                assert line.startswith("bridge "), f"{page.name}: {line}: this is not tested"
                yield page.name, line


COMMANDS = list(commands())
READING = [(page, line) for page, line in COMMANDS if " explain " in line or "--check-config" in line]
SERVING = [(page, line) for page, line in COMMANDS if (page, line) not in READING]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path[:])
    (tmp_path / "app.py").write_text(APPLICATIONS)
    (tmp_path / "main.py").write_text(FASTAPI)
    (tmp_path / "server.py").write_text('import uvicorn\n\nuvicorn.run("app:asgi", port=0)\n')
    for page, name, language in (("from-uwsgi.md", "uwsgi.ini", "ini"), ("from-unit.md", "bridge.toml", "toml")):
        (text,) = blocks(ROOT / "docs" / page, language)
        (tmp_path / name).write_text(text.replace(":8000", ":0"))
    return tmp_path


def test_there_is_a_page_for_each() -> None:
    names = "gunicorn uvicorn hypercorn granian daphne waitress uwsgi unit tornado"
    assert {page.stem for page in PAGES} == {f"from-{name}" for name in names.split()}
    assert len(SERVING) >= 12
    assert len(READING) >= 8


@pytest.mark.parametrize(("page", "line"), READING)
def test_a_command_that_explains(place: Path, page: str, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        assert cli.main(shlex.split(line)[1:]) in {0, 1}
    finally:
        sys.modules.pop("app", None)
    assert capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize(("page", "line"), SERVING)
def test_a_command_that_serves(place: Path, page: str, line: str) -> None:
    words = [re.sub(r"\b8000$", "0", word) for word in shlex.split(line)[1:]]
    (place / "bridge.toml").unlink()
    if "fastapi" in words:
        pytest.importorskip("fastapi_cli")
    with Running(command=[sys.executable, "-m", "bridge", *words], cwd=place, environ={"PORT": "0"}) as server:
        host, port = server.address()
        with urlopen(f"http://{host}:{port}/", timeout=60) as answer:
            assert answer.read() in {b"wsgi", b"asgi", b"torn"}
        assert server.end() == (-signal.SIGTERM if "exec" in words else 0)  # as uvicorn does
