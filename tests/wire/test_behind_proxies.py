"""Behind nginx and HAProxy: what a proxy passes on is as many requests to us, of the same length, as to the proxy.

Each case goes over a connection of its own to the proxy, which keeps its connections to the server. The request behind
it asks for the same path every time: a request that were understood as two would be answered in its place.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import ROOT
from tests.support.link import Told, ok
from tests.support.serving import address_of, serving

pytestmark = [pytest.mark.slow, pytest.mark.long]

SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST /case HTTP/1.1\r\nHost: a\r\n"
FRAMINGS = [
    b"Content-Length: %d\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"Transfer-Encoding: chunked\r\nContent-Length: %d\r\n\r\n0\r\n\r\n",
    b"Content-Length: 0\r\nContent-Length: %d\r\n\r\n",
    b"Content-Length: 0, %d\r\n\r\n",
    b"Content-Length: +%d\r\n\r\n",
    b"Content-Length : %d\r\n\r\n",
    b"Content-Length: 0x%x\r\n\r\n",
    b"Content-Length: 0_%d\r\n\r\n",
    b"Content-Length:\x0b%d\r\n\r\n",
    b"Content-Length: %d \r\n\r\n",
    b"Content_Length: %d\r\n\r\n",
    b"X: a\r\n Content-Length: %d\r\n\r\n",
    b"X: a\rContent-Length: %d\r\n\r\n",
    b"X: a\nContent-Length: %d\r\n\r\n",
    b"Transfer-Encoding: chunked, identity\r\nX: %d\r\n\r\n0\r\n\r\n",
    b"Transfer-Encoding: identity, chunked\r\nX: %d\r\n\r\n0\r\n\r\n",
    b"Transfer-Encoding: xchunked\r\nX: %d\r\n\r\n0\r\n\r\n",
    b"Transfer-Encoding:\x0bchunked\r\nX: %d\r\n\r\n0\r\n\r\n",
    b'Transfer-Encoding: "chunked"\r\nX: %d\r\n\r\n0\r\n\r\n',
    b"Transfer-Encoding : chunked\r\nX: %d\r\n\r\n0\r\n\r\n",
    b"Transfer_Encoding: chunked\r\nX: %d\r\n\r\n0\r\n\r\n",
    b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\nX: %d\r\n\r\n0\r\n\r\n",
    b'Transfer-Encoding: chunked\r\nX: %d\r\n\r\n0;a="\r\n\r\n',
    b"Transfer-Encoding: chunked\r\nX: %d\r\n\r\n0x0\r\n\r\n",
    b"Transfer-Encoding: chunked\r\nX: %d\r\n\r\n0\n\n",
    b"Transfer-Encoding: chunked\r\nX: %d\r\n\r\n1\r\naXX0\r\n\r\n",
    b"Transfer-Encoding: chunked\r\nX: %d\r\n\r\n0\r\nContent-Length: 5\r\n\r\n",
    b"Transfer-Encoding: chunked\r\nX: %d\r\n\r\n10000000000000000\r\n\r\n",
    b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n",
    b"Connection: Content-Length\r\nContent-Length: %d\r\n\r\n",
    b"Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked\r\nX: %d\r\n\r\n0\r\n\r\n",
    b"Upgrade: websocket\r\nConnection: Upgrade\r\nContent-Length: %d\r\n\r\n",
]
CASES = [POST + framing % len(SMUGGLED) + SMUGGLED for framing in FRAMINGS]
CASES += [case.replace(b"HTTP/1.1\r\nHost", b"HTTP/1.0\r\nHost", 1) for case in CASES]
CASES += [case.replace(b"POST /case", b"GET /case", 1) for case in CASES[: len(FRAMINGS)]]


def hostile() -> list[bytes]:
    """Return the cases, and those of the shared vectors where they lie beside the repository."""
    vectors = ROOT.parent / "shared" / "wire" / "vectors.json"
    if not vectors.exists():
        return CASES
    found = json.loads(vectors.read_text(encoding="utf-8"))
    kinds = {"cl", "te", "chunk", "line", "field", "host", "conn"}
    raw = [case["raw_request"] for case in found if case["category"] in kinds and "{{" not in case["raw_request"]]
    return CASES + [text.encode("latin-1") + SMUGGLED for text in raw]


class Seen:
    """Answers everything, and keeps what has come."""

    def __init__(self) -> None:
        self.requests: list[Told] = []

    def start_exchange(self, exchange: Any) -> Told:
        told = Told(self, exchange)  # type: ignore[arg-type]
        self.requests.append(told)
        return told

    on_start = on_data = on_closed = on_eof = None

    @staticmethod
    def on_finish(told: Told) -> None:
        ok(told, told.exchange.head.path)

    def on_close(self, connection: Any) -> None:
        """Nothing is kept of connections."""


def nginx(folder: Path, port: int, server: int) -> list[str]:
    configuration = folder / "nginx.conf"
    configuration.write_text(
        f"daemon off; master_process off; pid {folder}/pid; error_log stderr crit;\n"
        "events {}\n"
        f"http {{ access_log off; client_body_temp_path {folder}/b; proxy_temp_path {folder}/p;"
        f" fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;\n"
        f"upstream up {{ server 127.0.0.1:{server}; keepalive 8; }}\n"
        f"server {{ listen 127.0.0.1:{port}; ignore_invalid_headers off; underscores_in_headers on;\n"
        'location / { proxy_pass http://up; proxy_http_version 1.1; proxy_set_header Connection "";'
        " proxy_request_buffering off; proxy_next_upstream off; } } }\n"
    )
    return ["nginx", "-p", str(folder), "-c", str(configuration)]


def haproxy(folder: Path, port: int, server: int) -> list[str]:
    configuration = folder / "haproxy.cfg"
    configuration.write_text(
        "defaults\n mode http\n timeout client 5s\n timeout server 5s\n timeout connect 5s\n http-reuse always\n"
        " option accept-invalid-http-request\n"
        f"frontend f\n bind 127.0.0.1:{port}\n default_backend b\nbackend b\n server s 127.0.0.1:{server}\n"
    )
    return ["haproxy", "-db", "-f", str(configuration)]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def ask(port: int, wire: bytes) -> bytes:
    """Send, and return what comes until the proxy closes, or says nothing for a moment."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    received = b""
    try:
        writer.write(wire)
        async with asyncio.timeout(0.5):  # what is cut short by the case has no end
            while data := await reader.read(65536):
                received += data
    except (TimeoutError, ConnectionError):
        pass
    finally:
        writer.transport.abort()
    return received


def running(command: list[str]) -> Iterator[None]:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait(20)


@pytest.mark.parametrize("proxy", [nginx, haproxy])
async def test_a_proxy_and_we_count_the_same_requests(proxy: Any, tmp_path: Path) -> None:
    if shutil.which(proxy.__name__) is None:
        pytest.skip(f"{proxy.__name__} is not installed")
    seen = Seen()
    async with serving(seen) as server:
        port = free_port()
        for _ in running(proxy(tmp_path, port, address_of(server)[1])):
            async with asyncio.timeout(20):
                while True:
                    try:
                        if b" 200 " in await ask(port, b"GET /ready HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"):
                            break
                    except OSError:
                        await asyncio.sleep(0.05)  # until it listens
            for wire in hostile():
                seen.requests.clear()
                answers = await ask(port, wire)
                paths = [told.exchange.head.path for told in seen.requests]
                # Each request that we have seen is one that the proxy has passed on, and waits for an answer to.
                final = answers.count(b"HTTP/1.1 ") - answers.count(b"HTTP/1.1 100")
                complete = [told for told in seen.requests if "finish" in told.calls]
                assert len(complete) <= max(final, 1), (wire, paths, answers)
                assert paths.count(b"/smuggled") <= answers.count(b"/smuggled"), (wire, paths, answers)
                # The connections that the proxy keeps are in step: who comes next gets an answer of its own.
                for _ in range(2):
                    answer = await ask(port, b"GET /next HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
                    assert answer.endswith(b"/next") or b"\r\n/next\r\n" in answer, (wire, answer)
