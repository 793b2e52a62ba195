"""What the settings change for the whole process."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
import types
from collections.abc import Iterator
from pathlib import Path

import pytest

from bridge import files
from bridge.config import Config
from bridge.config.sources import load
from bridge.core.net.bind import bind_unix
from bridge.errors import ConfigError
from bridge.serving import process
from bridge.serving.embedding import Server
from bridge.serving.process import at_origin, prepare_process, set_title
from tests.support import ROOT
from tests.support.running import APPS, IMPORTED, Running, get


@pytest.fixture(autouse=True)
def own_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    monkeypatch.setattr(process, "_origin", "")
    monkeypatch.setattr(os, "environ", os.environ.copy())
    before = os.getcwd()
    os.chdir(tmp_path)
    yield tmp_path
    os.chdir(before)


def test_a_relative_directory_counts_from_the_start_of_the_process(own_process: Path) -> None:
    (own_process / "a").mkdir()
    prepare_process(Config())
    assert Path.cwd() == own_process
    for _ in range(2):  # a reload
        prepare_process(Config(chdir="a"))
        assert Path.cwd() == own_process / "a"
        assert at_origin(os.getcwd) == str(own_process)
        assert Path.cwd() == own_process / "a"
    prepare_process(Config())
    assert Path.cwd() == own_process


def test_a_directory_that_does_not_exist(own_process: Path) -> None:
    with pytest.raises(ConfigError, match=r"--chdir .*/nowhere: No such file or directory"):
        prepare_process(Config(chdir="nowhere"))


def test_variables(own_process: Path) -> None:
    (own_process / "one").write_text('GREETING="hello, world"\nHOME=/elsewhere\n', encoding="utf-8")
    home = os.environ["HOME"]
    prepare_process(load(["a:a", "--env", "A=1,2", "--env", "B=x=y", "--env-file", "one"], {}))
    assert [os.environ[name] for name in ("A", "B", "GREETING", "HOME")] == ["1,2", "x=y", "hello, world", home]


@pytest.mark.parametrize("text", ["A", "=1", ""])
def test_a_text_that_is_no_variable(text: str) -> None:
    with pytest.raises(ConfigError, match="is not NAME=VALUE"):
        load(["--env=" + text], {})


def test_a_file_of_variables_that_does_not_exist() -> None:
    with pytest.raises(ConfigError, match=r"--env-file .*/missing: No such file"):
        prepare_process(Config(env_file=("missing",)))


def test_a_file_of_variables_needs_a_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dotenv", None)
    with pytest.raises(ConfigError, match="python-dotenv"):
        prepare_process(Config(env_file=("missing",)))


def test_the_title(monkeypatch: pytest.MonkeyPatch) -> None:
    titles: list[str] = []
    fake = types.ModuleType("setproctitle")
    fake.setproctitle = titles.append  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "setproctitle", fake)
    set_title(Config(), "master")
    set_title(Config(process_name="shop"), "master")
    assert titles == ["shop: master"]
    monkeypatch.setitem(sys.modules, "setproctitle", None)
    with pytest.raises(ConfigError, match="--process-name: needs the package setproctitle"):
        set_title(Config(process_name="shop"), "master")


def test_a_server_in_a_program_leaves_the_process_alone() -> None:
    with pytest.raises(ConfigError, match="the whole process"):
        Server("a:a", chdir="/")


FIELDS = [
    (["--header", "X-A: 1, 2", "--header", "x-b:"], ((b"x-a", b"1, 2"), (b"x-b", b""))),
    (["--headers=A: b"], ((b"a", b"b"),)),
]


@pytest.mark.parametrize(("argv", "fields"), FIELDS)
def test_fields(argv: list[str], fields: object) -> None:
    assert load(argv, {}).header == fields


@pytest.mark.parametrize(
    "text", ["a", "a b: c", "a: b\x00", "content-length: 1", "Transfer-Encoding: chunked", "é: 1", "a: €", ": a"]
)
def test_a_text_that_is_no_field(text: str) -> None:
    with pytest.raises(ConfigError, match="is not NAME: VALUE"):
        load(["--header", text], {})


def test_fields_and_variables_in_a_file(own_process: Path) -> None:
    text = '[header]\nX-Frame-Options = "DENY"\n[env]\nA = "1,2"\nB = "3"\n'
    (own_process / "bridge.toml").write_text(text, encoding="utf-8")
    config = load([], {})
    assert config.header == ((b"x-frame-options", b"DENY"),)
    assert config.env == (("A", "1,2"), ("B", "3"))


# ---------------------------------------------------------------------- directories and paths


def test_the_directory_is_known_by_the_name_that_people_use(own_process: Path) -> None:
    (own_process / "one").mkdir()
    (own_process / "current").symlink_to("one")
    os.chdir(own_process / "current")
    os.environ["PWD"] = str(own_process / "current")
    assert files.logical_directory() == str(own_process / "current")
    for other in (str(own_process), "current", "", str(own_process / "nowhere")):  # what some other program has left
        os.environ["PWD"] = other
        assert files.logical_directory() == str(own_process / "one")


def test_a_directory_is_entered_by_its_name_again(own_process: Path) -> None:
    for release in ("one", "two"):
        (own_process / release).mkdir()
    link = own_process / "current"
    link.symlink_to("one")
    os.chdir(link)
    os.environ["PWD"] = str(link)
    prepare_process(Config())
    link.unlink()
    link.symlink_to("two")
    assert Path.cwd() == own_process / "one"
    prepare_process(Config())
    assert Path.cwd() == own_process / "two"
    assert files.home() == str(link)


def test_paths_are_made_absolute(own_process: Path) -> None:
    argv = ["shop:app", "--pid", "a.pid", "--access-logfile", "logs/a", "--app-dir", "./src", "--ssl-certfile", "c.pem"]
    argv += ["--ssl-sni", "a.example=a.pem,a.key,b.example=/b.pem", "--bind", "unix:a.sock,127.0.0.1:0"]
    here = str(own_process)
    assert prepare_process(load([*argv, "--chdir", "."], {})).pid == f"{here}/a.pid"
    config = prepare_process(load([*argv, "--reload-dir", "src,/lib"], {}))
    assert (config.pid, config.access_logfile, config.error_logfile) == (f"{here}/a.pid", f"{here}/logs/a", "-")
    assert (config.app_dir, config.ssl_certfile, config.ssl_keyfile) == (f"{here}/src", f"{here}/c.pem", None)
    assert config.ssl_sni == (("a.example", f"{here}/a.pem", f"{here}/a.key"), ("b.example", "/b.pem", ""))
    assert [str(address) for address in config.addresses] == [f"unix:{here}/a.sock", "127.0.0.1:0"]
    assert config.reload_dir == (f"{here}/src", "/lib")
    assert prepare_process(config) is config


RELATIVE = ["--pid", "pid", "--access-logfile", "access", "--error-logfile", "error", "--uds", "a.sock"]


@pytest.mark.slow
@pytest.mark.parametrize("way", [[], ["--workers", "1"], ["--workers", "1", "--preload"]])
def test_an_application_that_changes_the_directory_changes_no_path(tmp_path: Path, way: list[str]) -> None:
    where = tmp_path / "where"
    where.mkdir()
    (where / "moves.py").write_text("import os\nos.chdir('/')\nfrom plain import asgi\n")
    environ = {"PYTHONPATH": f"{ROOT}{os.pathsep}{APPS}"}
    with Running("moves:asgi", *way, *RELATIVE, cwd=where, environ=environ) as server:
        server.messages.wait("bridge: serving")
        path = str(where / "a.sock")
        assert get(path)[0] == 200
        for name in ("access", "error"):
            (where / name).rename(where / f"{name}.1")
        server.signal("SIGUSR1")
        while not (where / "error").exists() or not (where / "access").exists():
            time.sleep(0.01)
        if way:
            server.signal("SIGHUP")
            while "Reloaded" not in (where / "error").read_text():
                time.sleep(0.01)
        assert get(path)[0] == 200
        assert server.end() == 0
        left = {name for name in os.listdir(where) if name != "__pycache__"}
        assert left == {"access", "access.1", "error", "error.1", "moves.py"}


@pytest.mark.slow
@pytest.mark.parametrize("way", [["--workers", "1"], ["--workers", "2"]])
def test_a_release_behind_a_link_is_taken_at_a_reload(tmp_path: Path, way: list[str]) -> None:
    for release in ("one", "two"):
        (tmp_path / release).mkdir()
        (tmp_path / release / "released.py").write_text(
            "import os\nplace = os.getcwd().encode()\n"
            "def app(environ, start_response):\n    start_response('200 OK', [('Content-Length', str(len(place)))])\n"
            "    return [place]\n"
        )
    link = tmp_path / "current"
    link.symlink_to("one")
    with Running("released:app", *way, cwd=link, environ={"PWD": str(link)}) as server:
        address = server.address()
        assert get(address)[2].decode() == str(tmp_path / "one")
        (tmp_path / "next").symlink_to("two")
        (tmp_path / "next").rename(link)
        server.signal("SIGHUP")
        server.messages.wait("Reloaded")
        assert get(address)[2].decode() == str(tmp_path / "two")
        assert server.end() == 0


@pytest.mark.slow
@pytest.mark.skipif(not files.is_root(), reason="only root can become another user")
@pytest.mark.parametrize("way", [[], ["--workers", "1"], ["--workers", "1", "--preload"]])
def test_a_directory_that_the_later_user_may_not_enter(tmp_path: Path, way: list[str]) -> None:
    where, apps = tmp_path / "roots", Path(tempfile.mkdtemp())
    where.mkdir(mode=0o700)
    apps.chmod(0o755)
    (apps / "stays.py").write_text(
        "import os, subprocess\nplace = os.getcwd().encode()\n"
        "subprocess.run(['true'], check=True, cwd='.')\n"
        "def app(environ, start_response):\n    start_response('200 OK', [('Content-Length', str(len(place)))])\n"
        "    return [place]\n"
    )
    try:
        argv = ["run", "stays:app", *way, "--user", "nobody", "--app-dir", str(apps), "--port", "0"]
        with Running(command=[sys.executable, "-c", IMPORTED, *argv], cwd=where) as server:
            assert get(server.address())[2] == b"/"
            assert f"This user may not enter {where}" in server.messages.text
            assert server.end() == 0
    finally:
        shutil.rmtree(apps)


def test_a_socket_with_a_long_path_is_bound_from_where_its_path_is_short(own_process: Path) -> None:
    deep = own_process / ("d" * 100)
    deep.mkdir()
    os.chdir(deep)
    sock, inode = bind_unix(str(deep / "a.sock"), 0o600, 1)
    assert inode is not None
    assert (deep / "a.sock").is_socket()
    sock.close()
    os.chdir("/")
    with pytest.raises(OSError, match="path too long"):
        bind_unix(str(deep / "b.sock"), 0o600, 1)
