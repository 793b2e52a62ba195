"""One process: start, stop, exit statuses, and what it says."""

from __future__ import annotations

import json
import os
import pwd
import re
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.running import APPS, REPOSITORY, Client, Running, get

pytestmark = pytest.mark.slow


def test_it_says_where_and_ends_with_0() -> None:
    with Running("plain:asgi") as server:
        address = server.address()
        assert get(address)[2].decode() == str(server.pid)
        assert server.end() == 0
        assert server.messages.lines[0] == f"bridge: serving plain:asgi (ASGI) on http://{address[0]}:{address[1]}"
        assert re.search(r"INFO Stopping on SIGTERM$", server.messages.text, re.MULTILINE)
        assert re.fullmatch(r'127\.0\.0\.1 - - \[.*\] "GET / HTTP/1\.1" 200 \d+ \d\.\d{6}', server.output.lines[0])


def test_a_request_in_progress_is_finished_and_named() -> None:
    with Running("plain:asgi") as server:
        address = server.address()
        with Client(address) as idle, Client(address) as client:
            idle.get()
            client.send("/sleep/1")
            with Client(address) as other:  # a later request is answered: the first one is in progress
                other.get()
            server.signal("SIGTERM")
            status, fields, content = client.read()
            assert (status, fields["connection"], content.decode()) == (200, "close", str(server.pid))
            assert idle.closed()
        assert server.end("") == 0
        assert "Stopping: waiting for 1 request (GET /sleep/1), for 30 s at most" in server.messages.text


def test_a_second_signal_cuts() -> None:
    with Running("plain:asgi") as server:
        address = server.address()
        with Client(address) as client:
            client.send("/sleep/60")
            get(address)
            server.signal("SIGINT")
            server.messages.wait("waiting for 1 request")
            server.signal("SIGINT")
            assert client.closed()
        assert server.end("") == 0
        assert "1 connection cut off" in server.messages.text


def test_the_time_for_a_graceful_stop_is_limited() -> None:
    with Running("plain:asgi", "--timeout-graceful-shutdown", "0.2") as server:
        address = server.address()
        with Client(address) as client:
            client.send("/sleep/60")
            get(address)
            server.signal("SIGTERM")
            assert client.closed()
        assert server.end("") == 0


def test_quit_does_not_wait() -> None:
    with Running("plain:asgi") as server:
        address = server.address()
        with Client(address) as client:
            client.send("/sleep/60")
            get(address)
            server.signal("SIGQUIT")
            assert client.closed()
        assert server.end("") == 0


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_either_loop(loop: str) -> None:
    with Running("plain:wsgi", "--loop", loop) as server:
        assert get(server.address())[0] == 200
        assert server.end() == 0


def test_a_port_in_use_is_status_1() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with Running("plain:asgi", "--port", str(port)) as server:
            assert server.end("") == 1
            assert server.messages.lines == [
                f"bridge: cannot listen on 127.0.0.1:{port}: Address already in use;"
                " stop what listens there, or choose another address"
            ]


FAILURES = [
    (["nowhere:app"], 3, "bridge: nowhere:app: there is no module 'nowhere'"),
    (["plain:asgj"], 3, "bridge: plain:asgj: module 'plain' ("),
    (["plain:refuses"], 4, "bridge: plain:refuses: lifespan startup failed: no database"),
    (["plain:asgi", "--host", "name.invalid"], 1, "bridge: cannot listen on name.invalid:0: "),
    (["plain:asgi", "--fd", "0"], 1, "bridge: cannot listen on fd://0: descriptor 0: "),
    (
        ["plain:asgi", "--ssl-certfile", "none.pem"],
        2,
        f"bridge: --ssl-certfile {APPS}/none.pem: No such file or directory",
    ),
    (["plain:asgi", "--access-logformat", "%(z)s"], 2, "bridge: --access-logformat: unknown atom at '%(z)s'"),
    (["plain:asgi", "--access-logfile", "/none/a.log"], 2, "bridge: --access-logfile /none/a.log: No such file"),
    (["plain:asgi", "--error-logfile", "/none/a.log"], 2, "bridge: --error-logfile /none/a.log: No such file"),
    (["plain:asgi", "--log-config", "none.toml"], 2, f"bridge: --log-config {APPS}/none.toml: No such file"),
    (["plain:asgi", "--pid", "/none/a.pid"], 2, "bridge: --pid /none/a.pid: /none is not a directory"),
    (["plain:asgi", "--user", "no-such-user"], 2, "bridge: --user: there is no user 'no-such-user'"),
    (["plain:asgi", "--group", "no-such-group"], 2, "bridge: --group: there is no group 'no-such-group'"),
    (["plain:asgi", "--bind", "systemd"], 1, "bridge: cannot listen on systemd: systemd has not passed sockets"),
]


@pytest.mark.parametrize(("argv", "status", "message"), FAILURES, ids=lambda value: str(value))
@pytest.mark.parametrize(
    "workers", [[], pytest.param(["--workers", "2"], marks=pytest.mark.wide)], ids=["alone", "master"]
)
def test_a_start_that_fails_says_why_in_one_line(
    workers: list[str], argv: list[str], status: int, message: str
) -> None:
    with Running(*argv, *workers) as server:
        assert server.end("") == status
        lines = [line for line in server.messages.lines if line.startswith("bridge: ")]
        assert len(lines) == 1
        assert lines[0].startswith(message)
        assert "Traceback" not in server.messages.text


def test_unix_socket_mode_and_removal(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    with Running("plain:asgi", "--uds", str(path), "--uds-permissions", "600") as server:
        assert f"on unix:{path}" in server.messages.wait("serving")
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert get(str(path))[0] == 200
        with Running("plain:asgi", "--uds", str(path)) as second:
            assert second.end("") == 1
            assert "Address already in use" in second.messages.text
        assert server.end() == 0
        assert not path.exists()


def test_several_addresses(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    with Running("plain:asgi", "-b", "127.0.0.1:0", "-b", f"unix:{path}", "-b", "[::1]:0") as server:
        address = server.address()
        assert get(address)[2] == get(str(path))[2]
        assert re.search(r"http://\[::1\]:\d+", server.messages.text)


def test_an_inherited_socket() -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        with Running("plain:asgi", "--fd", str(sock.fileno()), pass_fds=(sock.fileno(),)) as server:
            assert server.address() == sock.getsockname()
            assert get(sock.getsockname())[0] == 200


def test_the_pid_file(tmp_path: Path) -> None:
    path = tmp_path / "bridge.pid"
    with Running("plain:asgi", "--pid", str(path)) as server:
        server.address()
        assert path.read_text() == f"{server.pid}\n"
        with Running("plain:asgi", "--pid", str(path)) as second:
            assert second.end("") == 2
            assert second.messages.lines == [f"bridge: --pid {path}: process {server.pid} is running"]
        assert server.end() == 0
        assert not path.exists()


@pytest.mark.parametrize("app", ["plain:asgi", "plain:wsgi", "tornado_style:callable_app", "tornado_style:delegate"])
def test_the_limit_of_requests_in_progress(app: str) -> None:
    with Running(app, "--limit-concurrency", "1") as server:
        address = server.address()
        with Client(address) as first, Client(address) as second:
            first.send("/sleep/0.7")
            server_answered = False
            while not server_answered:  # until the first is in progress, which takes a moment on a thread
                status, fields, _ = second.get("/")
                server_answered = status == 503
            assert fields["retry-after"] == "1"
            assert first.read()[0] == 200
            assert second.get("/")[0] == 200


def test_the_limit_of_connections() -> None:
    with Running("plain:asgi", "--limit-connections", "2") as server:
        address = server.address()
        with Client(address) as first, Client(address) as second:
            first.get()
            second.get()
            with Client(address) as third:
                third.send()
                third.sock.settimeout(0.3)
                with pytest.raises(TimeoutError):
                    third.read()
                first.sock.close()
                third.sock.settimeout(10)
                assert third.read()[0] == 200


def test_closed_output_stops_nobody() -> None:
    command = [
        "sh", "-c", 'exec "$@" >&- 2>&-', "sh", *Running.command("plain:asgi", "--uds", "a.sock")
    ]  # fmt: skip
    with Running(command=command) as server:
        path = APPS / "a.sock"
        try:
            assert patient_get(str(path))[0] == 200
            assert server.end() == 0
        finally:
            path.unlink(missing_ok=True)


def patient_get(path: str) -> tuple[int, dict[str, str], bytes]:
    """Ask until somebody listens: this server cannot say when it does."""
    end = time.monotonic() + 10
    while True:
        try:
            return get(path)
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.01)


def test_a_blocked_loop_is_shown() -> None:
    with Running("plain:asgi", "--timeout-worker", "0.5") as server:
        address = server.address()
        assert get(address, "/block/1")[0] == 200
        assert re.search(r'plain.py", line \d+ in stand_still', server.messages.text)
        assert server.end() == 0


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
def test_user_and_group() -> None:
    # In a process of its own, with everything imported before: not every interpreter can be read by everybody.
    code = (
        "import json, os\n"
        "from bridge.config import Config\n"
        "from bridge.serving.privileges import drop_privileges\n"
        "import grp, pwd\n"
        "drop_privileges(Config(user='nobody'))\n"
        "print(json.dumps([os.getresuid(), os.getresgid(), os.getgroups()]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, cwd=REPOSITORY)
    assert done.stderr == ""
    users, groups, others = json.loads(done.stdout)
    entry = pwd.getpwnam("nobody")
    assert set(users) == {entry.pw_uid}
    assert set(groups) == {entry.pw_gid}
    assert 0 not in others


@pytest.mark.parametrize("way", [[], ["--workers", "1"]], ids=["alone", "workers"])
def test_what_a_parent_has_done_to_signals_is_undone(tmp_path: Path, way: list[str]) -> None:
    (tmp_path / "asks.py").write_text(
        "import subprocess\n"
        "def app(environ, start_response):\n"
        "    text = str(subprocess.run(['sh', '-c', 'exit 7']).returncode).encode()\n"
        "    start_response('200 OK', [('Content-Length', str(len(text)))])\n    return [text]\n"
    )
    parent = (
        "import os, signal, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN);"
        "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGCHLD});"
        "os.execv(sys.argv[1], sys.argv[1:])"
    )
    command = Running.command("asks:app", "--app-dir", str(tmp_path), *way)
    with Running(command=[sys.executable, "-c", parent, *command]) as server:
        assert get(server.address())[2] == b"7"
        assert server.end() == 0


@pytest.mark.parametrize(
    ("way", "effect"),
    [
        ([], "SIGHUP: reopening log files"),
        (["--workers", "1", "--preload"], "Reloaded: 1 worker"),
    ],
    ids=["alone", "preload"],
)
def test_signals_during_the_import_take_effect_after_the_start(tmp_path: Path, way: list[str], effect: str) -> None:
    (tmp_path / "signals_itself.py").write_text(
        "import os, signal\n"
        "for name in ('SIGHUP', 'SIGHUP', 'SIGUSR1'):\n"
        "    os.kill(os.getpid(), getattr(signal, name))\n"
        "def app(environ, start_response):\n"
        "    start_response('200 OK', [])\n    return [b'served']\n"
    )
    with Running("signals_itself:app", "--app-dir", str(tmp_path), *way) as server:
        address = server.address()
        server.messages.wait(effect)
        assert get(address)[2] == b"served"
        assert server.end() == 0
    assert server.messages.text.count(effect) == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_user_may_be_a_number_without_an_entry() -> None:
    code = (
        "import os\nfrom bridge.config import Config\n"
        "from bridge.serving.privileges import drop_privileges, future_identity\n"
        "config = Config(user='54321')\n"
        "print(future_identity(config))\ndrop_privileges(config)\n"
        "print(os.getuid(), os.geteuid(), os.getgid(), os.getegid(), os.getgroups())\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], cwd="/", capture_output=True, text=True, check=True)
    assert ended.stdout.splitlines() == [
        "Identity(name='user 54321', uid=54321, gid=54321, groups=(54321,))",
        "54321 54321 54321 54321 [54321]",
    ]
