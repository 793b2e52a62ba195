"""``werkzeug.socket``: an application takes the connection in its thread."""

from __future__ import annotations

import asyncio
import copy
import errno
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
from contextlib import suppress

import pytest

from bridge.adapters.wsgi import werkzeug_socket as sockets
from bridge.adapters.wsgi.werkzeug_socket import LazySocket
from bridge.core.connection import closing
from bridge.errors import ConnectionGone, LocalProtocolError
from tests.support import ROOT
from tests.support.certificates import tls_contexts
from tests.support.loops import both_loops
from tests.support.serving import until
from tests.support.wsgi import serving

TESTS = ROOT / "tests"
UPGRADE = b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: test\r\n\r\n"
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: test\r\n\r\n"


@pytest.fixture(scope="module")
def certificates() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    return tls_contexts()


@pytest.fixture(params=["plain", "tls"])
def tls(request, certificates):
    return certificates if request.param == "tls" else (None, None)


def echo(environ, start_response):
    """Answer every line in upper case until the client has sent everything."""
    sock = environ["werkzeug.socket"]
    sock.sendall(SWITCH)
    while data := sock.recv(65536):
        sock.sendall(data.upper())
    sock.close()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"not for anybody"]


async def test_an_echo(tls) -> None:
    async with serving(echo, tls=tls[0]) as served:
        served.tls = tls[1]
        reader, writer = await served.connect()
        writer.write(UPGRADE)
        assert await asyncio.wait_for(reader.readexactly(len(SWITCH)), 5) == SWITCH
        for number in range(20):
            writer.write(b"line %d\n" % number)
            assert await asyncio.wait_for(reader.readline(), 5) == b"LINE %d\n" % number
        large = b"x" * 3_000_000
        writer.write(large)
        assert await asyncio.wait_for(reader.readexactly(len(large)), 10) == large.upper()
        assert not served.server.connections  # HTTP is over; the drain does not wait for it
        assert served.server.connection_count() == 1
        writer.close()
        await until(lambda: served.server.connection_count() == 0)


@both_loops
async def test_a_tls_client_that_never_agrees_to_the_end_is_not_waited_for(monkeypatch, certificates) -> None:
    monkeypatch.setattr(closing, "_LOOK", 0.05)

    def leave(environ, start_response):
        sock = environ["werkzeug.socket"]
        sock.sendall(SWITCH)
        sock.close()
        start_response("200 OK", [])
        return []

    async with serving(leave, tls=certificates[0]) as served:

        def taken() -> bytes:
            sock = socket.create_connection(served.address)
            with certificates[1].wrap_socket(sock, server_hostname="localhost") as client:
                client.sendall(UPGRADE)
                received = client.recv(1000)
                assert ended.wait(5)  # the socket stays open, and reads no more
                return received

        ended = threading.Event()
        client = asyncio.create_task(asyncio.to_thread(taken))
        await until(lambda: served.server.connection_count() == 1)
        await until(lambda: served.server.connection_count() == 0)
        ended.set()
        assert await client == SWITCH


@both_loops
async def test_no_descriptor_is_left(monkeypatch, caplog) -> None:
    def none_left(*_):
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(sockets.os, "dup", none_left)
    monkeypatch.setattr(sockets.socket, "socketpair", none_left)
    async with serving(echo, raises=OSError) as served:
        reader, writer = await served.connect()
        writer.write(UPGRADE)
        with suppress(ConnectionError):
            assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()
        await until(lambda: served.server.connection_count() == 0)
    assert "Too many open files" in caplog.text


@both_loops
async def test_a_connection_that_was_taken_counts_until_it_is_closed() -> None:
    go_on = threading.Event()

    def app(environ, start_response):
        environ["werkzeug.socket"].sendall(SWITCH)
        assert go_on.wait(5)
        return []

    async with serving(app, raises=LocalProtocolError) as served:
        reader, writer = await served.connect()
        writer.write(UPGRADE)
        assert await asyncio.wait_for(reader.readexactly(len(SWITCH)), 5) == SWITCH
        await asyncio.sleep(0.02)  # the loop's own transport has ended by now, where there is a duplicate
        assert served.server.connection_count() == 1
        go_on.set()
        assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()
        await until(lambda: served.server.connection_count() == 0)


async def test_bytes_that_came_with_the_request_are_not_lost(tls) -> None:
    async with serving(echo, tls=tls[0]) as served:
        served.tls = tls[1]
        reader, writer = await served.connect()
        writer.write(UPGRADE + b"early\n")
        assert await asyncio.wait_for(reader.readexactly(len(SWITCH) + 6), 5) == SWITCH + b"EARLY\n"
        writer.write(b"later\n")
        assert await asyncio.wait_for(reader.readline(), 5) == b"LATER\n"
        writer.close()


@pytest.mark.slow
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_served_by_the_command(loop: str) -> None:
    """The descriptor has to survive the end of the loop's transport; a process that stops afterwards ends."""
    pytest.importorskip(loop)
    command = [
        sys.executable,
        "-m",
        "bridge",
        "run",
        "adapters.wsgi.test_werkzeug_socket:echo",
        "--app-dir",
        str(TESTS),
    ]
    process = subprocess.Popen(
        [*command, "--port", "0", "--loop", loop, "--interface", "wsgi", "--no-access-log"],
        cwd=TESTS.parent,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    try:
        found = re.search(r"http://127\.0\.0\.1:(\d+)", process.stderr.readline())
        assert found is not None
        for early in (b"", b"early\n"):
            with socket.create_connection(("127.0.0.1", int(found[1])), timeout=10) as client:
                client.sendall(UPGRADE + early)
                received = client.makefile("rb")
                assert received.read(len(SWITCH)) == SWITCH
                if early:
                    assert received.readline() == b"EARLY\n"
                for number in range(20):
                    client.sendall(b"line %d\n" % number)
                    assert received.readline() == b"LINE %d\n" % number
                received.close()
    finally:
        process.send_signal(signal.SIGTERM)
        rest = process.communicate(timeout=20)[1]
    assert process.returncode == 0, rest


async def test_the_client_leaves() -> None:
    ended = threading.Event()

    def app(environ, start_response):
        sock = environ["werkzeug.socket"]
        sock.sendall(SWITCH)
        assert sock.recv(10) == b""
        ended.set()
        return []

    async with serving(app, raises=LocalProtocolError) as served:
        reader, writer = await served.connect()
        writer.write(UPGRADE)
        await asyncio.wait_for(reader.readexactly(len(SWITCH)), 5)
        writer.close()
        await asyncio.to_thread(ended.wait, 5)
        assert ended.is_set()


@both_loops
async def test_a_client_that_sends_nothing_more_gets_what_the_application_sends() -> None:
    half_closed, received = threading.Event(), []

    def app(environ, start_response):
        sock = environ["werkzeug.socket"]
        assert half_closed.wait(5)
        sock.sendall(SWITCH)
        received.append(sock.recv(10))
        sock.sendall(b"the last words")
        start_response("200 OK", [])
        return []

    async with serving(app) as served:
        reader, writer = await served.connect()
        writer.write(UPGRADE)
        writer.write_eof()
        await until(lambda: any(connection._eof for connection in served.server.connections))
        half_closed.set()
        assert await asyncio.wait_for(reader.read(), 5) == SWITCH + b"the last words"
        writer.close()
    assert received == [b""]


async def test_the_socket_is_closed_when_the_application_returns(tls) -> None:
    def app(environ, start_response):
        environ["werkzeug.socket"].sendall(SWITCH)
        return []

    async with serving(app, tls=tls[0], raises=LocalProtocolError) as served:
        served.tls = tls[1]
        reader, writer = await served.connect()
        writer.write(UPGRADE)
        assert await asyncio.wait_for(reader.read(), 5) == SWITCH
        writer.close()


async def test_an_application_that_does_not_touch_it_answers_as_usual() -> None:
    def app(environ, start_response):
        if environ["PATH_INFO"] == "/again":
            start_response("200 OK", [])
            return [b"again"]
        assert isinstance(environ["werkzeug.socket"], LazySocket)
        copy.copy(environ)
        repr(environ)
        start_response("426 Upgrade Required", [])
        return [b"other"]

    async with serving(app) as served:
        reader, writer = await served.connect()
        writer.write(UPGRADE + b"GET /again HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        answer = await asyncio.wait_for(reader.read(), 5)
        writer.close()
    assert answer.startswith(b"HTTP/1.1 426 ")
    assert answer.count(b"HTTP/1.1 ") == 2
    assert answer.endswith(b"\r\n\r\nagain")


async def test_a_stop_is_seen_as_the_end_of_what_the_client_sends() -> None:
    async with serving(echo) as served:
        reader, writer = await served.connect()
        writer.write(UPGRADE)
        await asyncio.wait_for(reader.readexactly(len(SWITCH)), 5)
        served.server.stop()
        await served.server.drain(1)
        assert await served.delegate.close(5) == 0
        assert await reader.read() == b""
        writer.close()


async def test_an_application_that_ends_with_its_connection_is_not_said_to_go_on(caplog) -> None:
    """The connections are ended at the end of the time that they have, and the thread needs a moment to see that."""
    seen = threading.Event()

    def app(environ, start_response):
        sock = environ["werkzeug.socket"]
        sock.sendall(SWITCH)
        sock.recv(100)
        seen.wait(0.3)  # as a library whose reading thread wakes the application's
        raise ConnectionError("the client has left")

    async with serving(app) as served:
        reader, writer = await served.connect()
        writer.write(UPGRADE)
        await asyncio.wait_for(reader.readexactly(len(SWITCH)), 5)
        served.server.stop()
        await served.server.drain(1)
        served.delegate._stopping = asyncio.get_running_loop().time() - 60  # the stop began long ago
        assert await served.delegate.close(5) == 0
        assert "does not end" not in caplog.text
        writer.close()


async def test_a_time_limit_does_not_apply_to_a_connection_that_was_taken() -> None:
    async with serving(echo, timeout=0.05) as served:
        reader, writer = await served.connect()
        writer.write(UPGRADE)
        await asyncio.wait_for(reader.readexactly(len(SWITCH)), 5)
        await asyncio.sleep(0.2)
        writer.write(b"still there\n")
        assert await asyncio.wait_for(reader.readline(), 5) == b"STILL THERE\n"
        writer.close()


async def test_too_late(caplog) -> None:
    def app(environ, start_response):
        write = start_response("200 OK", [])
        write(b"begun")
        environ["werkzeug.socket"].sendall(b"x")
        return []

    async with serving(app, raises=ConnectionGone) as served:
        reader, writer = await served.connect()
        writer.write(UPGRADE)
        assert b"begun" in await asyncio.wait_for(reader.read(), 5)
        writer.close()
    assert "a response was sent" in caplog.text


def test_a_loop_that_is_blocked(monkeypatch) -> None:
    monkeypatch.setattr(sockets, "_TIMEOUT", 0.01)
    lazy = LazySocket(lambda answer: None)
    with pytest.raises(TimeoutError):
        lazy.fileno()
    lazy._finish()


async def test_flask_sock() -> None:
    flask = pytest.importorskip("flask")
    flask_sock = pytest.importorskip("flask_sock")
    websockets = pytest.importorskip("websockets.asyncio.client")
    app = flask.Flask(__name__)
    sock = flask_sock.Sock(app)

    @sock.route("/echo")
    def route(ws):
        while True:
            ws.send(ws.receive())

    async with serving(app) as served:
        uri = f"ws://127.0.0.1:{served.address[1]}/echo"
        async with websockets.connect(uri) as first, websockets.connect(uri) as second:
            for text in ("a", "b" * 100_000, "\u20ac"):
                await first.send(text)
                await second.send(text + "2")
                assert await first.recv() == text
                assert await second.recv() == text + "2"
            await first.send(b"\x00\xff")
            assert await first.recv() == b"\x00\xff"
