"""The examples in the documentation run: each block that begins with ``# file: NAME``."""

from __future__ import annotations

import re
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from tests.support import ROOT
from tests.support.running import Running, get

FILE = re.compile(r"^```python\n# file: (\S+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
FENCE = re.compile(r"^ *```([^\n]*)\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)
#: Languages of blocks that claim nothing of their own: output, tables of files, and what other programs read.
QUIET = {"text", "json", "toml", "ini", "nginx", "dockerfile", "yaml"}


def blocks(page: str) -> list[tuple[str, str]]:
    """Return (name, text) of the files that *page* shows."""
    found = FILE.findall((ROOT / page).read_text(encoding="utf-8"))
    assert found, f"{page} shows no file"
    return found


APPLICATIONS = [
    pytest.param(page, number, id=f"{page}-{number}")
    for page in ("docs/start.md", "README.md")
    for number, (name, _) in enumerate(blocks(page))
    if name == "hello.py"
]


@pytest.mark.slow
@pytest.mark.parametrize(("page", "number"), APPLICATIONS)
def test_an_application_is_served(page: str, number: int, tmp_path: Path) -> None:
    (tmp_path / "hello.py").write_text(blocks(page)[number][1])
    with Running("hello:app", "--app-dir", str(tmp_path), "--port", "0") as server:
        status, _, content = get(server.address(), "/")
        assert status == 200
        assert b"ello" in content
        assert server.end() == 0


def shown(page: str, name: str) -> str:
    (text,) = (text for found, text in blocks(page) if found == name)
    return text


def answers(program: str, tmp_path: Path, *, method: str = "GET", data: bytes | None = None) -> bytes:
    """Run *program* on a free port until it has answered once, and return the content of the answer."""
    (tmp_path / "program.py").write_text(program.replace("8000", "0"))
    # The port is the only thing that is not as on the page.
    starter = (
        "import runpy, socket, sys\n"
        "listen = socket.socket.listen\n"
        "def told(sock, *args):\n"
        "    listen(sock, *args)\n"
        "    print(sock.getsockname()[1], flush=True)\n"
        "socket.socket.listen = told\n"
        "sys.argv = ['program.py']\n"
        "runpy.run_path('program.py', run_name='__main__')\n"
    )
    command = [sys.executable, "-c", starter]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            port = int(process.stdout.readline())
            request = urllib.request.Request(f"http://127.0.0.1:{port}/path", data, method=method)
            with urllib.request.urlopen(request, timeout=20) as response:
                return response.read()
        finally:
            process.kill()


#: Programs that serve on port 8000: page, name, request, and the content of the answer.
PROGRAMS = [
    ("docs/embedding.md", "program.py", "GET", None, b"from a program\n"),
    ("docs/embedding.md", "function.py", "GET", None, b"GET /path\n"),
    ("docs/embedding.md", "delegate.py", "PUT", b"12345", b"5 bytes\n"),
    ("docs/asgi.md", "mounted.py", "GET", None, b"the site, /path\n"),
    ("docs/wsgi.md", "program.py", "GET", None, b"from a thread\n"),
    ("docs/tornado.md", "program.py", "GET", None, b"Hello from Tornado, path\n"),
    ("docs/tornado.md", "installed.py", "GET", None, b"Hello from Tornado\n"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("page", "name", "method", "data", "content"), PROGRAMS)
def test_a_program_answers(
    page: str, name: str, method: str, data: bytes | None, content: bytes, tmp_path: Path
) -> None:
    assert answers(shown(page, name), tmp_path, method=method, data=data) == content


@pytest.mark.slow
def test_a_server_beside_other_tasks(tmp_path: Path) -> None:
    (tmp_path / "beside.py").write_text(shown("docs/embedding.md", "beside.py"))
    done = subprocess.run([sys.executable, "beside.py"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.stdout == "200 b'from WSGI\\n'\n", done.stderr


def test_files_of_the_examples_are_shown_as_they_are() -> None:
    found = re.findall(
        r"^```ini\n# file: (examples/\S+)\n(.*?)^```$", (ROOT / "docs/deployment.md").read_text(), re.S | re.M
    )
    assert found
    for name, text in found:
        assert text == (ROOT / name).read_text(), name


DJANGO = """\
from django.conf import settings
settings.configure(ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, MIDDLEWARE=["route.route"])
from django.core import asgi, wsgi
from django.http import HttpResponse
from django.urls import path
urlpatterns = [path("items/<int:number>", lambda request, number: HttpResponse("ok"))]
META = wsgi.get_wsgi_application()
scope = asgi.get_asgi_application()
"""


@pytest.mark.slow
@pytest.mark.parametrize("interface", ["META", "scope"])
def test_django_tells_its_route(interface: str, tmp_path: Path) -> None:
    (tmp_path / "route.py").write_text(shown("docs/operations.md", "route.py").replace("META", interface))
    (tmp_path / "project.py").write_text(DJANGO)
    words = ["--app-dir", str(tmp_path), "--port", "0", "--metrics-path", "/metrics"]
    with Running(f"project:{interface}", *words) as server:
        assert get(server.address(), "/items/3")[0] == 200
        assert b'http_route="items/<int:number>"' in get(server.address(), "/metrics")[2]
        assert server.end() == 0


@pytest.mark.slow
def test_the_fixture(tmp_path: Path) -> None:
    for name in ("conftest.py", "test_app.py"):
        (tmp_path / name).write_text(shown("docs/embedding.md", name))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", "."]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert "1 passed" in done.stdout, done.stdout


@pytest.mark.slow
def test_an_event_stream_ends_by_itself(tmp_path: Path) -> None:
    (tmp_path / "events.py").write_text(shown("docs/asgi.md", "events.py"))
    with Running("events:app", "--app-dir", str(tmp_path), "--port", "0") as server:
        host, port = server.address()
        with urllib.request.urlopen(f"http://{host}:{port}/", timeout=60) as answer:
            assert answer.readline() == b"data: tick\n"
            server.signal("SIGTERM")
            assert answer.read().endswith(b"data: bye\n\n")
        assert server.end("") == 0


#: What the tests above run.
RUN = {(page, name) for page, name, *_ in PROGRAMS} | {
    ("README.md", "hello.py"),
    ("docs/start.md", "hello.py"),
    ("docs/asgi.md", "events.py"),
    ("docs/operations.md", "route.py"),
    *(("docs/embedding.md", name) for name in ("beside.py", "conftest.py", "test_app.py")),
}


def fences(page: Path) -> list[tuple[str, str]]:
    """Return (language, text) of the blocks of *page*."""
    return FENCE.findall(page.read_text(encoding="utf-8"))


def untested(page: str, found: list[tuple[str, str]]) -> list[str]:
    """Return the first lines of the blocks that claim to work, and that no test runs."""
    faults = []
    for language, text in found:
        name = re.match(r"# file: (\S+)\n", text)
        known = language in QUIET | {"sh"} or language.startswith("{")  # sh: test_docs_commands.py, test_switching.py
        if not known and not (language == "python" and name and (page, name[1]) in RUN):
            faults.append(text.partition("\n")[0])
    return faults


def test_every_block_is_run() -> None:
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]
    faults = {page.name: untested(page.relative_to(ROOT).as_posix(), fences(page)) for page in pages}
    assert {name: found for name, found in faults.items() if found} == {}


@pytest.mark.parametrize("language", ["", "python", "shell"])
def test_a_block_that_nothing_runs_is_found(language: str) -> None:
    assert untested("docs/start.md", [(language, "print()\n"), ("sh", "bridge run\n")]) == ["print()"]


PAGES = sorted(path.relative_to(ROOT).as_posix() for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


def anchors(text: str) -> set[str]:
    """Return the names by which links reach the headings of *text*."""
    plain = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.+)$", plain, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "", text)):
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        path, _, anchor = target.partition("#")
        file = (ROOT / page).parent / path if path else ROOT / page
        assert file.exists(), f"{page} links to {target}"
        if anchor and file.suffix == ".md":
            assert anchor in anchors(file.read_text(encoding="utf-8")), f"{page} links to {target}"


def test_every_page_is_in_the_contents() -> None:
    contents = (ROOT / "docs/index.md").read_text(encoding="utf-8")
    listed = {name for block in re.findall(r"```{toctree}\n(.*?)```", contents, re.DOTALL) for name in block.split()}
    pages = {path.relative_to(ROOT / "docs").with_suffix("").as_posix() for path in ROOT.glob("docs/**/*.md")}
    assert pages - {"index"} <= listed
