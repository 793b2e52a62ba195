"""Workers that die, do not start, or stand still: what it costs, what is said, what follows."""

from __future__ import annotations

import os
import re
import signal
import threading
from pathlib import Path

import pytest

from tests.supervisor.test_master import path_of
from tests.support.running import PATIENCE, Client, Running, get, gone

pytestmark = pytest.mark.slow

WORKER_1 = ["--workers", "1"]


def test_a_worker_that_is_killed_costs_the_requests_that_it_has() -> None:
    with Running("plain:asgi", "--workers", "2", "--no-access-log") as server:
        address = server.address()
        pids = server.workers()
        victim = min(pids)
        clients: dict[int, list[Client]] = {pid: [] for pid in pids}
        for _ in range(100):
            client = Client(address)
            mine = clients[int(client.get()[2])]
            mine.append(client)
            if min(map(len, clients.values())) >= 4:
                break
        assert min(map(len, clients.values())) >= 4
        try:
            asking = {pid: mine[:2] for pid, mine in clients.items()}
            idle = {pid: mine[2:] for pid, mine in clients.items()}
            for client in (*asking[victim], *asking[max(pids)]):
                client.send("/sleep/1")
            for pid in pids:  # answered later than the others were taken
                assert idle[pid][0].get()[0] == 200
            os.kill(victim, signal.SIGKILL)
            for client in asking[victim]:
                with pytest.raises(OSError):
                    client.read()
            for client in asking[max(pids)]:
                assert client.read()[2] == str(max(pids)).encode()
            for client in idle[max(pids)]:
                assert client.get()[2] == str(max(pids)).encode()
            server.messages.wait("is ready", 3)
            assert len({get(address)[2] for _ in range(50)}) == 2
        finally:
            for mine in clients.values():
                for client in mine:
                    client.sock.close()
        assert server.end() == 0


def test_the_master_survives_whatever_comes_first() -> None:
    """News of a worker's end come as a signal and as the end of its line, often in one turn."""
    with Running("plain:asgi", "--workers", "4", "--no-access-log") as server:
        server.address()
        for number in range(4):
            for pid in server.workers():
                os.kill(pid, signal.SIGKILL)
            server.messages.wait("was killed by SIGKILL", 4 * (number + 1))
            server.messages.wait("is ready", 4 * (number + 2), timeout=60)
            if number == 1:
                break  # the delays grow
        assert server.end() == 0


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import os; os._exit(0)\n", r"worker \d ended with status 0 before it could serve"),
        ("import os; os._exit(7)\n", r"worker \d ended with status 7 before it could serve"),
        ("import os; os.kill(os.getpid(), 9)\n", r"worker \d was killed by SIGKILL before it could serve"),
        ("import sys; sys.exit(5)\n", r"ending:app: importing module 'ending' raised SystemExit: 5"),
        (
            "async def app(scope, receive, send):\n    import os\n    await receive()\n    os._exit(7)\n",
            r"worker \d ended with status 7 before it could serve",
        ),
    ],
)
def test_a_worker_that_ends_instead_of_starting_is_the_end(tmp_path: Path, code: str, reason: str) -> None:
    (tmp_path / "ending.py").write_text(code)
    with Running("ending:app", "--workers", "2", "--app-dir", str(tmp_path)) as server:
        assert server.end("") == 3
        lines = [line for line in server.messages.lines if line.startswith("bridge: ")]
        assert len(lines) == 1
        assert re.fullmatch(f"bridge: {reason}", lines[0])
        assert gone(server.pid)


def test_a_lone_worker_that_dies_soon_is_started_again_soon(tmp_path: Path) -> None:
    (tmp_path / "dying.py").write_text(
        "import asyncio, os\n"
        "async def app(scope, receive, send):\n"
        "    await receive()\n"
        "    asyncio.get_running_loop().call_later(0.05, os._exit, 9)\n"
        "    await send({'type': 'lifespan.startup.complete'})\n"
        "    await receive()\n"
    )
    with Running("dying:app", "--workers", "1", "--app-dir", str(tmp_path)) as server:
        server.messages.wait("Worker 0 starts again in 0.05 s", 2)
        assert server.messages.text.count("ended with status 9") >= 3
        assert server.end() == 0


@pytest.mark.parametrize("app", ["plain:asgi", "plain:wsgi"])
def test_c_code_that_keeps_the_interpreter_to_itself_is_shown_and_replaced(app: str) -> None:
    with Running(app, *WORKER_1, "--timeout-worker", "0.8") as server:
        address = server.address()
        with Client(address) as client:
            client.send("/regex/60")
            server.messages.wait("has stood still for 0.8 s and is replaced")
            server.messages.wait(r'plain.py", line \d+ in hold_the_lock')
            server.messages.wait("is ready", 2)
            assert client.closed()
        assert get(address)[0] == 200
        assert server.end() == 0


def test_c_code_is_shown_without_a_master_too() -> None:
    with Running("plain:asgi", "--timeout-worker", "0.5") as server:
        with Client(server.address()) as client:
            client.send("/regex/60")
            server.messages.wait(r'plain.py", line \d+ in hold_the_lock')


def test_a_stopped_worker_is_replaced() -> None:
    with Running("plain:asgi", "--workers", "2", "--timeout-worker", "0.8") as server:
        address = server.address()
        victim = min(server.workers())
        os.kill(victim, signal.SIGSTOP)
        server.messages.wait(rf"\(pid {victim}\) has stood still")
        server.messages.wait("is ready", 3)
        server.messages.wait(rf"\(pid {victim}\) was killed by SIGKILL")
        assert get(address)[0] == 200
        assert server.end() == 0


def test_workers_that_have_served_enough_are_replaced_one_by_one() -> None:
    from tests.supervisor.test_master import load

    argv = ["--limit-max-requests", "40", "--limit-max-requests-jitter", "20", "--workers-lifetime", "1s"]
    with Running("plain:asgi", "--workers", "2", "--no-access-log", *argv, "--workers-lifetime-jitter", "1s") as server:
        with load(server.address(), 4) as clients:
            server.messages.wait("has served its time", 6)
        assert clients.faults == []
        assert len(clients.pids) >= 5
        assert server.end() == 0


@pytest.mark.parametrize("how", ["code", "settings"])
def test_a_new_master_that_cannot_start_is_no_harm(tmp_path: Path, how: str) -> None:
    from tests.supervisor.test_master import load

    module, config = tmp_path / "changing.py", tmp_path / "bridge.toml"
    path, pid = tmp_path / "a.sock", tmp_path / "pid"
    module.write_text("from plain import asgi\n")
    good = f'bind = ["127.0.0.1:0", "unix:{path}"]\nworkers = 2\npid = "{pid}"\naccess_log = false\n'
    config.write_text(good)
    with Running("changing:asgi", "--config", str(config), environ=path_of(tmp_path)) as server:
        with load(server.address(), 2) as clients:
            if how == "code":
                module.write_text("1 / 0\n")
            else:
                config.write_text("workers = many\n")
            server.signal("SIGUSR2")
            server.messages.wait("has failed; this one goes on")
            assert get(str(path))[0] == 200
            assert pid.read_text() == f"{server.pid}\n"
            module.write_text("from plain import asgi\n")
            config.write_text(good)
            server.signal("SIGUSR2")  # and another one may follow
            server.messages.wait("this one retires")
            assert server.process.wait(PATIENCE) == 0
        assert clients.faults == []
        new = int(pid.read_text())
        assert new != server.pid
        assert get(str(path))[0] == 200
        os.kill(new, signal.SIGTERM)
        server.messages.join()
        assert not path.exists()
        assert not pid.exists()


def test_an_old_master_that_ends_early_leaves_the_socket_to_the_new_one(tmp_path: Path) -> None:
    gate, path = tmp_path / "gate", tmp_path / "a.sock"
    module = tmp_path / "changing.py"
    module.write_text("from plain import asgi\n")
    with Running("changing:asgi", *WORKER_1, "--uds", str(path), environ=path_of(tmp_path)) as server:
        server.messages.wait("bridge: serving")
        os.mkfifo(gate)
        module.write_text(f"import os\nos.write(2, b'here\\n')\nopen({str(gate)!r}).close()\nfrom plain import asgi\n")
        server.signal("SIGUSR2")
        server.messages.wait("^here")
        assert server.end_of_first() == 0
        assert path.exists()
        with Client(str(path)) as client:  # waits until there is somebody
            client.send()
            with open(gate, "w"):
                assert client.read()[0] == 200


@pytest.mark.parametrize("where", ["import", "lifespan"])
def test_workers_without_a_master_end_though_they_are_not_ready(tmp_path: Path, where: str) -> None:
    hang = "import os, time\nos.write(2, b'here\\n')\ntime.sleep(60)\n"
    if where == "lifespan":
        hang = (
            f"async def app(scope, receive, send):\n    await receive()\n    {hang.replace(chr(10), chr(10) + '    ')}"
        )
    (tmp_path / "hanging.py").write_text(hang)
    with Running("hanging:app", "--workers", "2", "--app-dir", str(tmp_path)) as server:
        server.messages.wait("^here", 2)
        server.signal("SIGKILL")
        server.messages.join()  # they held the other end
        assert gone(server.pid)


def test_a_time_that_jumps_is_no_time(tmp_path: Path) -> None:
    """Deadlines are counted on the monotonic clock: what time() says may change at will."""
    (tmp_path / "jumping.py").write_text(
        "import time\n"
        "from plain import asgi\n"
        "real = time.time\n"
        "jumps = iter([0, 1e6, -1e6, 5e8])\n"
        "time.time = lambda: real() + next(jumps, -5e8)\n"
    )
    with Running("jumping:asgi", *WORKER_1, "--timeout-worker", "1", environ=path_of(tmp_path)) as server:
        address = server.address()
        for _ in range(4):
            with Client(address) as client:
                assert client.get("/sleep/0.4")[0] == 200
                assert client.get()[0] == 200
        assert "stood still" not in server.messages.text
        assert server.end() == 0


def test_a_stop_during_the_start_of_many_leaves_no_process() -> None:
    for delay in (0.0, 0.05, 0.1):
        with Running("plain:asgi", "--workers", "8") as server:
            server.messages.wait("is ready")
            threading.Event().wait(delay)
            assert server.end() == 0
            assert gone(server.pid)


def test_a_worker_that_is_not_ready_opens_its_logs_anew_when_it_is(tmp_path: Path) -> None:
    gate, log = tmp_path / "gate", tmp_path / "access.log"
    module = tmp_path / "changing.py"
    module.write_text("from plain import asgi\n")
    argv = ["changing:asgi", *WORKER_1, "--access-logfile", str(log)]
    with Running(*argv, environ=path_of(tmp_path)) as server:
        address = server.address()
        os.mkfifo(gate)
        module.write_text(f"import os\nos.write(2, b'here\\n')\nopen({str(gate)!r}).close()\nfrom plain import asgi\n")
        server.signal("SIGHUP")
        server.messages.wait("^here")
        log.rename(tmp_path / "old.log")
        server.signal("SIGUSR1")
        server.messages.wait("Log files reopened")
        with open(gate, "w"):
            server.messages.wait("Reloaded: 1 worker")
        get(address, "/after")
        assert server.end() == 0
        assert "/after" in log.read_text()
        assert "SIGIO" not in server.messages.text
