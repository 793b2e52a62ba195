"""Count the instructions of one ASGI request inside bridge: ``python -m benchmarks.instructions plaintext``.

One process, one connection, a transport that only counts: no socket and no system call, so the figure holds on a busy
machine too, to about one part in a thousand. valgrind's callgrind counts two runs of different length, whose difference
cancels the start, and two in which bridge gets no request, which cancels making the requests and turning the loop.
``--run NUMBER`` is such a run, without valgrind.
"""

import argparse
import asyncio
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.apps.asgi import plaintext
from benchmarks.client import Requests

SENDS = {"plaintext": "get", "browser": "browser"}
SHORT = 500  # requests
COUNTED = re.compile(rb"Collected : (\d+)")


class CountingTransport(asyncio.Transport):
    """Takes everything at once and counts the answers."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 4000), "sockname": ("127.0.0.1", 80)})
        self.answers = 0

    def write(self, data: Any) -> None:
        self.answers += 1

    def writelines(self, list_of_data: Any) -> None:
        self.answers += 1

    def is_closing(self) -> bool:
        return False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def abort(self) -> None:
        pass

    close = abort


async def run(sends: str, number: int, idle: bool) -> None:
    """Serve *number* requests on one connection, each with a turn of the loop; or only make them."""
    from bridge.adapters.asgi.delegate import ASGIDelegate
    from bridge.core.connection.clock import Clock
    from bridge.core.connection.context import ConnectionContext
    from bridge.core.connection.parameters import ConnectionParameters
    from bridge.core.http1connection import HTTP1ServerConnection

    loop = asyncio.get_running_loop()
    parameters = ConnectionParameters()
    clock = Clock(loop, shortest=parameters.shortest(), server_name=b"bridge", keep_alive=5.0)
    context = ConnectionContext(("127.0.0.1", 4000), socket.AF_INET, "http", ("127.0.0.1", 80))
    # What bridge.core.httpserver makes for a connection that it accepts.
    connection = HTTP1ServerConnection.accepted(ASGIDelegate(plaintext), parameters, context, clock, loop)
    transport = CountingTransport()
    connection.connection_made(transport)
    requests = Requests(sends)
    for _ in range(number):
        request = requests.next()
        if not idle:
            connection.data_received(request)
        await asyncio.sleep(0)
    await asyncio.sleep(0)  # responses go out at the end of the turn in which they are complete
    if transport.answers != (0 if idle else number):
        raise SystemExit(f"{transport.answers} answers to {number} requests")
    connection.connection_lost(None)
    await asyncio.sleep(0)


def per_request(what: str, requests: int, *more: str) -> float:
    """Return the instructions per request, from two runs."""
    with tempfile.TemporaryDirectory(prefix="bridge-instructions-") as directory:
        short, long = (counted(directory, what, number, *more) for number in (SHORT, SHORT + requests))
    return (long - short) / requests


def counted(directory: str, what: str, number: int, *more: str) -> int:
    """Return the instructions of a run of *number* requests."""
    command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={directory}/out", sys.executable]
    command += ["-m", "benchmarks.instructions", what, "--run", str(number), *more]
    environment = os.environ | {"PYTHONHASHSEED": "0"}
    done = subprocess.run(command, env=environment, cwd=Path.cwd(), capture_output=True, timeout=900, check=False)
    found = COUNTED.search(done.stderr)
    if done.returncode or found is None:
        raise SystemExit(done.stderr.decode(errors="replace")[-2000:])
    return int(found[1])


def main() -> None:
    """Parse the command line, run or count."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.instructions", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("what", choices=list(SENDS))
    parser.add_argument("--requests", type=int, default=2000, help="counted ones (default: 2000)")
    parser.add_argument("--run", type=int, metavar="NUMBER", help="only serve that many requests, without valgrind")
    parser.add_argument("--idle", action="store_true", help="with --run: bridge gets no request")
    options = parser.parse_args()
    if options.run is not None:
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            runner.run(run(SENDS[options.what], options.run, options.idle))
        return
    if not shutil.which("valgrind"):
        raise SystemExit("valgrind is not installed")
    number = per_request(options.what, options.requests) - per_request(options.what, options.requests, "--idle")
    print(f"{options.what}: {number:,.0f} instructions per request")


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return uvloop's, where it is installed."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


if __name__ == "__main__":
    main()
