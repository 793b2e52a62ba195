"""The command: what it prints, what it starts, and the status it ends with."""

from __future__ import annotations

import gc
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path

import pytest

from bridge import __version__, cli, speedups
from bridge.apps.loading import TargetError, load_target
from bridge.config import Config
from bridge.errors import ConfigError
from tests.support.running import Running, get


class FakeServer:
    """What the command needs of the supervisor: given a `Config`, returns a status or raises."""

    def __init__(self) -> None:
        self.started: list[Config] = []
        self.outcome: int | BaseException = 0
        self.read_config: Callable[[], Config] | None = None

    def run(self, config: Config, read_config: Callable[[], Config] | None = None, *, own_process: bool = False) -> int:
        self.started.append(config)
        self.read_config = read_config
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        return self.outcome


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> FakeServer:
    fake = FakeServer()
    module = types.ModuleType("bridge.supervisor.run")
    module.run = fake.run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "bridge.supervisor.run", module)
    for name in ("BRIDGE_TARGET", "BRIDGE_PORT", "PORT"):
        monkeypatch.delenv(name, raising=False)
    return fake


def test_run_starts_the_server_and_returns_its_status(server: FakeServer) -> None:
    server.outcome = 7
    assert cli.main(["run", "shop:app", "--port", "0"]) == 7
    [config] = server.started
    assert (config.target, config.port) == ("shop:app", 0)
    assert server.read_config is not None
    assert server.read_config() == config


def test_arguments_are_the_processes_by_default(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    frozen: list[bool] = []
    monkeypatch.setattr(gc, "freeze", lambda: frozen.append(gc.isenabled()))  # these are not the command's objects
    monkeypatch.setattr(sys, "argv", ["bridge", "run", "shop:app"])
    assert cli.main() == 0
    assert server.started[0].target == "shop:app"
    monkeypatch.setattr(sys, "argv", ["bridge", "run", "shop:app", "--port", "x"])
    assert cli.main() == cli.USAGE_ERROR
    assert frozen == [False, False]
    assert gc.isenabled()
    gc.disable()
    try:
        assert cli.main() == cli.USAGE_ERROR
        assert not gc.isenabled()
    finally:
        gc.enable()
    assert len(frozen) == 2


def test_the_target_may_come_from_the_environment(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRIDGE_TARGET", "shop:app")
    assert cli.main(["run"]) == 0
    assert server.started[0].target == "shop:app"


WRONG = [
    (["run"], "bridge: TARGET: nothing to serve; name it as module:attribute, for example `bridge run app:app`\n"),
    (["run", "a:app", "--prot", "1"], "bridge: --prot: there is no such option; did you mean --port?\n"),
    (["run", "a:app", "--port", "x"], "bridge: --port: 'x' is not a whole number from 0 to 65535\n"),
    (["run", "a:app", "--", "--help"], "bridge: TARGET: 'a:app' and '--help': only one application can be served\n"),
    (["app:app"], "bridge: app:app: there is no such command; did you mean `bridge run app:app`?\n"),
    (
        ["app:app", "--port", "1"],
        "bridge: app:app: there is no such command; did you mean `bridge run app:app --port 1`?\n",
    ),
    (["--port", "1"], "bridge: --port: there is no such command; did you mean `bridge run TARGET --port`?\n"),
]


@pytest.mark.parametrize(("argv", "message"), WRONG)
def test_wrong_arguments(server: FakeServer, capsys: pytest.CaptureFixture[str], argv: list[str], message: str) -> None:
    assert cli.main(argv) == 2
    assert capsys.readouterr() == ("", message)
    assert server.started == []


def test_a_configuration_error_of_the_server(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    server.outcome = ConfigError("--ssl-certfile: 'x.pem' cannot be read")
    assert cli.main(["run", "a:app"]) == 2
    assert capsys.readouterr() == ("", "bridge: --ssl-certfile: 'x.pem' cannot be read\n")


def test_a_target_that_cannot_be_loaded(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(TargetError) as missing:
        load_target("no_such_module_anywhere:app", factory=False, app_dir=None)
    server.outcome = missing.value
    assert cli.main(["run", "no_such_module_anywhere:app"]) == 3
    assert capsys.readouterr() == ("", f"bridge: {missing.value}\n")


def test_a_target_whose_code_raised(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    server.outcome = TargetError("a:app: importing module 'a' raised KeyError: 'b'", "Traceback ...\nKeyError: 'b'\n")
    assert cli.main(["run", "a:app"]) == 3
    assert capsys.readouterr() == (
        "",
        "Traceback ...\nKeyError: 'b'\nbridge: a:app: importing module 'a' raised KeyError: 'b'\n",
    )


def test_interrupted_while_the_application_is_imported(server: FakeServer) -> None:
    server.outcome = KeyboardInterrupt()
    assert cli.main(["run", "a:app"]) == 130


@pytest.mark.parametrize("argv", [["--help"], ["-h"], ["help"]])
def test_help(capsys: pytest.CaptureFixture[str], argv: list[str]) -> None:
    assert cli.main(argv) == 0
    out, err = capsys.readouterr()
    assert out.startswith("usage: bridge run TARGET [options]\n")
    assert err == ""


def test_nothing_at_all_gets_the_help_on_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("usage: bridge run TARGET [options]\n")


@pytest.mark.parametrize("argv", [["run", "--help"], ["run", "-h"], ["run", "a:app", "--port", "x", "--help"]])
def test_help_of_run(capsys: pytest.CaptureFixture[str], argv: list[str]) -> None:
    assert cli.main(argv) == 0
    assert "--timeout-graceful-shutdown TIME" in capsys.readouterr().out


@pytest.mark.parametrize("argv", [["--version"], ["-V"]])
def test_version(capsys: pytest.CaptureFixture[str], argv: list[str]) -> None:
    assert cli.main(argv) == 0
    python = ".".join(map(str, sys.version_info[:3]))
    assert capsys.readouterr().out == (
        f"bridge {__version__} ({sys.implementation.name} {python}, {sys.platform}),"
        f" speedups: {'compiled' if speedups.COMPILED else 'python'}\n"
    )


HEAVY = {"argparse", "asyncio", "dataclasses", "inspect", "logging", "re", "socket", "ssl", "typing"}


@pytest.mark.slow
def test_the_module_runs_and_stays_light() -> None:
    code = (
        "import runpy, sys\n"
        "sys.argv = ['bridge', '--version']\n"
        "before = set(sys.modules)\n"
        "try:\n"
        "    runpy.run_module('bridge', run_name='__main__')\n"
        "except SystemExit as exc:\n"
        "    assert exc.code == 0, exc.code\n"
        "print(*sorted(set(sys.modules) - before))\n"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", code],
        capture_output=True,
        text=True,
        timeout=30,
        cwd=Path(cli.__file__).parents[1],
    )
    assert done.stderr == ""
    version, modules = done.stdout.splitlines()
    assert version.startswith(f"bridge {__version__} (")
    assert HEAVY & set(modules.split()) == set()
    assert "bridge.config" not in modules


# What a plain start has no use for. Each costs 0.5 to 10 ms of CPU; asyncio and uvloop bring the others.
NOT_NEEDED = {
    "_hashlib", "argparse", "asgiref", "calendar", "copy", "dataclasses", "datetime", "email", "encodings.idna",
    "gettext", "hashlib", "http.client", "http.cookies", "importlib.metadata", "ipaddress", "json", "logging.config",
    "multiprocessing", "pdb", "pkgutil", "random", "shutil", "tempfile", "tomllib", "unicodedata", "urllib.parse",
    "urllib.request", "watchfiles", "werkzeug",
    "bridge.core.tornado.client", "bridge.core.tornado.forms", "bridge.core.tornado.request", "bridge.core.httputil",
    "bridge.core.iostream", "bridge.core.tornado.observed", "bridge.core.process", "bridge.core.middleware.proxy",
    "bridge.core.tornado.dispatch", "bridge.telemetry.accesslog",
    "bridge.supervisor.master", "bridge.supervisor.reload", "bridge.serving.debugging",
}  # fmt: skip


def imported_by(*words: str, cwd: Path) -> set[str]:
    """Serve an application that answers with the modules' names; return those that uvloop has not imported."""
    bare = "import sys, asyncio, uvloop; print(*sys.modules)"
    known = subprocess.run([sys.executable, "-c", bare], capture_output=True, text=True, timeout=30, check=True).stdout
    with Running(*words, cwd=cwd) as server:
        modules = set(get(server.address())[2].decode().split())
        assert server.end() == 0
    return modules - set(known.split())


@pytest.mark.slow
def test_a_plain_start_imports_what_it_needs_and_no_more(tmp_path: Path) -> None:
    (tmp_path / "listing.py").write_text(
        "import sys\n"
        "async def app(scope, receive, send):\n"
        "    content = ' '.join(sys.modules).encode()\n"
        "    await send({'type': 'http.response.start', 'status': 200,\n"
        "                'headers': [(b'content-length', b'%d' % len(content))]})\n"
        "    await send({'type': 'http.response.body', 'body': content})\n"
    )
    modules = imported_by("listing:app", "--no-access-log", "--lifespan", "off", cwd=tmp_path)
    assert {"bridge.cli", "bridge.config", "bridge.adapters.asgi.delegate"} <= modules
    assert NOT_NEEDED & modules == set()


@pytest.mark.slow
def test_a_plain_start_of_a_wsgi_application_imports_no_more_either(tmp_path: Path) -> None:
    (tmp_path / "listing.py").write_text(
        "import sys\n"
        "def app(environ, start_response):\n"
        "    start_response('200 OK', [])\n"
        "    return [' '.join(sys.modules).encode()]\n"
    )
    (tmp_path / "pyproject.toml").write_text("[project]\nname = 'bridge-user'\n[tool.other]\nx = 1\n")
    modules = imported_by("listing:app", "--no-access-log", cwd=tmp_path)
    assert "bridge.adapters.wsgi.delegate" in modules
    of_asgi = {"bridge.adapters.asgi", "bridge.adapters.asgi.lifespan", "bridge.core.connection.websocket"}
    assert (NOT_NEEDED | of_asgi) & modules == set()


@pytest.mark.slow
def test_what_the_start_imports_is_no_garbage(tmp_path: Path) -> None:
    (tmp_path / "collector.py").write_text(
        "import gc\n"
        "here = f'{gc.isenabled()} {gc.get_freeze_count() > 10000}'\n"
        "def app(environ, start_response):\n"
        "    start_response('200 OK', [])\n"
        "    return [f'{here} {gc.isenabled()}'.encode()]\n"
    )
    with Running("collector:app", cwd=tmp_path) as server:
        assert get(server.address())[2] == b"True True True"
        assert server.end() == 0


def test_in_a_process_of_others_the_collector_is_left_alone(server: FakeServer) -> None:
    frozen = gc.get_freeze_count()
    assert cli.main(["run", "app:app"]) == 0
    assert (gc.get_freeze_count(), gc.isenabled()) == (frozen, True)


@pytest.mark.slow
def test_the_module_ends_with_the_status_of_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bridge", "run", "a:app", "--port", "x"],
        capture_output=True, text=True, timeout=30, cwd=Path(cli.__file__).parents[1],
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "bridge: --port: 'x' is not a whole number from 0 to 65535\n"


APPLICATION = "async def app(scope, receive, send):\n    pass\n"


def test_check_config(server: FakeServer, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "checked_app.py").write_text(APPLICATION)
    argv = ["run", "--check-config", "checked_app:app", "--app-dir", str(tmp_path)]
    before = sys.path[:]
    try:
        assert cli.main(argv) == 0
        assert capsys.readouterr().out == "bridge: the configuration is good, and the application can be imported\n"
        assert cli.main([*argv, "--ssl-certfile", "none.pem"]) == 2
        assert capsys.readouterr().err == f"bridge: --ssl-certfile {Path.cwd()}/none.pem: No such file or directory\n"
        assert cli.main([*argv[:2], "checked_app:none", *argv[3:]]) == 3
        assert "has no attribute 'none'" in capsys.readouterr().err
        assert cli.main(["run", "--check-config"]) == 2
        assert server.started == []
    finally:
        sys.path[:] = before
        sys.modules.pop("checked_app", None)


def test_print_config(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", "a:app", "--port", "7", "--print-config"]) == 0
    assert 'port = "7"  # --port\n' in capsys.readouterr().out
    assert cli.main(["run", "--print-config", "--prot", "7"]) == 2
    assert server.started == []
