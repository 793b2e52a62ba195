"""The shell blocks of the documentation run, each as it stands there, but for ports, folders and certificates.

A line that starts a server is asked once, and the lines after it in the block meet that server. The pages for users of
other servers have tests of their own, in test_switching.py.
"""

from __future__ import annotations

import re
import shlex
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support import ROOT
from tests.support.running import Running, get
from tests.test_switching import APPLICATIONS, FASTAPI

pytestmark = pytest.mark.slow

SHELL = re.compile(r"^ *```sh\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)

#: Lines that are tried elsewhere, by how they begin.
ELSEWHERE = {
    "make ": "the targets exist: test_project.py; a fresh clone runs them",
    "python3 -m venv ": "test_install.py",
    ". .venv/bin/activate": "test_install.py calls the environment's programs by their paths",
    "pip install ": "test_install.py",
    "git ": "the guide for a first contribution, which a person follows",
    "cd ": "the same",
    ".venv/bin/python -m ": "the same",
    "python -m benchmarks": "tests/benchmarks",
}
#: Blocks of these pages run in `make test`; `make docs` and `make test-all` run all.
ALWAYS = ("README.md", "docs/start.md")

LIFESPAN = """
async def app(scope, receive, send):
    if scope["type"] != "lifespan":
        return await asgi(scope, receive, send)
    for event in ("startup", "shutdown"):
        await receive()
        await send({"type": f"lifespan.{event}.complete"})


def create_app():
    return wsgi
"""
FILES = {
    "hello.py": APPLICATIONS + "\napp = wsgi\n",
    "app.py": APPLICATIONS + LIFESPAN,
    "mysite/__init__.py": "",
    "mysite/wsgi.py": APPLICATIONS + "\napplication = wsgi\n",
    "mysite/asgi.py": APPLICATIONS + "\napplication = asgi\n",
    "myproject/__init__.py": "",
    "myproject/asgi.py": APPLICATIONS + "\napplication = asgi\n",
    "api.py": APPLICATIONS + "\napp = asgi\n",
    "old.py": APPLICATIONS + "\napplication = tornado\n",
    "admin.py": APPLICATIONS + "\napp = wsgi\n",
    "shop.py": APPLICATIONS + "\napp = asgi\n",
    "gunicorn.conf.py": "timeout = 20\n",
}


def pages() -> list[str]:
    found = [*ROOT.glob("*.md"), *(path for path in ROOT.glob("docs/*.md") if not path.stem.startswith("from-"))]
    return sorted(path.relative_to(ROOT).as_posix() for path in found)


def logical(block: str) -> list[str]:
    """Return the lines of a block, continued ones joined, without comments and empty ones."""
    joined = block.replace("\\\n", " ").splitlines()
    return [text for line in joined if (text := re.sub(r"(^|\s)#.*", "", line).strip())]


def cases() -> Iterator[object]:
    for page in pages():
        blocks: list[list[str]] = []
        for block in SHELL.findall((ROOT / page).read_text(encoding="utf-8")):
            lines = [line for line in logical(block) if not line.startswith(tuple(ELSEWHERE))]
            if blocks and not any(starts(line) for line in lines):
                blocks[-1] += lines  # it asks the server that the block before has started
            elif lines:
                blocks.append(lines)
        marks = [] if page in ALWAYS else [pytest.mark.long]
        for number, lines in enumerate(blocks):
            yield pytest.param(lines, marks=marks, id=f"{page}-{number}")


STARTS = {"run", "dev", "exec", "gunicorn", "uvicorn", "hypercorn", "granian", "daphne", "waitress-serve", "uwsgi"}


def starts(line: str) -> bool:
    """Tell whether a command is a server."""
    return line.startswith("bridge ") and line.split()[1] in STARTS


class Place:
    """A folder with what the commands of the pages name, and the server that was started last."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder = folder
        self.stack = stack
        self.server: Running | None = None
        self.environ = {
            "BRIDGE_CONTROL_SOCKET": str(folder / "bridge.ctl"),
            "PYTHONPATH": f"{ROOT}:{folder}",
            "XDG_DATA_HOME": str(folder),
        }
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.admin = listener.getsockname()[1]

    def words(self, line: str) -> list[str]:
        """Return the words of *line*, with what this machine has in the place of ports and folders."""
        line = line.replace("127.0.0.1:9000", f"127.0.0.1:{self.admin}")
        line = re.sub(r"/run/\w+/bridge\.(\w+)", lambda match: str(self.folder / f"bridge.{match[1]}"), line)
        line = line.replace("/srv/mysite", str(self.folder))
        line = re.sub(r"(?<!\d)0\.0\.0\.0(?!\d)", "127.0.0.1", line)
        line = re.sub(r"(^|[ :])(80[08]0|443)$|(?<= )(:)?80[08]0(?= )", _port, line)
        return shlex.split(line)

    def run(self, line: str) -> None:
        words = self.words(line)
        command = [sys.executable, "-m", "bridge", *words[1:]] if words[0] == "bridge" else words
        if starts(line):
            if words[1] == "gunicorn":
                command[4:4] = ["--bind", "127.0.0.1:0"]
            elif not {"exec", "--port", "--bind", "--uds"} & set(words):
                command += ["--port", "0"]
            self.start(command)
        elif words[:2] == ["bridge", "top"]:
            self.ask([*command, "--count", "1"])  # it would go on
        else:
            self.ask(command)

    def ask(self, command: list[str]) -> None:
        """Run a command that ends."""
        if command[0] == "curl":
            if shutil.which("curl") is None:
                pytest.skip("curl is not installed")
            assert self.server is not None
            host, port = self.server.address()
            command = [re.sub("127.0.0.1:8000", f"{host}:{port}", word) for word in [*command, "--fail", "--silent"]]
        done = subprocess.run(
            command,
            cwd=self.folder,
            env={"PATH": "/usr/bin:/bin", **self.environ},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout

    def start(self, command: list[str]) -> None:
        """Start a server, and ask it once."""
        self.stop()
        environ = self.environ | ({"PORT": "0"} if "exec" in command else {})
        self.server = self.stack.enter_context(Running(command=command, cwd=self.folder, environ=environ))
        if "--uds" in command:
            self.server.messages.wait("bridge: serving")
            assert get(command[command.index("--uds") + 1], "/")[0] == 200
            return
        host, port = self.server.address()
        path = "/api" if "--mount" in command and "/api=api:app" in command else "/"
        if {"--ssl-certfile", "--https"} & set(command):
            made = "bridge/https" if "--https" in command else ""
            context = ssl.create_default_context(cafile=self.folder / made / "authority.pem")
            with urllib.request.urlopen(f"https://localhost:{port}{path}", timeout=60, context=context) as answer:
                assert answer.status == 200
            return
        status, _, content = get((host, port), path)
        assert status == 200, content

    def stop(self) -> None:
        """Stop the server, if there is one: it ends with 0."""
        if self.server is None:
            return
        if "--drain-delay" in self.server.argv:
            self.server.signal("SIGTERM")
            self.server.messages.wait("(?i)drain")
        assert self.server.end() in (0, -signal.SIGTERM)  # the latter as uvicorn does, under `bridge exec`
        self.server = None


def _port(match: re.Match[str]) -> str:
    return f"{match[1] or ''}{match[3] or ''}0"


@pytest.mark.parametrize("lines", list(cases()))
def test_a_block_runs(lines: list[str], tmp_path: Path) -> None:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    if any("fastapi" in line for line in lines):
        pytest.importorskip("fastapi_cli")
        (tmp_path / "hello.py").write_text(FASTAPI)
    if any("--ssl-certfile" in line for line in lines):
        certificate(tmp_path)
    with ExitStack() as stack:
        place = Place(tmp_path, stack)
        for line in lines:
            place.run(line)
        place.stop()


def certificate(folder: Path) -> None:
    """Write the files that the pages name."""
    import trustme

    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "authority.pem")
    issued = authority.issue_cert("localhost")
    issued.private_key_pem.write_to_path(folder / "privkey.pem")
    for part in issued.cert_chain_pems:
        part.write_to_path(folder / "fullchain.pem", append=True)
