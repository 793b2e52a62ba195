"""How the client of the control socket finds servers, and what it removes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from bridge.operations import client
from bridge.operations.client import Client, NotReached, find

pytestmark = pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="there are no Unix sockets")


def ended() -> int:
    """Return the number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@pytest.mark.parametrize("way", ["found", "asked"])
def test_only_the_socket_of_a_server_that_is_gone_is_removed(tmp_path: Path, way: str) -> None:
    """One that is bound, and on which nobody listens so far, is that of a server that starts just now."""
    names = [f"bridge-{ended()}.ctl", f"bridge-{os.getpid()}.ctl", "bridge.ctl"]
    starting = []
    for name in names:
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(str(tmp_path / name))
        starting.append(sock)
    environ = {"XDG_RUNTIME_DIR": str(tmp_path), "RUNTIME_DIRECTORY": str(tmp_path)}
    for name in names:
        with pytest.raises(NotReached):
            if way == "asked":
                Client(str(tmp_path / name)).ask("GET", "/status")
            else:
                find(None, None, environ)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names[1:])
    for sock in starting:
        sock.close()


LISTENS = """
import os, signal, socket, sys
sock = socket.socket(socket.AF_UNIX)
sock.bind(sys.argv[1])
sock.listen()
print("listens", flush=True)
if sys.argv[2] == "stopped":
    os.kill(os.getpid(), signal.SIGSTOP)
sys.stdin.read()
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="the system does not tell what processes do")
@pytest.mark.parametrize(
    ("state", "told"), [("blocked", "is busy, or its event loop is blocked"), ("stopped", "-CONT")]
)
def test_who_gets_no_answer_hears_why(
    tmp_path: Path, state: str, told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(client, "_SLOW", 0.05)
    path = str(tmp_path / "c")
    command = [sys.executable, "-c", LISTENS, path, state]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == b"listens\n"
        if state == "stopped":
            os.waitpid(server.pid, os.WUNTRACED)
        with pytest.raises(NotReached, match="no answer in time"):
            Client(path).ask("GET", "/status", timeout=0.2)
        server.send_signal(signal.SIGCONT)
    error = capsys.readouterr().err
    assert f"{path}: no answer for 0.05 s: process {server.pid} " in error
    assert told in error
