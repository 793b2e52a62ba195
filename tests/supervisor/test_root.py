"""Servers that root starts for somebody else, who works against root: in every way of running."""

from __future__ import annotations

import os
import socket
import ssl
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trustme

from tests.support.astray import NOBODY, another_directory, dangling, hard_link, link, pipe
from tests.support.running import APPS, IMPORTED, PATIENCE, Client, Running, get

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else"),
]

WAYS = {"alone": [], "workers": ["--workers", "1"], "preload": ["--workers", "1", "--preload"]}


def running(*argv: str, app: str = "plain:asgi", command: str = "run", **options: object) -> Running:
    where = [] if {"--uds"} & set(argv) else ["--port", "0"]
    words = [command, app, "--user", "nobody", *where, *argv]
    return Running(command=[sys.executable, "-c", IMPORTED, *words], **options)  # type: ignore[arg-type]


class Scene:
    """A directory of root's with a file that matters, and one of nobody's."""

    def __init__(self, top: Path) -> None:
        os.chmod(top, 0o755)
        self.roots = top / "roots"
        self.site = top / "site"
        self.secret = self.roots / "file"
        self.path = self.site / "place" / "file"
        self.roots.mkdir()
        self.secret.write_text("17\n")
        self.secret.chmod(0o600)
        self.path.parent.mkdir(parents=True)
        for place in (self.site, self.path.parent):
            os.chown(place, NOBODY.pw_uid, NOBODY.pw_gid)

    def is_unharmed(self) -> bool:
        status = os.lstat(self.secret)
        kept = (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (0o600, 0, 0)
        return kept and self.secret.read_text() == "17\n" and os.listdir(self.roots) == ["file"]


@pytest.fixture
def scene() -> Iterator[Scene]:
    with tempfile.TemporaryDirectory() as name:  # pytest's own directories are closed to others
        made = Scene(Path(name))
        yield made
        assert made.is_unharmed()


ATTACKS = [link, dangling, hard_link, pipe, another_directory]
# How a file is opened hangs on the attack, and who opens it hangs on the way: of their pairs, some are always tried.
PAIRS = [
    pytest.param(way, attack, marks=[] if way == "preload" or attack is link else pytest.mark.wide)
    for way in WAYS
    for attack in ATTACKS
]

ways = pytest.mark.parametrize("way", WAYS)
links = pytest.mark.parametrize(
    ("way", "attack"),
    [pytest.param(way, attack, marks=[] if attack is link else pytest.mark.wide) for way in WAYS for attack in ATTACKS],
)
pairs = pytest.mark.parametrize(("way", "attack"), PAIRS)
logs = pytest.mark.parametrize(
    "option",
    ["--access-logfile", pytest.param("--error-logfile", marks=pytest.mark.wide)],  # opened by the same function
)


@pairs
@logs
def test_a_log_file_at_the_start(scene: Scene, way: str, attack: Callable[[Scene], None], option: str) -> None:
    attack(scene)
    with running(option, str(scene.path), *WAYS[way]) as server:
        assert server.end("") == 2
        (line,) = server.messages.lines
        assert line.startswith(f"bridge: {option} {scene.path}: ")
        assert "remove it" in line


@links  # opened by the same function as at the start
@logs
def test_a_log_file_at_sigusr1(scene: Scene, way: str, attack: Callable[[Scene], None], option: str) -> None:
    with running(option, str(scene.path), *WAYS[way]) as server:
        address = server.address()
        held = os.open(scene.path, os.O_RDONLY)  # the file stays the old one
        attack(scene)
        server.signal("SIGUSR1")
        if option == "--access-logfile":
            server.messages.wait("The log file stays the old one: ")
        else:
            await_text(held, "The log file stays the old one: ")
        for _ in range(3):
            assert get(address, "/after")[0] == 200
        assert server.end() == 0
        assert scene.is_unharmed()
        await_text(held, "Stopped" if option == "--error-logfile" else "GET /after")
        os.close(held)


def await_text(descriptor: int, text: str) -> None:
    end = time.monotonic() + PATIENCE
    while text not in (found := os.pread(descriptor, 100_000, 0).decode()):
        assert time.monotonic() < end, found
        time.sleep(0.01)


@pytest.mark.parametrize("mode", [0o755, 0o700], ids=["open", "closed"])
def test_roots_own_log_files(scene: Scene, mode: int) -> None:
    """Made anew by logrotate for root, in a directory of root's: workers write to them, and they stay root's."""
    logs = scene.site / "logs"
    logs.mkdir()
    logs.chmod(mode)
    access, error = logs / "access.log", logs / "error.log"
    with running(
        "--access-logfile", str(access), "--error-logfile", str(error), "--workers", "2", "--access-logformat", "%(U)s"
    ) as server:
        address = server.address()
        assert access.stat().st_uid == NOBODY.pw_uid
        for number in range(2):
            for file in (access, error):
                file.rename(file.with_suffix(f".{number}"))
                file.write_text("")
            server.signal("SIGUSR1")
            while "Log files reopened" not in error.read_text():
                time.sleep(0.01)
            time.sleep(0.3)
            for _ in range(4):
                get(address, f"/{number}")
            while access.read_text() != f"/{number}\n" * 4:
                time.sleep(0.01)
            assert access.stat().st_uid == 0
        assert server.end() == 0
        assert "Stopped" in error.read_text()
        assert "stays the old one" not in "".join(file.read_text() for file in logs.iterdir())


@pairs
def test_the_pid_file(scene: Scene, way: str, attack: Callable[[Scene], None]) -> None:
    attack(scene)
    with running("--pid", str(scene.path), *WAYS[way]) as server:
        if attack in {pipe, another_directory}:
            assert server.end("") == 2
            (line,) = server.messages.lines
            assert line.startswith(f"bridge: --pid {scene.path}: ")
            return
        server.address()
        assert not scene.path.is_symlink()
        assert scene.path.read_text() == f"{server.pid}\n"
        assert scene.path.stat().st_uid == 0
        assert scene.is_unharmed()
        another_directory(scene)
        os.symlink(scene.secret, scene.site / "away" / f"file.{server.pid}")
        assert server.end() == 0


@ways
def test_a_pid_file_that_its_neighbour_has_replaced(scene: Scene, way: str) -> None:
    with running("--pid", str(scene.path), *WAYS[way]) as server:
        server.address()
        scene.path.unlink()
        os.link(scene.secret, scene.path)
        scene.secret.write_text(f"{server.pid}\n")  # as if it named the server
        assert server.end() == 0
        assert scene.path.exists()
        scene.secret.write_text("17\n")


@pairs
def test_a_unix_socket(scene: Scene, way: str, attack: Callable[[Scene], None]) -> None:
    attack(scene)
    with running("--uds", str(scene.path), "--uds-owner", "nobody", "--uds-permissions", "666", *WAYS[way]) as server:
        assert server.end("") == 1
        (line,) = server.messages.lines
        assert line.startswith(f"bridge: cannot listen on unix:{scene.path}: ")


@ways
def test_a_unix_socket_in_a_directory_of_the_user(scene: Scene, way: str) -> None:
    argv = ("--uds", str(scene.path), "--uds-owner", "nobody:daemon", "--uds-permissions", "660", *WAYS[way])
    for kill in (True, False):  # the second replaces the file of the first
        with running(*argv) as server:
            server.messages.wait("bridge: serving")
            status = scene.path.stat()
            assert (status.st_uid, stat.S_IMODE(status.st_mode)) == (NOBODY.pw_uid, 0o660)
            with Client(str(scene.path)) as client:
                assert client.get()[0] == 200
            if kill:
                server.end("SIGKILL")
            else:
                assert server.end() == 0
                assert not scene.path.exists()


@ways
def test_the_end_of_a_unix_socket_removes_nothing_else(scene: Scene, way: str) -> None:
    with running("--uds", str(scene.path), *WAYS[way]) as server:
        server.messages.wait("bridge: serving")
        another_directory(scene)
        assert server.end() == 0
    assert scene.is_unharmed()


# --- whose code runs as whom ------------------------------------------------------------------------------------------

NOTES = """\
import os, sys
sys.stderr.write(f"{__name__} as {os.geteuid()} {os.getuid()}\\n")
"""
APP = """
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        raise NotImplementedError
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"noted"})
"""
FACTORY = """
def factory(config, usual):
    return usual()
"""
HANDLER = """
import logging
class Handler(logging.StreamHandler):
    pass
"""
LOGGING = """\
version = 1
disable_existing_loggers = false
[handlers.one]
class = "noting_handler.Handler"
[loggers.bridge]
handlers = ["one"]
level = "INFO"
"""


@pytest.fixture
def noting(scene: Scene) -> Path:
    for name, text in (("app", APP), ("factory", FACTORY), ("handler", HANDLER)):
        (scene.site / f"noting_{name}.py").write_text(NOTES + text)
    (scene.site / "logging.toml").write_text(LOGGING)
    return scene.site


def noted_as_nobody(server: Running, name: str) -> bool:
    found = {line for line in server.messages.lines if line.startswith(f"noting_{name} as ")}
    return found == {f"noting_{name} as {NOBODY.pw_uid} {NOBODY.pw_uid}"}


@pytest.mark.parametrize("way", [*WAYS, "reload"])
def test_the_application_never_runs_as_root(noting: Path, way: str) -> None:
    argv = WAYS.get(way, ["--reload"])
    with running("--app-dir", str(noting), *argv, app="noting_app:app") as server:
        assert get(server.address())[2] == b"noted"
        server.signal("SIGHUP")
        if argv:
            server.messages.wait("Reloaded: ")
        assert server.end() == 0
        assert noted_as_nobody(server, "app")


def test_the_watcher_of_files_gives_up_root_too(noting: Path) -> None:
    with running("--app-dir", str(noting), "--reload", app="noting_app:app") as server:
        server.address()
        children = server.workers()
        assert len(children) == 2
        assert {os.stat(f"/proc/{pid}").st_uid for pid in children} <= {NOBODY.pw_uid, 0}
        for pid in children:
            status = Path(f"/proc/{pid}/status").read_text()
            assert f"\nUid:\t{NOBODY.pw_uid}\t{NOBODY.pw_uid}\t{NOBODY.pw_uid}" in status
        assert server.end() == 0


def test_a_check_of_the_settings_is_not_made_as_root(noting: Path) -> None:
    with running("--check-config", "--app-dir", str(noting), app="noting_app:app") as server:
        assert server.end("") == 0
        assert noted_as_nobody(server, "app")


@ways
def test_a_configuration_of_logging_does_not_run_as_root(noting: Path, way: str) -> None:
    environ = {"PYTHONPATH": f"{APPS}:{noting}:{os.getcwd()}"}
    with running("--log-config", str(noting / "logging.toml"), *WAYS[way], environ=environ) as server:
        server.address()
        assert server.end() == 0
        assert noted_as_nobody(server, "handler")
        assert server.messages.lines[-1] == "Stopped" or "Worker" in server.messages.lines[-1]
        assert server.messages.text.count("Stopping on SIGTERM") == 1


@ways
def test_a_log_file_of_python_s_logging(scene: Scene, way: str) -> None:
    link(scene)
    config = scene.site / "logging.toml"
    config.write_text(
        f'version = 1\n[handlers.one]\nclass = "logging.FileHandler"\nfilename = "{scene.path}"\n'
        '[loggers.bridge]\nhandlers = ["one"]\n'
    )
    with running("--log-config", str(config), *WAYS[way]) as server:
        assert server.end("") == 2
        assert server.messages.lines[-1].startswith(f"bridge: --log-config {config}: Unable to configure handler 'one'")


@ways
def test_a_factory_of_tls_contexts_does_not_run_as_root(noting: Path, way: str) -> None:
    """Alone, root reads the key before."""
    certificate = trustme.CA().issue_cert("127.0.0.1")
    pem = noting / "key.pem"
    certificate.private_key_and_cert_chain_pem.write_to_path(str(pem))
    pem.chmod(0o600)
    if way != "alone":
        os.chown(pem, NOBODY.pw_uid, -1)
    environ = {"PYTHONPATH": f"{APPS}:{noting}:{os.getcwd()}"}
    argv = ["--ssl-certfile", str(pem), "--ssl-context-factory", "noting_factory:factory", *WAYS[way]]
    with running(*argv, environ=environ) as server:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with socket.create_connection(server.address()) as sock, context.wrap_socket(sock) as tls:
            tls.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            assert tls.recv(100).startswith(b"HTTP/1.1 200")
        assert server.end() == 0
        assert noted_as_nobody(server, "factory")
