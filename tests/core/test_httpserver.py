"""HTTPServer's documented forms: its arguments in all versions, its subclasses, streams, TLS; Tornado's web on it."""

from __future__ import annotations

import asyncio
import socket
import ssl
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import trustme

from bridge.core.http1connection import HTTP1ConnectionParameters
from bridge.core.httpserver import HTTPConnection, HTTPRequest, HTTPServer
from bridge.core.httputil import HTTPServerRequest
from bridge.core.iostream import IOStream, SSLIOStream
from bridge.core.tcpserver import TCPServer
from tests.support.asgi import LIMIT, connect
from tests.support.tornadostyle import Application, Message, answer, echo, port_of, serving

GET = b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n"


# ---------------------------------------------------------------------- construction


def test_arguments_and_attributes() -> None:
    server = HTTPServer(
        echo, True, True, None, "https", max_body_size=7, chunk_size=100, trusted_downstream=["10.0.0.1"]
    )
    assert (server.request_callback, server.xheaders, server.protocol) == (echo, True, "https")
    assert server.trusted_downstream == {"10.0.0.1"}
    assert isinstance(server.conn_params, HTTP1ConnectionParameters)
    assert (server.conn_params.no_keep_alive, server.conn_params.max_body_size) == (True, 7)
    assert (server.conn_params.chunk_size, server.read_chunk_size) == (100, 100)
    assert HTTPServer(echo, max_buffer_size=1000).conn_params.max_body_size == 1000
    assert HTTPServer(echo, max_body_size=0).conn_params.max_body_size == 0
    assert HTTPServer(echo).conn_params.max_body_size == 104857600
    assert HTTPRequest is HTTPServerRequest
    with pytest.raises(TypeError, match="no_such"):
        HTTPServer(echo, no_such=1)
    with pytest.raises(TypeError, match="request_callback"):
        HTTPServer(object())


def test_the_order_of_arguments_before_version_5() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)

    class Loop:
        def add_callback(self) -> None: ...

    for loop in (Loop(), None):
        server = HTTPServer(echo, True, loop, True, context, "https", max_body_size=5)
        assert server.conn_params.no_keep_alive is True
        assert (server.xheaders, server.ssl_options, server.protocol) == (True, context, "https")
        assert server.conn_params.decompress is False
    assert HTTPServer(echo, io_loop=Loop(), xheaders=True).xheaders is True


def test_another_class_can_be_configured() -> None:
    class Other(HTTPServer):
        def initialize(self, request_callback: Any, **kwargs: Any) -> None:
            super().initialize(request_callback, **kwargs)
            self.seen = True

    HTTPServer.configure(Other, xheaders=True)
    try:
        server: Any = HTTPServer(echo)
        assert (type(server), server.seen, server.xheaders) == (Other, True, True)
        with pytest.raises(ValueError, match="HTTPServer"):
            HTTPServer.configure(TCPServer)
    finally:
        HTTPServer.configure(None)
    assert type(HTTPServer(echo)) is HTTPServer


# ---------------------------------------------------------------------- subclasses and streams


async def test_subclasses_may_override_start_request_and_on_close() -> None:
    seen: list[Any] = []

    class Server(HTTPServer):
        def start_request(self, server_conn: Any, request_conn: Any) -> Any:
            seen.append(server_conn)
            return super().start_request(server_conn, request_conn)

        def on_close(self, server_conn: Any) -> None:
            seen.append("closed")
            super().on_close(server_conn)

    app = Application()
    for callback in (echo, app):
        async with serving(callback, server_type=Server) as port, connect(port) as client:
            client.send(GET + b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello")
            assert (await client.response())[0] == 200
            assert (await client.response())[2] == b"hello"
        assert seen[0] is seen[1]
        assert seen[2:] == ["closed"]
        seen.clear()
    assert len(app.ended) == 1


@pytest.mark.parametrize("tls", [False, True])
async def test_subclasses_may_override_handle_stream(tls: bool) -> None:
    streams: list[Any] = []
    authority = trustme.CA()
    context = None
    if tls:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert("localhost").configure_cert(context)

    class Server(HTTPServer):
        def handle_stream(self, stream: Any, address: Any) -> None:
            streams.append((type(stream), address[0]))
            super().handle_stream(stream, address)

    def note(request: HTTPServerRequest) -> None:
        connection: Any = request.connection
        streams.append(type(connection.stream))
        answer(connection, request.protocol.encode())

    client_context = ssl.create_default_context()
    authority.configure_trust(client_context)
    async with serving(note, server_type=Server, ssl_options=context) as port:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=client_context if tls else None, server_hostname="localhost" if tls else None
        )
        writer.write(GET + GET)
        async with asyncio.timeout(LIMIT):
            for _ in range(2):
                head = await reader.readuntil(b"\r\n\r\n")
                assert await reader.readexactly(5 if tls else 4) == (b"https" if tls else b"http")
                assert head.startswith(b"HTTP/1.1 200")
        writer.close()
        await writer.wait_closed()
    kind = SSLIOStream if tls else IOStream
    assert streams == [(kind, "127.0.0.1"), kind, kind]


async def test_the_connection_class_of_version_3() -> None:
    """A TCPServer that makes an HTTPConnection of each stream, and answers through it."""
    connections: list[HTTPConnection] = []
    closed = asyncio.Event()

    def handle(request: HTTPServerRequest) -> None:
        connection = connections[0]
        content = f"{request.remote_ip} {request.protocol} {request.body.decode()}"
        connection.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(content)}\r\n\r\n")
        connection.write(content.encode(), callback=None)
        connection.finish()
        connection.write(b"dropped")
        connection.finish()

    class Server(TCPServer):
        def handle_stream(self, stream: Any, address: Any) -> None:
            assert address[0] == "127.0.0.1"
            connection = HTTPConnection(stream, ("192.0.2.7", 1), handle, xheaders=True, protocol="https")
            connection.set_close_callback(closed.set)
            connections.append(connection)

    server = Server()
    server.listen(0, "127.0.0.1")
    async with connect(port_of(server)) as client:
        client.send(GET)
        assert (await client.response())[2] == b"192.0.2.7 https "
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nX-Real-Ip: 192.0.2.1\r\nX-Scheme: http\r\n")
        client.send(b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n")
        assert (await client.response())[2] == b"192.0.2.1 http hello"
        connection = connections[0]
        assert (connection.address_family, connection.no_keep_alive) == (socket.AF_INET, False)
        assert connection.request_callback is handle
        connection.close()
        assert await client.rest() == b""
        async with asyncio.timeout(LIMIT):
            await closed.wait()
        connection.write(b"nobody")
    server.stop()


# ---------------------------------------------------------------------- what a proxy says


@pytest.mark.parametrize(
    ("fields", "address", "scheme"),
    [
        ([], "127.0.0.1", "http"),
        (["X-Forwarded-For: 192.0.2.1"], "192.0.2.1", "http"),
        (["X-Forwarded-For: 192.0.2.1, 192.0.2.2"], "192.0.2.2", "http"),
        (["X-Forwarded-For: 192.0.2.1, 192.0.2.2, 10.0.0.1, 10.0.0.2"], "192.0.2.2", "http"),
        (["X-Forwarded-For: 192.0.2.1", "X-Forwarded-For: 10.0.0.2"], "192.0.2.1", "http"),
        (["X-Forwarded-For: 10.0.0.2, 10.0.0.1"], "10.0.0.2", "http"),
        (["X-Forwarded-For: 192.0.2.1", "X-Real-Ip: 2001:db8::1"], "2001:db8::1", "http"),
        (["X-Forwarded-For: nobody"], "127.0.0.1", "http"),
        (["X-Real-Ip: 192.0.2.1, 192.0.2.2"], "127.0.0.1", "http"),
        (["X-Scheme: https"], "127.0.0.1", "https"),
        (["X-Forwarded-Proto: https"], "127.0.0.1", "https"),
        (["X-Forwarded-Proto: https , http"], "127.0.0.1", "http"),
        (["X-Forwarded-Proto: https", "X-Scheme: http"], "127.0.0.1", "http"),
        (["X-Scheme: ftp"], "127.0.0.1", "http"),
    ],
)
async def test_forwarded(fields: list[str], address: str, scheme: str) -> None:
    seen = []

    def note(request: HTTPServerRequest) -> None:
        seen.append((request.remote_ip, request.protocol))
        echo(request)

    trusted = ["10.0.0.1", "10.0.0.2"]
    async with serving(note, xheaders=True, trusted_downstream=trusted) as port, connect(port) as client:
        client.get("/", *fields)
        await client.response()
    async with serving(note) as port, connect(port) as client:
        client.get("/", *fields)
        await client.response()
    assert seen == [(address, scheme), ("127.0.0.1", "http")]


# ---------------------------------------------------------------------- tornado.web, unchanged

tornado_web = pytest.importorskip("tornado.web")
tornado_websocket = pytest.importorskip("tornado.websocket")


class Echo(tornado_web.RequestHandler):  # type: ignore[misc,name-defined]
    def get(self) -> None:
        self.write({"name": self.get_argument("name", "nobody"), "ip": self.request.remote_ip})

    async def post(self) -> None:
        await asyncio.sleep(0)
        self.write(self.request.body)


@tornado_web.stream_request_body  # type: ignore[misc]
class Upload(tornado_web.RequestHandler):  # type: ignore[misc,name-defined]
    def initialize(self) -> None:
        self.size = 0

    async def prepare(self) -> None:
        self.request.connection.set_max_body_size(1 << 24)
        await asyncio.sleep(0)

    async def data_received(self, chunk: bytes) -> None:
        await asyncio.sleep(0)
        self.size += len(chunk)

    def put(self) -> None:
        self.write(str(self.size))


class Talk(tornado_websocket.WebSocketHandler):  # type: ignore[misc,name-defined]
    closed: asyncio.Event

    async def on_message(self, message: Any) -> None:
        await self.write_message(message, binary=isinstance(message, bytes))

    def on_close(self) -> None:
        Talk.closed.set()


async def test_tornado_web(tmp_path: Path) -> None:
    (tmp_path / "file.txt").write_bytes(b"0123456789" * 50_000)
    app = tornado_web.Application(
        [("/", Echo), ("/upload", Upload), ("/files/(.*)", tornado_web.StaticFileHandler, {"path": str(tmp_path)})],
        log_function=lambda handler: None,
    )
    async with serving(app, max_body_size=1000) as port, connect(port) as client:
        client.get("/?name=Ada")
        assert (await client.response())[2] == b'{"name": "Ada", "ip": "127.0.0.1"}'
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello")
        assert (await client.response())[2] == b"hello"
        size = 10_000_000
        client.send(b"PUT /upload HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size + bytes(size))
        assert (await client.response())[2] == b"%d" % size
        client.get("/files/file.txt")
        assert len((await client.response())[2]) == 500_000
        client.get("/files/file.txt", "Range: bytes=10-19")
        status, fields, content = await client.response()
        assert (status, fields["content-range"], content) == (206, "bytes 10-19/500000", b"0123456789")
        client.get("/nothing")
        assert (await client.response())[0] == 404
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1001\r\n\r\n")
        assert (await client.response())[0] == 413


async def test_tornado_websocket() -> None:
    websockets = pytest.importorskip("websockets.asyncio.client")
    Talk.closed = asyncio.Event()
    app = tornado_web.Application([("/talk", Talk)], log_function=lambda handler: None)
    async with serving(app) as port, asyncio.timeout(LIMIT):
        async with websockets.connect(f"ws://127.0.0.1:{port}/talk", compression=None) as client:
            for message in ("hello", b"bytes", "x" * 500_000):
                await client.send(message)
                assert await client.recv() == message
            await (await client.ping())
        await Talk.closed.wait()


async def test_awaited_writes_fail_in_tornados_words() -> None:
    iostream = pytest.importorskip("tornado.iostream")
    failed = asyncio.Event()
    left = asyncio.Event()
    ready = asyncio.Event()

    class Slow(tornado_web.RequestHandler):  # type: ignore[misc,name-defined]
        async def get(self) -> None:
            ready.set()
            await left.wait()
            try:
                while True:
                    self.write(b"x" * 65536)
                    await self.flush()
            except iostream.StreamClosedError:
                failed.set()
                raise

        def on_connection_close(self) -> None:
            left.set()

    app = tornado_web.Application([("/", Slow)], log_function=lambda handler: None)
    async with serving(app) as port, connect(port) as client:
        client.get("/")
        await ready.wait()
        client.reset()
        async with asyncio.timeout(LIMIT):
            await failed.wait()


async def test_delegates_of_either_module_get_their_start_line() -> None:
    httputil = pytest.importorskip("tornado.httputil")
    lines: list[Any] = []

    class Theirs(httputil.HTTPServerConnectionDelegate):  # type: ignore[misc,name-defined]
        def start_request(self, server_conn: Any, request_conn: Any) -> Any:
            class Told(Message):
                def headers_received(self, start_line: Any, headers: Any) -> None:
                    lines.append(start_line)

                def finish(self) -> None:
                    answer(self.connection, b"")

            return Told(Application(), server_conn, request_conn)

    class Neither:
        start_request = Theirs.start_request

    for delegate in (Theirs(), Neither()):
        async with serving(delegate) as port, connect(port) as client:
            client.get("/a?b")
            assert (await client.response())[0] == 200
    assert type(lines[0]) is httputil.RequestStartLine
    assert type(lines[1]).__module__ == "bridge.core.tornado.startline"
    assert [tuple(line) for line in lines] == [("GET", "/a?b", "HTTP/1.1")] * 2


def test_core_does_not_import_tornado() -> None:
    code = (
        "import sys, bridge.core.httpserver, bridge.core.tornado.client, bridge.core.iostream\n"
        "import bridge.adapters.tornado\n"
        "sys.exit(any(name.partition('.')[0] == 'tornado' for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_install() -> None:
    code = (
        "import tornado.testing\n"
        "from bridge.adapters.tornado import install\n"
        "install(); install()\n"
        "import tornado.httpserver, tornado.web, bridge.core.httpserver\n"
        "ours = bridge.core.httpserver.HTTPServer\n"
        "assert tornado.httpserver.HTTPServer is tornado.web.HTTPServer is tornado.testing.HTTPServer is ours\n"
        "import asyncio\n"
        "async def main():\n"
        "    server = tornado.web.Application([]).listen(0, '127.0.0.1')\n"
        "    assert type(server) is ours\n"
        "    server.stop()\n"
        "asyncio.run(main())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
