"""Count the requests that fail while a server is reloaded, replaced and resized under load.

``python -m benchmarks.zerodrop [SERVER ...]`` starts each server with two workers, keeps 16 keep-alive clients asking
that check every answer, and wrk beside them, sends the signals that the server knows, and prints a Markdown table.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.process import ROOT

APP = "benchmarks.apps.asgi:plaintext"
RELOADS = 20

SERVERS = {
    "bridge": ["-m", "bridge", "run", APP, "--workers", "2", "--no-access-log", "--port"],
    "uvicorn": ["-m", "uvicorn", APP, "--workers", "2", "--no-access-log", "--port"],
    "gunicorn": [
        str(Path(sys.executable).with_name("gunicorn")),
        APP,
        "--worker-class",
        "asgi",
        "--workers",
        "2",
        "--bind",
    ],
    "granian": ["-m", "granian", "--interface", "asgi", APP, "--workers", "2", "--port"],
}
#: Signals beside HUP that the server knows.
MORE = {"bridge": ("TTIN", "TTOU", "USR2"), "uvicorn": ("TTIN", "TTOU"), "gunicorn": ("TTIN", "TTOU", "USR2")}


@dataclass
class Count:
    """What the clients saw."""

    good: int = 0
    announced: int = 0
    faults: dict[str, int] = field(default_factory=dict)

    def fault(self, name: str) -> None:
        """Count a failed request."""
        self.faults[name] = self.faults.get(name, 0) + 1


async def client(port: int, count: Count, stop: asyncio.Event) -> None:
    """Ask one request after the other on a connection for as long as the server keeps it open."""
    request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    while not stop.is_set():
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            count.fault("refused")
            await asyncio.sleep(0.01)
            continue
        try:
            while not stop.is_set():
                writer.write(request)
                head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 20)
                length = re.search(rb"(?i)content-length: ([0-9]+)", head)
                content = await asyncio.wait_for(reader.readexactly(int(length[1]) if length else 0), 20)
                if not head.startswith(b"HTTP/1.1 200 ") or content != b"Hello, World!":
                    count.fault(f"wrong answer {head[:20]!r}")
                    break
                count.good += 1
                if re.search(rb"(?i)\r\nconnection: *close", head):
                    count.announced += 1
                    break
                await asyncio.sleep(0.001)
        except asyncio.IncompleteReadError as exc:
            count.fault("closed in an answer" if exc.partial else "closed under a request")
        except TimeoutError:
            count.fault("no answer")
        except OSError:
            count.fault("reset")
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


async def measure(name: str, reloads: int, pause: float) -> tuple[Count, str, list[str]]:
    """Serve, load, signal; return the count, wrk's errors, and what was sent."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    place = f"127.0.0.1:{port}" if name == "gunicorn" else str(port)
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    log = open(os.environ.get("ZERODROP_LOG", os.devnull), "wb")  # noqa: SIM115
    server = subprocess.Popen(
        [sys.executable, *SERVERS[name], place], cwd=ROOT, env=environ, stdout=log, stderr=log, start_new_session=True
    )
    count, stop, sent = Count(), asyncio.Event(), []
    master = server.pid
    errors = "-"
    wrk = None
    try:
        await _answers(port)
        await asyncio.sleep(1.0)
        tasks = [asyncio.create_task(client(port, count, stop)) for _ in range(16)]
        seconds = int(reloads * pause + 12)
        if shutil.which("wrk"):
            wrk = await asyncio.create_subprocess_exec(
                "wrk", "-t1", "-c16", f"-d{seconds}s", f"http://127.0.0.1:{port}/", stdout=subprocess.PIPE
            )
        for _ in range(reloads):
            os.kill(master, signal.SIGHUP)
            sent.append("HUP")
            await asyncio.sleep(pause)
        for word in MORE.get(name, ()):
            os.kill(master, getattr(signal, f"SIG{word}"))
            sent.append(word)
            await asyncio.sleep(3.0 if word == "USR2" else 1.0)
            if word == "USR2" and name == "gunicorn":  # its users end the old master themselves
                os.kill(master, signal.SIGTERM)
                await asyncio.sleep(2.0)
        await asyncio.sleep(2.0)
        if wrk is not None:
            out = (await wrk.communicate())[0].decode()
            found = re.search(r"Socket errors: (.*)", out)
            bad = re.search(r"Non-2xx or 3xx responses: (\d+)", out)
            errors = (found[1] if found else "none") + (f", {bad[1]} not 200" if bad else "")
        stop.set()
        await asyncio.gather(*tasks)
    finally:
        if wrk is not None and wrk.returncode is None:
            wrk.kill()
        for pid in _session(server.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        server.wait()
        log.close()
    return count, errors, sent


async def _answers(port: int) -> None:
    end = time.monotonic() + 20
    while time.monotonic() < end:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.05)
        else:
            writer.close()
            return
    raise SystemExit("the server does not listen")


def _stat(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    except OSError:
        return ["", "0", "0", "0"]


def _session(leader: int) -> list[int]:
    """Return the processes of *leader*'s session."""
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()]
    return [pid for pid in pids if _stat(pid)[3] == str(leader)]


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("servers", nargs="*", default=list(SERVERS), metavar="SERVER")
    parser.add_argument("--reloads", type=int, default=RELOADS)
    parser.add_argument("--pause", type=float, default=1.5, help="seconds between two reloads")
    args = parser.parse_args()
    print("| server | signals | checked requests | failed | of these | ends announced | wrk's errors |")
    print("|---|---|---|---|---|---|---|")
    for name in args.servers or SERVERS:
        count, errors, sent = asyncio.run(measure(name, args.reloads, args.pause))
        words = ", ".join(f"{number} {kind}" for kind, number in sorted(count.faults.items())) or "-"
        rest = [word for word in sent if word != "HUP"]
        signals = f"{sent.count('HUP')} HUP{''.join(', ' + word for word in rest)}"
        total = sum(count.faults.values())
        print(f"| {name} | {signals} | {count.good} | {total} | {words} | {count.announced} | {errors} |", flush=True)


if __name__ == "__main__":
    main()
