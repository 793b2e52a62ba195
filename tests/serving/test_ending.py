"""The end of a process comes in the time that there is, whatever the application does."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from pathlib import Path

import pytest

from tests.support.running import Client, Running, get, gone
from tests.support.ways import in_each_way, ways

pytestmark = pytest.mark.slow

WAYS = ways(2)
each_way = in_each_way(2)
alone_first = pytest.mark.parametrize(
    "way", [WAYS["uvloop"], *(pytest.param(way, marks=pytest.mark.wide) for way in list(WAYS.values())[1:])], ids=WAYS
)
alone = pytest.mark.parametrize("way", [WAYS["uvloop"], WAYS["asyncio"]], ids=["uvloop", "asyncio"])
#: Seconds beyond its time that a stop may take here: what the server needs, and what a busy machine needs.
MORE = 6.0

WSGI = """
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hello"]
"""
ASGI = """
async def app(scope, receive, send):
    if scope["type"] != "http":
        raise RuntimeError
    await hook(scope)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
    await send({"type": "http.response.body", "body": b"hello"})
"""


def serve(where: Path, code: str, way: list[str], *options: str) -> Running:
    (where / "ends.py").write_text(code)
    return Running("ends:app", "--app-dir", str(where), *way, *options)


IMPORTS = {
    "catches everything": "try:\n    time.sleep(30)\nexcept:\n    pass\n",
    "exits instead": "try:\n    time.sleep(30)\nexcept:\n    raise SystemExit(7)\n",
    "fails instead": "try:\n    time.sleep(30)\nexcept BaseException as exc:\n    raise ValueError('no') from exc\n",
    "never ends": "while True:\n    try:\n        time.sleep(0.1)\n    except BaseException:\n        pass\n",
    "has its own handler": "signal.signal(signal.SIGTERM, lambda *_: None)\ntime.sleep(30)\n",
    "waits outside of Python": "import ctypes\nsleep = ctypes.CDLL(None).sleep\nsleep(30)\nsleep(30)\n",
}


@pytest.mark.parametrize("way", [WAYS["uvloop"], WAYS["preload"]], ids=["alone", "preload"])
@pytest.mark.parametrize("code", IMPORTS.values(), ids=IMPORTS)
def test_a_wish_to_stop_during_the_import_is_not_lost(tmp_path: Path, way: list[str], code: str) -> None:
    start = "import os, signal, time\nos.write(2, b'importing\\n')\n"
    path, pid = tmp_path / "a.sock", tmp_path / "pid"
    with serve(tmp_path, start + code + WSGI, way, "--uds", str(path), "--pid", str(pid)) as server:
        server.messages.wait("^importing")
        began = time.monotonic()
        assert server.end() == 0
        assert time.monotonic() - began < 2 + MORE
        assert "serving" not in server.messages.text
        assert not path.exists()
        assert not pid.exists()
        assert gone(server.pid)


THREAD = "import threading, time\nthreading.Thread(target=time.sleep, args=(60,), name='kernel').start()\n"


@each_way
def test_threads_of_the_application_have_the_graceful_time(tmp_path: Path, way: list[str]) -> None:
    with serve(tmp_path, THREAD + WSGI, way, "--timeout-graceful-shutdown", "1") as server:
        get(server.address())
        began = time.monotonic()
        assert server.end() == 0
        assert 0.9 <= time.monotonic() - began < 1 + MORE
        assert re.search("Waiting for threads of the application: 'kernel', for .* at most", server.messages.text)
        assert re.search("Ending now, although .*\n  kernel", server.messages.text)
        assert "SIGKILL" not in server.messages.text


@alone
def test_a_thread_that_ends_in_time_is_waited_for(tmp_path: Path, way: list[str]) -> None:
    code = "import threading, time\ndef work():\n    threading.main_thread().join()\n    time.sleep(0.5)\n"
    code += "    print('done', flush=True)\n"
    with serve(tmp_path, code + "threading.Thread(target=work).start()\n" + WSGI, way) as server:
        get(server.address())
        assert server.end() == 0
        assert server.output.lines[-1] == "done"


@alone
def test_a_second_signal_ends_the_wait_for_threads(tmp_path: Path, way: list[str]) -> None:
    with serve(tmp_path, THREAD + WSGI, way) as server:
        get(server.address())
        server.signal("SIGTERM")
        server.messages.wait("Waiting for threads")
        assert server.end() == 0


@each_way
def test_signals_that_come_at_any_moment_of_the_end_change_no_status(tmp_path: Path, way: list[str]) -> None:
    with serve(tmp_path, THREAD + WSGI, way) as server:
        get(server.address())
        targets = server.workers() or {server.pid}
        server.signal("SIGTERM")
        while server.process.poll() is None and any(Path(f"/proc/{pid}").exists() for pid in targets):
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
                for pid in targets:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, number)
            time.sleep(0.002)
        if "--preload" in way:  # the thread is the master's
            server.messages.wait("Waiting for threads")
        assert server.end("SIGTERM" if "--preload" in way else "") == 0
        assert "Traceback" not in server.messages.text
        assert not re.search(r"killed by SIG(?!KILL)|ended with status [^0]", server.messages.text)


HANDLERS = {
    "its own": "signal.signal(signal.SIGTERM, lambda *_: print('called', flush=True))",
    "calls the one before": (
        "before = signal.getsignal(signal.SIGTERM)\n"
        "    def handler(*args):\n        before(*args)\n        print('called', flush=True)\n"
        "    signal.signal(signal.SIGTERM, handler)"
    ),
    "fails": "signal.signal(signal.SIGTERM, lambda *_: print('called', flush=True) or exit(7))",
    "of the loop": "asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, print, 'called')",
    "ignores": "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n    print('called', flush=True)",
}


@pytest.mark.parametrize("code", HANDLERS.values(), ids=HANDLERS)
@alone
def test_a_handler_that_the_application_sets_while_it_serves(tmp_path: Path, way: list[str], code: str) -> None:
    code = f"import asyncio, signal, threading, time\nasync def hook(scope):\n    {code}\n" + ASGI
    with serve(tmp_path, code, way) as server:
        with Client(server.address()) as client:
            client.get()
        time.sleep(1.5)  # as often as the server looks
        assert server.end() == 0
        assert server.output.text.split("called")[1:] != []
        assert "at once" not in server.messages.text  # one signal is one


@each_way
def test_a_start_that_fails_does_not_wait_for_threads(tmp_path: Path, way: list[str]) -> None:
    with serve(tmp_path, THREAD + "app = None\n", way) as server:
        assert server.end("") == 3
        assert gone(server.pid)


@alone_first
def test_what_is_registered_with_atexit_may_hang(tmp_path: Path, way: list[str]) -> None:
    code = "import atexit, time\natexit.register(time.sleep, 60)\n"
    with serve(tmp_path, code + WSGI, way, "--timeout-graceful-shutdown", "1") as server:
        get(server.address())
        began = time.monotonic()
        assert server.end() == 0
        assert time.monotonic() - began < 2 + MORE


SWALLOWS = """
import asyncio
async def stubborn():
    while True:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            pass
"""
HOOKS = {
    "request": "async def hook(scope):\n    if scope['path'] == '/x':\n        await stubborn()\n",
    "background": "async def hook(scope):\n    hook.task = asyncio.create_task(stubborn())\n",
    "executor": (
        "import time\nasync def hook(scope):\n"
        "    hook.future = asyncio.get_running_loop().run_in_executor(None, time.sleep, 60)\n"
    ),
}


@alone_first
@pytest.mark.parametrize("hook", HOOKS.values(), ids=HOOKS)
def test_a_task_that_ignores_that_it_is_cancelled(tmp_path: Path, way: list[str], hook: str) -> None:
    with serve(tmp_path, SWALLOWS + hook + ASGI, way, "--timeout-graceful-shutdown", "1") as server:
        address = server.address()
        with Client(address) as client:
            client.send("/x")
            get(address)
            get(address)
            began = time.monotonic()
            assert server.end() == 0
            assert time.monotonic() - began < 1 + MORE
        assert "SIGKILL" not in server.messages.text
        if hook is HOOKS["executor"]:
            assert re.search("Ending now, although .*\n  (asyncio|uvloop)_0", server.messages.text)
        else:
            assert re.search("go on although they were cancelled:\n  .*stubborn: .*ends.py:6", server.messages.text)


@alone
@pytest.mark.parametrize("block", ["time.sleep(60)", "while True: pass"])
def test_a_blocked_loop_does_not_keep_the_process(tmp_path: Path, way: list[str], block: str) -> None:
    hook = f"import os, time\nasync def hook(scope):\n    os.write(2, b'here\\n')\n    {block}\n"
    path = tmp_path / "a.sock"
    with serve(tmp_path, hook + ASGI, way, "--uds", str(path), "--timeout-graceful-shutdown", "0.5") as server:
        server.messages.wait("serving")
        with Client(str(path)) as client:
            client.send()
            server.messages.wait("^here")
            assert server.end() == 0
        assert re.search(r"Ending now, although .*\n  MainThread: .*ends.py:\d+, in hook", server.messages.text)
        assert not path.exists()


EXITS = """
import asyncio, sys
async def leave(how):
    if how == "exit":
        sys.exit(7)
    raise KeyboardInterrupt
async def hook(scope):
    _, how, *where = scope["path"].split("/")
    loop = asyncio.get_running_loop()
    if how == "stop":
        loop.stop()
    elif where == ["task"]:
        await asyncio.create_task(leave(how))
    elif where == ["callback"]:
        loop.call_soon(sys.exit, 7)
    elif how:
        await leave(how)
"""


@alone_first
@pytest.mark.parametrize("path", ["exit", "interrupt", "exit/task", "interrupt/task", "exit/callback", "stop"])
def test_who_asks_for_the_end_in_a_request_ends_the_request(tmp_path: Path, way: list[str], path: str) -> None:
    with serve(tmp_path, EXITS + ASGI, way) as server:
        address = server.address()
        answers = 200 if path in {"exit/callback", "stop"} else 500
        assert get(address, f"/{path}")[0] == answers
        assert [get(address)[0] for _ in range(4)] == [200] * 4
        assert server.end() == 0
        assert "ERROR" in server.messages.text


TORNADO = """
import sys
def app(request):
    if request.path == "/exit":
        sys.exit(7)
    if request.path == "/interrupt":
        raise KeyboardInterrupt
    request.write(b"HTTP/1.1 200 OK\\r\\nContent-Length: 5\\r\\n\\r\\nhello")
    request.finish()
"""

TORNADO_WEB = """
import sys
import tornado.web
class Handler(tornado.web.RequestHandler):
    async def get(self):
        if self.request.path == "/exit":
            sys.exit(7)
        if self.request.path == "/interrupt":
            raise KeyboardInterrupt
        self.write("hello")
app = tornado.web.Application([("/.*", Handler)])
"""


@alone_first
@pytest.mark.parametrize("path", ["exit", "interrupt"])
@pytest.mark.parametrize("interface", ["wsgi", "callable", "tornado.web"])
def test_who_asks_for_the_end_in_the_other_interfaces(
    tmp_path: Path, way: list[str], interface: str, path: str
) -> None:
    wsgi = "import sys\ndef app(environ, start_response):\n    path = environ['PATH_INFO']\n"
    wsgi += (
        "    if path == '/exit':\n        sys.exit(7)\n    if path == '/interrupt':\n        raise KeyboardInterrupt\n"
    )
    wsgi += "    start_response('200 OK', [])\n    return [b'hello']\n"
    code = {"wsgi": wsgi, "callable": TORNADO, "tornado.web": TORNADO_WEB}[interface]
    options = () if interface == "tornado.web" else ("--interface", interface)
    with serve(tmp_path, code, way, *options) as server:
        address = server.address()
        assert get(address, f"/{path}")[0] == 500
        assert [get(address)[0] for _ in range(4)] == [200] * 4
        assert server.end() == 0
        assert "ERROR" in server.messages.text


@each_way
def test_a_thread_whose_client_has_left_does_not_hold_a_stop(tmp_path: Path, way: list[str]) -> None:
    code = "import os, time\ndef app(environ, start_response):\n    if environ['PATH_INFO'] == '/x':\n"
    code += "        os.write(2, b'here\\n')\n        time.sleep(60)\n"
    code += "    start_response('200 OK', [])\n    return [b'hello']\n"
    with serve(tmp_path, code, way) as server:
        address = server.address()
        with Client(address) as client:
            client.send("/x")
            server.messages.wait("^here")
        get(address)
        began = time.monotonic()
        assert server.end() == 0
        assert time.monotonic() - began < 3 + MORE
        assert "does not end; it is here" in server.messages.text
