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


def shown(name: str) -> str:
    (text,) = (text for found, text in blocks("docs/embedding.md") if found == name)
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


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "method", "data", "content"),
    [
        ("program.py", "GET", None, b"from a program\n"),
        ("function.py", "GET", None, b"GET /path\n"),
        ("delegate.py", "PUT", b"12345", b"5 bytes\n"),
    ],
)
def test_a_program_answers(name: str, method: str, data: bytes | None, content: bytes, tmp_path: Path) -> None:
    assert answers(shown(name), tmp_path, method=method, data=data) == content


@pytest.mark.slow
def test_a_server_beside_other_tasks(tmp_path: Path) -> None:
    (tmp_path / "beside.py").write_text(shown("beside.py"))
    done = subprocess.run([sys.executable, "beside.py"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.stdout == "200 b'from WSGI\\n'\n", done.stderr


@pytest.mark.slow
def test_the_fixture(tmp_path: Path) -> None:
    for name in ("conftest.py", "test_app.py"):
        (tmp_path / name).write_text(shown(name))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", "."]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert "1 passed" in done.stdout, done.stdout


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
