"""What a child that the application forks has of the server: nothing. What a worker has of its master's application."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bridge import forks
from tests.support.running import PATIENCE, REPOSITORY, Client, Running, get, session
from tests.support.ways import in_each_way, ways

WAYS = ways(1)
each_way = in_each_way(1)

#: Answers with what `view(path)` returns, in a thread (WSGI) or on the loop (ASGI).
WSGI = """
def app(environ, start_response):
    text = str(view(environ["PATH_INFO"][1:])).encode()
    start_response("200 OK", [("Content-Length", str(len(text)))])
    return [text]
"""
ASGI = """
async def app(scope, receive, send):
    if scope["type"] != "http":
        raise RuntimeError
    text = str(view(scope["path"][1:])).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(text))]})
    await send({"type": "http.response.body", "body": text})
"""
each_interface = pytest.mark.parametrize("interface", [WSGI, ASGI], ids=["WSGI", "ASGI"])


def serve(where: Path, code: str, way: list[str], *options: str) -> Running:
    (where / "forking.py").write_text(code)
    return Running("forking:app", "--app-dir", str(where), *way, *options)


CHILDREN = """
import multiprocessing, os, signal, subprocess, sys, time
fork = multiprocessing.get_context("fork")

def view(what):
    if what == "process":
        child = fork.Process(target=time.sleep, args=(60,))
        child.start()
        time.sleep(0.2)
        child.terminate()
        child.join(5)
        return child.exitcode
    if what == "pool":
        with fork.Pool(2) as pool:
            found = pool.map(abs, [-1, -2])
        return found
    if what == "subprocess":
        return subprocess.run([sys.executable, "-c", "import signal; print(signal.getsignal(signal.SIGTERM) == 0)"],
                              capture_output=True, check=True).stdout.strip().decode()
    if what == "signals":
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            names = ("SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGCHLD")
            usual = all(signal.getsignal(getattr(signal, name)) == signal.SIG_DFL for name in names)
            usual = usual and signal.getsignal(signal.SIGINT) is signal.default_int_handler
            os.write(write, str((usual, signal.set_wakeup_fd(-1))).encode())
            os._exit(0)
        os.waitpid(pid, 0)
        return os.read(read, 100).decode()
    if what in ("exit", "raise", "string"):
        pid = os.fork()
        if pid == 0:
            if what == "raise":
                raise ValueError("in the child")
            sys.exit(7 if what == "exit" else "a word")
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if what == "loop":
        pid = os.fork()
        if pid == 0:
            import asyncio
            async def main():
                await asyncio.sleep(0.01)
                return 5
            os._exit(asyncio.run(main()))
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if what == "stays":
        pid = os.fork()
        if pid == 0:
            time.sleep(600)
            os._exit(0)
        return pid
    return os.getpid()
"""


@pytest.mark.slow
@each_way
@each_interface
def test_a_child_behaves_as_outside_of_a_server(tmp_path: Path, way: list[str], interface: str) -> None:
    with serve(tmp_path, CHILDREN + interface, way) as server:
        address = server.address()
        pid = get(address)[2]
        answers = {
            "process": b"-15",
            "pool": b"[1, 2]",
            "subprocess": b"True",
            "signals": b"(True, -1)",
            "exit": b"7",
            "raise": b"1",
            "string": b"1",
            "loop": b"5",
        }
        assert {path: get(address, f"/{path}")[2] for path in answers} == answers
        assert get(address)[2] == pid  # the server has not been ended by its child's signals
        assert "ValueError: in the child" in server.messages.text
        assert server.end() == 0


@pytest.mark.slow
@each_way
@each_interface
@pytest.mark.parametrize("listen", ["tcp", "unix"])
def test_a_child_holds_no_connection_and_no_port(tmp_path: Path, way: list[str], interface: str, listen: str) -> None:
    path = tmp_path / "a.sock"
    where = ["--uds", str(path)] if listen == "unix" else ["--port", "0"]
    with serve(tmp_path, CHILDREN + interface, way, *where) as server:
        server.messages.wait("bridge: serving")
        address = str(path) if listen == "unix" else server.address()
        with Client(address) as open_one, Client(address) as client:
            open_one.get()
            child = int(client.get("/stays", "Connection: close")[2])
            assert client.closed()
            sockets = [os.readlink(f"/proc/{child}/fd/{name}") for name in os.listdir(f"/proc/{child}/fd")]
            own = [name for name in sockets if name.startswith("socket:")]
            status = server.end_of_first()
            assert status == 0
            assert open_one.closed()
        os.kill(child, signal.SIGKILL)
        assert len(own) <= 4, own  # a loop wakes itself by a pair of sockets, and so does a watcher of signals
        if listen == "tcp":
            with socket.create_server(address):
                pass
        else:
            assert not path.exists()


PRELOADED = """
import atexit, multiprocessing, os, tempfile, weakref
def note(text):
    with open({file!r}, "a") as file:
        file.write(f"{{text}} {{os.getpid()}}\\n")
directory = tempfile.TemporaryDirectory()
atexit.register(note, "atexit")
class Thing:
    pass
thing = Thing()
weakref.finalize(thing, note, "finalize")
helper = multiprocessing.get_context("fork").Process(target=__import__("time").sleep, args=(600,), daemon=True)
helper.start()
def view(path):
    if path == "own":
        atexit.register(note, "own")
    return f"{{os.path.isdir(directory.name)}} {{helper.pid}}"
"""


@pytest.mark.slow
def test_what_belongs_to_the_master_lives_as_long_as_the_master(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    with serve(tmp_path, PRELOADED.format(file=str(notes)) + WSGI, ["--workers", "1", "--preload"]) as server:
        address = server.address()
        helper = get(address, "/own")[2].split()[1]
        (worker,) = server.current().values()
        os.kill(worker, signal.SIGTERM)
        server.messages.wait(rf"pid {worker}\) ended with status 0")
        assert notes.read_text() == f"own {worker}\n"
        assert get(address)[2].split() == [b"True", helper]
        assert int(helper) in session(server.pid)
        assert server.end() == 0
        assert sorted(notes.read_text().splitlines()) == sorted(
            [f"own {worker}", f"atexit {server.pid}", f"finalize {server.pid}"]
        )
        assert "Traceback" not in server.messages.text


@pytest.mark.slow
@pytest.mark.parametrize("way", [["--workers", "2"], ["--workers", "2", "--preload"]], ids=["workers", "preload"])
def test_what_a_library_has_gathered_is_sent_at_the_end_of_each_worker(tmp_path: Path, way: list[str]) -> None:
    notes = tmp_path / "notes"
    library = (
        f"import os\ndef flush(timeout):\n    open({str(notes)!r}, 'a').write(f'{{os.getpid()}} {{timeout}}\\n')\n"
    )
    (tmp_path / "sentry_sdk.py").write_text(library)
    # As a wrapper does, which imports it before the server begins.
    (tmp_path / "sitecustomize.py").write_text("import sentry_sdk\n")
    (tmp_path / "forking.py").write_text("def view(path):\n    return 1\n" + WSGI)
    environ = {"PYTHONPATH": f"{tmp_path}:{REPOSITORY}"}
    with Running("forking:app", *way, environ=environ) as server:
        assert get(server.address())[0] == 200
        server.messages.wait("is ready", 2)
        workers = server.current().values()
        assert server.end() == 0
        assert sorted(notes.read_text().splitlines()) == sorted(f"{worker} 2.0" for worker in workers)
        assert "Traceback" not in server.messages.text


@pytest.mark.slow
def test_a_child_of_the_import_has_nothing_of_the_master(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    code = "import os, time\nchild = os.fork()\nif child == 0:\n    time.sleep(600)\n"
    with serve(
        tmp_path, code + "def view(path):\n    return child\n" + WSGI, WAYS["preload"], "--uds", str(path)
    ) as server:
        server.messages.wait("bridge: serving")
        child = int(get(str(path))[2])
        sockets = [os.readlink(f"/proc/{child}/fd/{name}") for name in os.listdir(f"/proc/{child}/fd")]
        assert not [name for name in sockets if name.startswith("socket:")]
        os.kill(child, signal.SIGTERM)  # its usual action
        end = time.monotonic() + PATIENCE
        while child in session(server.pid) and time.monotonic() < end:
            time.sleep(0.01)
        assert child not in session(server.pid)
        assert get(str(path))[0] == 200
        assert server.end() == 0


@pytest.mark.slow
@each_way
def test_threads_of_the_import_are_named(tmp_path: Path, way: list[str]) -> None:
    code = "import threading\nend = threading.Event()\n"
    code += "threading.Thread(target=end.wait, name='kept', daemon=True).start()\n"
    code += "def view(path):\n    return 'kept' in {thread.name for thread in threading.enumerate()}\n"
    with serve(tmp_path, code + WSGI, way) as server:
        preload = "--preload" in way
        assert get(server.address())[2] == (b"False" if preload else b"True")
        assert ("which do not run in the workers: 'kept';" in server.messages.text) == preload
        assert server.end() == 0


@pytest.mark.slow
def test_a_program_does_not_go_on_in_its_workers(tmp_path: Path) -> None:
    code = (
        "import bridge, os, atexit\n"
        f"def note(text):\n    open({str(tmp_path / 'notes')!r}, 'a').write(f'{{text}} {{os.getpid()}}\\n')\n"
        "def app(environ, start_response):\n    start_response('200 OK', [])\n    return [b'hello']\n"
        "atexit.register(note, 'atexit')\n"
        "try:\n    bridge.run(app, port=0, workers=2)\nfinally:\n    note('finally')\n"
    )
    with Running(command=[sys.executable, "-c", code]) as server:
        get(server.address())
        assert server.end() == 0
    assert (tmp_path / "notes").read_text() == f"finally {server.pid}\natexit {server.pid}\n"


# ---------------------------------------------------------------------- the module


def in_python(code: str) -> str:
    """Run *code* in an interpreter of its own: what it forks does not take the tests along. Return what it prints."""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=PATIENCE)
    return found.stdout


def test_functions_are_called_in_children_of_others_only_and_the_last_one_first() -> None:
    out = in_python(
        "import os\nfrom bridge import forks\n"
        "forks.add(lambda: print('one'))\nforks.add(lambda: 1 / 0)\n"
        "gone = forks.add(lambda: print('never'))\nforks.remove(gone)\nforks.remove(gone)\n"
        "forks.add(lambda: print('two', flush=True))\n"
        "for make in (os.fork, forks.fork):\n"
        "    pid = make()\n"
        "    if pid == 0:\n        print('child', flush=True)\n        os._exit(0)\n"
        "    os.waitpid(pid, 0)\n"
    )
    assert out.split() == ["two", "one", "child", "child"]


def test_a_descriptor_that_is_dropped_leads_nowhere_and_stays_taken() -> None:
    one, other = socket.socketpair()
    number = one.fileno()
    forks.drop([number, -1, 9999])
    assert other.recv(1) == b""
    assert os.readlink(f"/proc/self/fd/{number}") == "/dev/null"
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(9999)
    one.close()
    other.close()


def test_connections_are_found_by_the_port_that_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_server(("127.0.0.1", 0)) as another:
        client = socket.create_connection(listener.getsockname())
        served, _ = listener.accept()
        numbers = (listener.fileno(), served.fileno())
        forks.drop_connections([listener.getsockname()])
        assert client.recv(1) == b""
        assert [os.readlink(f"/proc/self/fd/{number}") for number in numbers] == ["/dev/null"] * 2
        assert re.match("socket:", os.readlink(f"/proc/self/fd/{another.fileno()}"))
        client.close()
        served.close()


def test_nothing_ends_in_a_process_that_was_not_forked() -> None:
    forks.end_if_forked(SystemExit(3))


def test_a_signal_that_comes_before_the_handlers_are_reset_has_its_usual_action() -> None:
    out = in_python(
        "import os, signal\nfrom bridge import forks\nfrom bridge.serving.loops import Signals\n"
        "with Signals([signal.SIGTERM]):\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"  # the server's own: nothing
        "    forks._in_child.clear()\n"  # the child has not come so far
        "    pid = os.fork()\n"
        "    if pid == 0:\n        os.kill(os.getpid(), signal.SIGTERM)\n        os._exit(0)\n"
        "    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))\n"
    )
    assert out == "-15\n"


def test_the_parent_does_not_hear_of_a_signal_of_its_childs() -> None:
    """A terminal sends Ctrl-C to all. One that came to a new worker looked like the second one, which cuts at once."""
    read, write = os.pipe2(os.O_NONBLOCK)
    handler = signal.signal(signal.SIGUSR1, lambda number, frame: None)
    before = signal.set_wakeup_fd(write)
    try:
        pid = forks.fork()
        if pid == 0:
            try:
                signal.raise_signal(signal.SIGUSR1)
            finally:
                os._exit(0)
        os.waitpid(pid, 0)
        with pytest.raises(BlockingIOError):
            os.read(read, 1)
        signal.raise_signal(signal.SIGUSR1)
        assert os.read(read, 1) == bytes([signal.SIGUSR1])
    finally:
        signal.set_wakeup_fd(before)
        signal.signal(signal.SIGUSR1, handler)
        os.close(read)
        os.close(write)


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_a_child_takes_no_socket_out_of_what_its_parent_watches(loop: str) -> None:
    """As it does when it closes what it has inherited: the kernel has one list for both."""
    out = in_python(
        "import os, socket\nfrom bridge.core.net.readiness import READABLE, Readiness\n"
        "from bridge.serving.loops import process_loop\n"
        f"with process_loop({loop!r}) as loop:\n"
        "    one, other = socket.socketpair()\n"
        "    watched = Readiness.of(loop)\n"
        "    watched.add(one.fileno(), READABLE, lambda events: (print('heard'), loop.stop()))\n"
        "    pid = os.fork()\n"
        "    if pid == 0:\n"
        "        try:\n            watched._epoll.unregister(one.fileno())\n"
        "        except OSError:\n            pass\n"
        "        os._exit(0)\n"
        "    os.waitpid(pid, 0)\n"
        "    other.send(b'x')\n"
        "    loop.call_later(20, loop.stop)\n"
        "    loop.run_forever()\n"
        "    watched.remove(one.fileno())\n"
    )
    assert out.startswith("heard\n")  # perhaps once more, before the loop stops
