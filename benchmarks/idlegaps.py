"""Ask through proxies that keep connections, each time when the server is just about to close; count failures.

``python -m benchmarks.idlegaps [--requests N] [ROW ...]`` starts a server whose connections may be idle for 2 seconds,
nginx or HAProxy in front of it, and many clients. Each client has a connection of the proxy to the server for itself,
and leaves it alone for about as long as the server allows before it asks again. First it is measured when that server
closes; the gaps lie evenly around. Half of the requests are POSTs, which no proxy sends again. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.process import child, environment
from benchmarks.proxies import haproxy, nginx
from benchmarks.steady import answer

KEEP = 2.0  # seconds, of the server
MARGIN = 0.05  # seconds, around what was measured
CLIENTS = 500
APP = "benchmarks.apps.pod:asgi"
BRIDGE = ["-m", "bridge", "run", APP, "--bind", "{host}:8000", "--no-access-log", "--timeout-keep-alive", "2"]
KNOWN = ["--forwarded-allow-ips", "127.0.0.0/8"]


@dataclass(frozen=True)
class Row:
    """A server with its settings behind a proxy."""

    name: str
    settings: str
    proxy: str
    command: list[str]
    requests: int
    proxy_keeps: int = 60  # seconds, how long nginx keeps an idle connection to the server


def rows() -> dict[str, Row]:
    found = {}
    for proxy in ("nginx", "haproxy"):
        found |= {
            f"bridge-{proxy}": Row("bridge", "--forwarded-allow-ips ...", proxy, [*BRIDGE, *KNOWN], 50_000),
            f"bridge-workers-{proxy}": Row(
                "bridge",
                "--forwarded-allow-ips ... --workers 2",
                proxy,
                [*BRIDGE, *KNOWN, "--workers", "2"],
                10_000,
            ),
            f"bridge-off-{proxy}": Row("bridge", "no proxy is named", proxy, BRIDGE, 20_000),
            f"uvicorn-{proxy}": Row(
                "uvicorn",
                "--timeout-keep-alive 2",
                proxy,
                ["-m", "uvicorn", APP, "--host", "{host}", "--no-access-log", "--timeout-keep-alive", "2"],
                20_000,
            ),
            f"gunicorn-{proxy}": Row(
                "gunicorn (asgi)",
                "--keep-alive 2",
                proxy,
                ["-m", "gunicorn", APP, "--bind", "{host}:8000", "--worker-class", "asgi", "--keep-alive", "2",
                 "--no-control-socket"],
                20_000,
            ),
        }  # fmt: skip
    # The proxy closes at 2 seconds, while the server would wait for 3: what the guide tells, 30 times as fast.
    found["bridge-later-nginx"] = Row(
        "bridge",
        "--timeout-keep-alive-proxy 3s; nginx closes after 2",
        "nginx",
        [*BRIDGE, *KNOWN, "--timeout-keep-alive-proxy", "3s"],
        20_000,
        2,
    )
    return found


ROWS = rows()

NGINX = """\
  keepalive_timeout 600s; keepalive_requests 1000000;
{upstreams}
  server {{
    listen unix:{directory}/front.sock backlog=4096;
    proxy_http_version 1.1; proxy_set_header Connection "";
{locations}
  }}
"""

# With "never", each connection of a client has a connection to the server for itself, as long as both last.
HAPROXY = """\
    maxconn 8192
defaults
    mode http
    timeout connect 5s
    timeout client 600s
    timeout server 60s
    timeout http-keep-alive 600s
frontend web
    bind unix@{directory}/front.sock backlog 4096
    default_backend server
backend server
    http-reuse never
    server one {host}:8000
"""


@contextlib.contextmanager
def proxied(row: Row, host: str, directory: Path, clients: int) -> Iterator[str]:
    """Run the proxy; yield the path of its socket."""
    if row.proxy == "haproxy":
        with haproxy(directory, HAPROXY.format(directory=directory, host=host)):
            yield f"{directory}/front.sock"
        return
    keep = f"keepalive 1; keepalive_requests 1000000; keepalive_timeout {row.proxy_keeps}s;"
    text = NGINX.format(
        directory=directory,
        upstreams="\n".join(f"  upstream u{n} {{ server {host}:8000; {keep} }}" for n in range(clients)),
        locations="\n".join(f"    location /{n}/ {{ proxy_pass http://u{n}; }}" for n in range(clients)),
    )
    with nginx(directory, text):
        yield f"{directory}/front.sock"


@dataclass
class Seen:
    """What the clients have seen."""

    good: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    closes: tuple[float, float] | None = None  # seconds of idleness after which the server closes: least and most


async def closes_after(host: str, connections: int = 30) -> tuple[float, float] | None:
    """Return how long the server leaves idle connections open, in seconds: least and most; None if it does."""

    async def one() -> float | None:
        reader, writer = await asyncio.open_connection(host, 8000)
        try:
            writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            await answer(reader)
            began = time.monotonic()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(KEEP * 2):
                    await reader.read()
                    return time.monotonic() - began
            return None
        finally:
            writer.close()

    async def later(number: int) -> float | None:
        await asyncio.sleep(number * 0.037)
        return await one()

    found = await asyncio.gather(*(later(number) for number in range(connections)))
    measured = sorted(seconds for seconds in found if seconds is not None)
    return (measured[0], measured[-1]) if measured else None


async def client(place: str, number: int, gaps: tuple[float, float], end: int, count: Iterator[int], seen: Seen):
    """Ask, wait, and ask again on the same connection, until *count* is at *end*."""
    rng = random.Random(number)
    get = b"GET /%d/ HTTP/1.1\r\nHost: a\r\n\r\n" % number
    post = b"POST /%d/ HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n0123456789" % number
    writer = None
    await asyncio.sleep(rng.uniform(0, gaps[1]))
    while next(count) < end:
        method, sent = rng.choice([("GET", get), ("POST", post)])
        try:
            async with asyncio.timeout(60):
                if writer is None:
                    reader, writer = await asyncio.open_unix_connection(place)
                writer.write(sent)
                status, stays, _ = await answer(reader)
            if status == 200:
                seen.good += 1
            else:
                seen.failures[f"{method} {status}"] += 1
        except TimeoutError:
            seen.failures[f"{method} no answer"] += 1
            stays = False
        except (OSError, asyncio.IncompleteReadError) as exc:
            kind = "closed" if isinstance(exc, asyncio.IncompleteReadError) else "reset"
            seen.failures[f"{method} {kind}"] += 1
            stays = False
        if not stays and writer is not None:
            writer.close()
            writer = None
        await asyncio.sleep(rng.uniform(*gaps))
    if writer is not None:
        writer.close()


async def measure(row: Row, requests: int, clients: int = CLIENTS) -> Seen:
    """Serve, proxy, ask; return what was seen."""
    host = f"127.{64 + random.randrange(128)}.{random.randrange(256)}.1"
    with tempfile.TemporaryDirectory(prefix="idlegaps-") as name:
        directory = Path(name)
        directory.chmod(0o755)  # nginx's worker may be another user
        command = [sys.executable, *(word.replace("{host}", host) for word in row.command)]
        with (
            (directory / "server.log").open("wb") as log,
            child(command, None, log, subprocess.STDOUT, 5.0, environment({})) as process,
        ):
            end = time.monotonic() + 30
            while True:
                try:
                    (await asyncio.open_connection(host, 8000))[1].close()
                    break
                except OSError:
                    if time.monotonic() > end or process.poll() is not None:
                        raise RuntimeError((directory / "server.log").read_text()) from None
                    await asyncio.sleep(0.05)
            seen = Seen(closes=await closes_after(host))
            least, most = seen.closes or (KEEP, KEEP)
            gaps = (max(least, KEEP) - 2 * MARGIN, most + MARGIN)
            if not seen.closes or row.proxy_keeps < least:  # then the proxy closes
                gaps = (KEEP - 2 * MARGIN, KEEP + 2 * MARGIN)
            count = iter(range(requests + clients))
            with proxied(row, host, directory, clients) as place:
                async with asyncio.TaskGroup() as tasks:
                    for number in range(clients):
                        tasks.create_task(client(place, number, gaps, requests, count, seen))
    return seen


COLUMNS = ("server", "settings", "proxy", "closes idle connections after", "requests", "failed", "of these")


def line(row: Row, seen: Seen) -> str:
    """Return a row of the table."""
    failed = seen.failures.total()
    closes = "{:.2f} to {:.2f} s".format(*seen.closes) if seen.closes else "more than 4 s"
    cells = [
        row.name,
        row.settings.join("``") if row.settings.startswith("--") and ";" not in row.settings else row.settings,
        row.proxy,
        closes,
        f"{seen.good + failed:,}",
        f"{failed:,}",
        ", ".join(f"{number} {words}" for words, number in seen.failures.most_common()) or "-",
    ]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"some of {', '.join(ROWS)}; all without any")
    parser.add_argument("--requests", type=int, help="for each row")
    args = parser.parse_args()
    unknown = set(args.rows) - set(ROWS)
    if unknown:
        parser.error(f"no such row: {', '.join(sorted(unknown))}; there are {', '.join(ROWS)}")
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}", flush=True)
    failed = 0
    for name in args.rows or ROWS:
        seen = asyncio.run(measure(ROWS[name], args.requests or ROWS[name].requests))
        print(line(ROWS[name], seen), flush=True)
        if ROWS[name].name == "bridge" and KNOWN[0] in ROWS[name].command:
            failed += seen.failures.total()
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
