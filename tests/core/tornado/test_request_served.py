"""HTTPServerRequest as a callable gets it from a real server: Tornado's documented interface of 3.x and later."""

from __future__ import annotations

import asyncio
import ssl
import threading
import tracemalloc
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme

from bridge.core.httpserver import HTTPRequest, HTTPServer
from bridge.core.httputil import HTTPFile, HTTPHeaders, HTTPServerRequest, ResponseStartLine
from bridge.core.middleware.proxy import ProxyDelegate, ProxyPolicy
from bridge.core.netutil import bind_sockets
from bridge.core.tornado import forms
from bridge.core.tornado.dispatch import adapt
from tests.support.faults import Raises, application_errors
from tests.support.link import linked

Callback = Callable[[HTTPServerRequest], object]


@asynccontextmanager
async def served(callback: Callback, *, raises: Raises = (), **options: Any) -> AsyncIterator[int]:
    """Serve *callback*; yield the port. What it has raised is raised in the end."""
    with application_errors(raises):
        server = HTTPServer(callback, **options)
        sockets = bind_sockets(0, "127.0.0.1")
        server.add_sockets(sockets)
        try:
            async with asyncio.timeout(30):
                yield sockets[0].getsockname()[1]
        finally:
            server.stop()
            await server.close_all_connections()


async def exchange(port: int, wire: bytes, tls: ssl.SSLContext | None = None) -> bytes:
    """Send *wire* and return everything that comes until the server closes."""
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", port, ssl=tls, server_hostname="localhost" if tls is not None else None
    )
    try:
        writer.write(wire)
        return await reader.read()
    finally:
        writer.close()


def get(target: str = "/", *fields: str) -> bytes:
    return "\r\n".join([f"GET {target} HTTP/1.1", "Host: localhost", "Connection: close", *fields, "", ""]).encode(
        "latin-1"
    )


def post(content_type: str, body: bytes, target: str = "/") -> bytes:
    head = ["Host: localhost", "Connection: close", f"Content-Type: {content_type}", f"Content-Length: {len(body)}"]
    return "\r\n".join([f"POST {target} HTTP/1.1", *head, "", ""]).encode() + body


def answer(request: HTTPServerRequest, content: bytes = b"") -> None:
    headers = HTTPHeaders({"Content-Length": str(len(content))})
    assert request.connection is not None
    request.connection.write_headers(ResponseStartLine("HTTP/1.1", 200, "OK"), headers, content)
    request.connection.finish()


async def seen_by(
    wire: bytes, note: Callable[[HTTPServerRequest], Any], wrap: Callable[[Callback], Any] | None = None, **options: Any
) -> Any:
    """Return what *note* returns for the request *wire*, which is answered; the server gets ``wrap(callback)``."""
    notes: list[Any] = []

    def callback(request: HTTPServerRequest) -> None:
        notes.append(note(request))
        answer(request)

    async with served(wrap(callback) if wrap is not None else callback, **options) as port:
        assert (await exchange(port, wire)).startswith(b"HTTP/1.1 200")
    (only,) = notes
    return only


async def test_the_handler_of_the_3_1_documentation() -> None:
    def handle_request(request: HTTPRequest) -> None:
        message = f"You requested {request.uri}\n"
        request.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(message)}\r\n\r\n{message}")
        request.finish()

    async with served(handle_request) as port:
        response = await exchange(port, get("/x?y"))
    assert response == b"HTTP/1.1 200 OK\r\nContent-Length: 19\r\n\r\nYou requested /x?y\n"


async def test_several_requests_on_one_connection_write_for_themselves() -> None:
    async def handle_request(request: HTTPRequest) -> None:
        request.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n")
        await asyncio.sleep(0)
        request.write(request.path)
        request.finish()

    async with served(handle_request) as port:
        wire = get("/a").replace(b"Connection: close\r\n", b"") + get("/b")
        response = await exchange(port, wire)
    assert response.replace(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", b"|") == b"|/a|/b"


async def test_a_write_tells_when_it_is_flushed() -> None:
    flushed: list[str] = []

    def handle_request(request: HTTPRequest) -> None:
        def then() -> None:
            flushed.append("head")
            request.write("x", callback=request.finish)

        request.write("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: close\r\n\r\n", then)

    async with served(handle_request) as port:
        response = await exchange(port, get())
    assert response.endswith(b"\r\n\r\nx")
    assert flushed == ["head"]


async def test_what_a_request_knows() -> None:
    def note(request: HTTPServerRequest) -> dict[str, Any]:
        names = ["method", "uri", "path", "query", "version", "host", "remote_ip", "protocol", "arguments", "body"]
        known = {name: getattr(request, name) for name in names}
        return {
            **known,
            "url": request.full_url(),
            "cookie": request.cookies["k"].value,
            "1.1": request.supports_http_1_1(),
        }

    assert await seen_by(get("/a?b=%C3%A9&b=", "Cookie: k=v"), note) == {
        "method": "GET",
        "uri": "/a?b=%C3%A9&b=",
        "path": "/a",
        "query": "b=%C3%A9&b=",
        "version": "HTTP/1.1",
        "host": "localhost",
        "remote_ip": "127.0.0.1",
        "protocol": "http",
        "arguments": {"b": [b"\xc3\xa9", b""]},
        "body": b"",
        "url": "http://localhost/a?b=%C3%A9&b=",
        "cookie": "v",
        "1.1": True,
    }


async def test_the_prefix_that_a_trusted_proxy_takes_away() -> None:
    def note(request: HTTPServerRequest) -> Any:
        return request.prefix, request.path, request.uri, request.full_url()

    wire = get("/a?b", "X-Forwarded-Prefix: /app%20s/", "X-Forwarded-Proto: https")
    plain = ("", "/a", "/a?b", "http://localhost/a?b")
    assert await seen_by(wire, note) == plain
    # Nobody who has not set the field himself knows where it comes from.
    assert await seen_by(wire, note, xheaders=True) == (*plain[:3], "https://localhost/a?b")
    for trusted, expected in (
        ("127.0.0.1", ("/app%20s", "/a", "/a?b", "https://localhost/app%20s/a?b")),
        ("192.0.2.1", plain),
    ):

        def behind(callback: Any, trusted: str = trusted) -> ProxyDelegate:
            return ProxyDelegate(adapt(callback), ProxyPolicy([trusted]))

        assert await seen_by(wire, note, wrap=behind) == expected
    assert HTTPServerRequest(uri="/a").prefix == ""


async def test_forms_are_read_before_the_callable_runs() -> None:
    def note(request: HTTPServerRequest) -> Any:
        return request.arguments, request.body_arguments, request.files, len(request.body)

    urlencoded = await seen_by(post("application/x-www-form-urlencoded", b"a=2&c=3", "/?a=1"), note)
    assert urlencoded == ({"a": [b"1", b"2"], "c": [b"3"]}, {"a": [b"2"], "c": [b"3"]}, {}, 7)
    body = (
        b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n2\r\n'
        b'--b\r\nContent-Disposition: form-data; name="f"; filename="g"\r\n'
        b"Content-Type: text/plain\r\n\r\nx\r\n--b--\r\n"
    )
    multipart = await seen_by(post("multipart/form-data; boundary=b", body, "/?a=1"), note)
    files = {"f": [HTTPFile(filename="g", body=b"x", content_type="text/plain")]}
    assert multipart == ({"a": [b"1", b"2"]}, {"a": [b"2"]}, files, len(body))


LARGE = b"x" * 100_000
LARGE_FORM = b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n%b\r\n--b--\r\n' % LARGE


@pytest.mark.parametrize("awaits", [False, True])
async def test_a_large_form_is_read_in_a_thread(awaits: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    threads = []
    parse = forms.parse_body_arguments

    def noted(*args: Any, **kwargs: Any) -> None:
        threads.append(threading.current_thread())
        parse(*args, **kwargs)

    monkeypatch.setattr(forms, "parse_body_arguments", noted)

    async def later(request: HTTPServerRequest) -> None:
        await asyncio.sleep(0)
        answer(request)

    def answer(request: HTTPServerRequest) -> None:
        assert threading.current_thread() is threading.main_thread()
        request.write(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n%d" % len(request.arguments["a"][0]))
        request.finish()

    async with served(later if awaits else answer) as port:
        for kind, body in (
            ("multipart/form-data; boundary=b", LARGE_FORM),
            ("application/x-www-form-urlencoded", b"a=" + LARGE),
        ):
            assert (await exchange(port, post(kind, body))).endswith(b"\r\n\r\n100000")
    assert len(threads) == 2
    assert threading.main_thread() not in threads


def test_large_content_is_in_memory_once() -> None:
    contents = []

    def take(request: HTTPServerRequest) -> None:
        contents.append(request.body)
        answer(request)

    with linked(adapt(take), max_body_size=16 << 20) as link:
        link.send(post("application/octet-stream", b"").replace(b"Length: 0", b"Length: %d" % (8 << 20)))
        tracemalloc.start()
        try:
            for _ in range(128):
                link.send(bytes(1 << 16))  # each is memory of its own
                link.loop.settle()
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert contents == [bytes(8 << 20)]
    assert peak < 12 << 20


async def test_a_client_that_leaves_while_its_form_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    reached: list[HTTPServerRequest] = []
    begun, left = threading.Event(), threading.Event()
    parse = forms.parse_body_arguments

    def slow(*args: Any, **kwargs: Any) -> None:
        begun.set()
        assert left.wait(30)
        parse(*args, **kwargs)

    monkeypatch.setattr(forms, "parse_body_arguments", slow)
    async with served(reached.append) as port:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(post("multipart/form-data; boundary=b", LARGE_FORM))
        await asyncio.to_thread(begun.wait, 30)
        writer.transport.abort()
        # The server has seen the end when it closes the connection of another client that ended later.
        await exchange(port, get("/", "Host: other"))
        left.set()
    assert reached == []


REFUSED = [
    pytest.param(post("multipart/form-data; boundary=b", b"--c--"), id="malformed multipart form"),
    pytest.param(post("multipart/form-data; boundary=b", LARGE_FORM[:-6]), id="a large one"),
    pytest.param(post("multipart/form-data", b"--c--"), id="multipart form without a boundary"),
    pytest.param(post("application/x-www-form-urlencoded", b"a&" * 1000), id="too many form arguments"),
    pytest.param(get("/?" + "a&" * 1000), id="too many query arguments"),
    pytest.param(get("/", "Host: other"), id="two hosts"),
    pytest.param(get().replace(b"Host: localhost\r\n", b""), id="no host"),
    pytest.param(get().replace(b"localhost", b"a,b"), id="a list of hosts"),
]


@pytest.mark.parametrize("wire", REFUSED)
async def test_what_is_refused_never_reaches_the_callable(wire: bytes) -> None:
    reached: list[HTTPServerRequest] = []
    async with served(reached.append) as port:
        response = await exchange(port, wire)
    head, _, content = response.partition(b"\r\n\r\n")
    assert response.startswith(b"HTTP/1.1 400 ")
    assert b"connection: close" in head.lower()
    assert b"content-length: %d" % len(content) in head.lower()
    assert reached == []


async def test_request_time_stops_with_finish() -> None:
    requests: list[HTTPServerRequest] = []

    def handle_request(request: HTTPServerRequest) -> None:
        requests.append(request)
        request.write("HTTP/1.1 204 No Content\r\n\r\n")
        request.finish()

    async with served(handle_request) as port:
        await exchange(port, get())
    first = requests[0].request_time()
    assert 0 <= first < 30
    assert requests[0].request_time() == first


async def test_no_certificate_without_tls() -> None:
    assert await seen_by(get(), lambda request: (request.get_ssl_certificate(), request.get_ssl_certificate(True))) == (
        None,
        None,
    )


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Options of a server that asks for certificates, contexts of clients with and without, the certificate."""
    folder: Path = tmp_path_factory.mktemp("served")
    ca = trustme.CA()
    server, client = ca.issue_cert("localhost"), ca.issue_cert("client@example.com")
    ca.cert_pem.write_to_path(folder / "ca.pem")
    server.private_key_and_cert_chain_pem.write_to_path(folder / "server.pem")
    contexts = {}
    for name in ("with", "without"):
        contexts[name] = ssl.create_default_context(cafile=str(folder / "ca.pem"))
    client.configure_cert(contexts["with"])
    options = {"certfile": str(folder / "server.pem"), "ca_certs": str(folder / "ca.pem")}
    return {"options": options, "der": ssl.PEM_cert_to_DER_cert(client.cert_chain_pems[0].bytes().decode()), **contexts}


@pytest.mark.parametrize(("client", "needed"), [("with", ssl.CERT_REQUIRED), ("without", ssl.CERT_OPTIONAL)])
async def test_the_clients_certificate(tls: dict[str, Any], client: str, needed: ssl.VerifyMode) -> None:
    seen: list[Any] = []

    def callback(request: HTTPServerRequest) -> None:
        seen.extend((request.protocol, request.get_ssl_certificate(), request.get_ssl_certificate(binary_form=True)))
        answer(request)

    async with served(callback, ssl_options={**tls["options"], "cert_reqs": needed}) as port:
        assert (await exchange(port, get(), tls[client])).startswith(b"HTTP/1.1 200")
    protocol, certificate, der = seen
    assert protocol == "https"
    if client == "with":
        assert certificate["subjectAltName"] == (("email", "client@example.com"),)
        assert der == tls["der"]
    else:
        assert (certificate, der) == (None, None)
