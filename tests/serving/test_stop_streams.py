"""Event streams and WebSockets at a stop, in each interface: what goes on, what is ended, and what the client sees."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.running import Client, Running

pytestmark = pytest.mark.slow

APPS = """
import asyncio, time

SSE = "text/event-stream"

async def asgi(scope, receive, send):
    if scope["type"] != "http":
        return
    kind, _, value = scope["path"][1:].partition("/")
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", SSE.encode())]})
    for _ in range(int(value) if value else 10**6):
        await send({"type": "http.response.body", "body": b"data: x\\n\\n", "more_body": True})
        await asyncio.sleep(0.05 if kind == "ticks" else 60)
    await send({"type": "http.response.body", "body": b"data: end\\n\\n"})

def wsgi(environ, start_response):
    if environ["PATH_INFO"] == "/socket":
        sock = environ["werkzeug.socket"]
        sock.sendall(b"HTTP/1.1 101 Switching Protocols\\r\\nConnection: upgrade\\r\\nUpgrade: x\\r\\n\\r\\n")
        while sock.recv(1000):
            pass
        sock.sendall(b"bye")
        return []
    kind, _, value = environ["PATH_INFO"][1:].partition("/")
    start_response("200 OK", [("Content-Type", SSE)])
    def content():
        for _ in range(int(value) if value else 10**6):
            yield b"data: x\\n\\n"
            time.sleep(0.05 if kind == "ticks" else 2)
        yield b"data: end\\n\\n"
    return content()

class Tornado:
    def start_request(self, server_conn, request_conn):
        from bridge.core.httputil import HTTPMessageDelegate, HTTPHeaders, ResponseStartLine

        class Message(HTTPMessageDelegate):
            def headers_received(self, start_line, headers):
                self.path = start_line.path

            def finish(self):
                self.task = asyncio.ensure_future(self.stream())

            def on_connection_close(self):
                self.task.cancel()

            async def stream(self):
                kind, _, value = self.path[1:].partition("/")
                line = ResponseStartLine("HTTP/1.1", 200, "OK")
                request_conn.set_close_callback(self.on_connection_close)
                await request_conn.write_headers(line, HTTPHeaders({"Content-Type": SSE}))
                for _ in range(int(value) if value else 10**6):
                    await request_conn.write(b"data: x\\n\\n")
                    await asyncio.sleep(0.05 if kind == "ticks" else 60)
                await request_conn.write(b"data: end\\n\\n")
                request_conn.finish()

        return Message()

tornado = Tornado()
"""
INTERFACES = ["asgi", "wsgi", "tornado"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder: Path = tmp_path_factory.mktemp("streams")
    (folder / "streams.py").write_text(APPS)
    return str(folder)  # type: ignore[return-value]  # a fixture without an end


def run(folder: str, interface: str, *options: str) -> Running:
    return Running(f"streams:{interface}", "--app-dir", folder, *options)


def content(client: Client) -> tuple[bytes, bool]:
    """Return all that still comes, and whether the connection was reset."""
    data = b""
    try:
        while piece := client.sock.recv(65536):
            data += piece
    except ConnectionResetError:
        return data, True
    return data, False


@pytest.mark.parametrize("workers", [[], ["--workers", "1"]], ids=["alone", "master"])
@pytest.mark.parametrize("interface", INTERFACES)
def test_a_stream_that_makes_progress_ends_with_its_own_last_message(
    folder: str, interface: str, workers: list[str]
) -> None:
    with run(folder, interface, *workers) as server, Client(server.address()) as client:
        client.send("/ticks/30")
        first = client.sock.recv(1000)
        server.signal("SIGTERM")
        rest, reset = content(client)
        assert (first + rest).count(b"data: x\n\n") == 30
        assert (first + rest).endswith(b"data: end\n\n\r\n0\r\n\r\n")
        assert not reset
        assert server.end("") == 0
        assert "cut off" not in server.messages.text


@pytest.mark.parametrize(("interface", "loop"), [("asgi", "uvloop"), ("wsgi", "asyncio"), ("tornado", "uvloop")])
def test_an_endless_stream_is_cut_after_the_time_for_streams(folder: str, interface: str, loop: str) -> None:
    with (
        run(folder, interface, "--timeout-drain-streams", "0.5", "--loop", loop) as server,
        Client(server.address()) as client,
    ):
        client.send("/ticks")
        client.sock.recv(1000)
        start = time.monotonic()
        server.signal("SIGTERM")
        rest, reset = content(client)
        assert reset or not rest.endswith(b"0\r\n\r\n")
        assert server.end("") == 0
        assert 0.4 < time.monotonic() - start < 10
        assert "the response to GET" in server.messages.text
        assert "is cut off" in server.messages.text


@pytest.mark.parametrize("interface", INTERFACES)
def test_the_graceful_time_ends_all_streams(folder: str, interface: str) -> None:
    with (
        run(folder, interface, "--timeout-graceful-shutdown", "1") as server,
        Client(server.address()) as client,
    ):
        client.send("/ticks")
        client.sock.recv(1000)
        start = time.monotonic()
        server.signal("SIGTERM")
        rest, reset = content(client)
        assert reset or not rest.endswith(b"0\r\n\r\n")
        assert server.end("") == 0
        assert 0.9 < time.monotonic() - start < 10
        assert "1 connection cut off" in server.messages.text


@pytest.mark.long
def test_a_quiet_stream_is_ended_before_the_graceful_time(folder: str) -> None:
    with run(folder, "asgi") as server, Client(server.address()) as client:
        client.send("/quiet")
        client.sock.recv(1000)
        start = time.monotonic()
        server.signal("SIGTERM")
        rest, _ = content(client)
        assert not rest.endswith(b"0\r\n\r\n")
        assert server.end("") == 0
        assert 4.5 < time.monotonic() - start < 20


def test_a_connection_that_a_wsgi_application_has_taken_is_ended_in_its_time(folder: str) -> None:
    with run(folder, "wsgi", "--timeout-drain-websockets", "0.5") as server:
        with socket.create_connection(server.address()) as taken, Client(server.address()) as stream:
            taken.settimeout(20)
            taken.sendall(b"GET /socket HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n")
            assert taken.recv(1000).startswith(b"HTTP/1.1 101 ")
            stream.send("/ticks/80")  # four seconds: the stop waits for it, and the other does not
            stream.sock.recv(1000)
            start = time.monotonic()
            server.signal("SIGTERM")
            data = b""
            while piece := taken.recv(1000):
                data += piece
            assert data == b"bye"
            assert 0.4 < time.monotonic() - start < 3.5
            assert content(stream)[0].endswith(b"0\r\n\r\n")
        assert server.end("") == 0
