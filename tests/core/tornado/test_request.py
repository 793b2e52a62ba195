from __future__ import annotations

import copy
import gc
import ssl
import weakref
from http.cookies import Morsel
from types import SimpleNamespace
from typing import Any

import pytest
import trustme

from bridge.core.connection.context import ConnectionContext
from bridge.core.http.limits import Limits
from bridge.core.http.message import RequestHead
from bridge.core.http1.request import parse_head
from bridge.core.httputil import (
    HTTPFile,
    HTTPHeaders,
    HTTPInputError,
    HTTPServerRequest,
    RequestStartLine,
    split_host_and_port,
)
from bridge.core.tornado import request as httprequest
from tests.support.certificates import handshaken


class Connection:
    """An exchange's connection as a request sees it; keeps what is written."""

    def __init__(self, head: RequestHead, context: ConnectionContext, server_connection: object) -> None:
        self.exchange = SimpleNamespace(head=head, context=context)
        self.context = context
        self.server_connection = server_connection
        self.calls: list[tuple[Any, ...]] = []

    def write(self, chunk: bytes, callback: object = None) -> None:
        self.calls.append(("write", chunk) if callback is None else ("write", chunk, callback))

    def finish(self) -> None:
        self.calls.append(("finish",))


def received(wire: bytes, ssl_object: object = None, protocol: str = "http") -> HTTPServerRequest:
    """Return the request of a head from the wire."""
    head = parse_head(wire, 0, Limits())
    assert head is not None
    context = ConnectionContext(("192.0.2.7", 4711), 2, protocol)
    transport = SimpleNamespace(get_extra_info=lambda name: ssl_object if name == "ssl_object" else None)
    return HTTPServerRequest.from_connection(Connection(head, context, SimpleNamespace(transport=transport)))


def get(target: str = "/", *fields: str, version: str = "1.1") -> HTTPServerRequest:
    lines = [
        f"GET {target} HTTP/{version}",
        *(("Host: Example.com:8080",) if version == "1.1" else ()),
        *fields,
        "",
        "",
    ]
    return received("\r\n".join(lines).encode("latin-1"))


def made(**arguments: Any) -> HTTPServerRequest:
    """Return a request made by a program."""
    arguments.setdefault("headers", HTTPHeaders({"Host": "example.com"}))
    return HTTPServerRequest(start_line=RequestStartLine("GET", arguments.pop("uri", "/"), "HTTP/1.1"), **arguments)


# --- a request from the wire ------------------------------------------------------------------------------------------


def test_every_attribute() -> None:
    request = get("/a%20b?x=1&y=%C3%A9&x=", "Cookie: k=v")
    connection = request.connection
    assert isinstance(connection, Connection)
    assert request.method == "GET"
    assert request.uri == "/a%20b?x=1&y=%C3%A9&x="
    assert request.path == "/a%20b"
    assert request.query == "x=1&y=%C3%A9&x="
    assert request.version == "HTTP/1.1"
    assert list(request.headers.get_all()) == [("Host", "Example.com:8080"), ("Cookie", "k=v")]
    assert request.headers.raw == list(connection.exchange.head.fields)
    assert request.body == b""
    assert request.remote_ip == "192.0.2.7"
    assert request.protocol == "http"
    assert request.host == "Example.com:8080"
    assert request.host_name == "example.com"
    assert request.arguments == {"x": [b"1", b""], "y": [b"\xc3\xa9"]}
    assert request.query_arguments == request.arguments
    assert request.body_arguments == {}
    assert request.files == {}
    assert request.cookies["k"].value == "v"
    assert request.server_connection is connection.server_connection
    assert request.supports_http_1_1()
    assert vars(request) == {}, "every attribute has its slot"


TARGETS = [
    ("/", "/", ""),
    ("/?", "/", ""),
    ("/a?b?c", "/a", "b?c"),
    ("//host/a", "//host/a", ""),
    ("/a;b=c", "/a;b=c", ""),
    ("http://other/a?b", "http://other/a", "b"),
]


@pytest.mark.parametrize(("target", "path", "query"), TARGETS)
def test_path_and_query(target: str, path: str, query: str) -> None:
    for request in (get(target), made(uri=target)):
        assert (request.uri, request.path, request.query) == (target, path, query)


def test_the_asterisk() -> None:
    request = received(b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n")
    assert (request.method, request.uri, request.path, request.query) == ("OPTIONS", "*", "*", "")
    assert request.full_url() == "http://a"


def test_http_1_0_without_host() -> None:
    request = get(version="1.0")
    assert request.version == "HTTP/1.0"
    assert request.host == request.host_name == "127.0.0.1"
    assert "Host" not in request.headers
    assert not request.supports_http_1_1()


FULL_URLS = [
    ("/", "http://Example.com:8080/"),
    ("/a?b=c", "http://Example.com:8080/a?b=c"),
    ("//x/y", "http://Example.com:8080//x/y"),
    ("http://other:81/a?b", "http://other:81/a?b"),
]


@pytest.mark.parametrize(("target", "url"), FULL_URLS)
def test_full_url(target: str, url: str) -> None:
    assert get(target).full_url() == url


def test_full_url_of_https() -> None:
    assert received(b"GET /a HTTP/1.1\r\nHost: b\r\n\r\n", protocol="https").full_url() == "https://b/a"


def test_nothing_is_worked_out_before_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    filled: list[str] = []
    for name, fill in httprequest._FILL.items():
        monkeypatch.setitem(httprequest._FILL, name, lambda request, n=name, f=fill: (filled.append(n), f(request))[1])
    request = get("/?a=1")
    assert filled == []
    assert request.headers is request.headers
    assert request.arguments is request.arguments
    assert request.path is request.path
    assert sorted(filled) == ["arguments", "headers", "path", "query", "query_arguments"]


def test_attributes_can_be_set() -> None:
    request = get("/?a=1")
    for name in (
        "path",
        "query",
        "host",
        "remote_ip",
        "protocol",
        "method",
        "body",
        "arguments",
        "cookies",
        "connection",
    ):
        setattr(request, name, "mine")
        assert getattr(request, name) == "mine"
    request.user = "hung on"  # type: ignore[attr-defined]
    assert request.user == "hung on"  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match="'HTTPServerRequest' object has no attribute 'other'"):
        _ = request.other  # type: ignore[attr-defined]


def test_a_path_that_was_set_decides_nothing_else() -> None:
    request = get("/a?b=1")
    request.path = "/c"
    assert request.uri == "/a?b=1"
    assert request.query == "b=1"


def test_arguments_and_query_arguments_are_apart() -> None:
    request = get("/?a=1")
    request.arguments["a"].append(b"2")
    request.arguments["b"] = [b"3"]
    assert request.query_arguments == {"a": [b"1"]}


def test_repr_tells_neither_headers_nor_body() -> None:
    request = get("/a?b", "Authorization: secret")
    request.body = b"secret"
    assert repr(request) == (
        "HTTPServerRequest(protocol='http', host='Example.com:8080', method='GET', uri='/a?b', version='HTTP/1.1', "
        "remote_ip='192.0.2.7')"
    )

    class Mine(HTTPServerRequest):
        pass

    assert repr(Mine()).startswith("Mine(protocol='http', host='127.0.0.1'")


def test_requests_can_be_copied_and_leave_no_cycle() -> None:
    request = get("/?a=1", "Cookie: k=v")
    other = copy.copy(request)
    assert other.arguments == {"a": [b"1"]}
    assert other.connection is request.connection
    gc.disable()
    try:
        gone = weakref.ref(other)
        del other
        assert gone() is None
    finally:
        gc.enable()


# --- a request made by a program --------------------------------------------------------------------------------------


def test_nothing_is_needed() -> None:
    request = HTTPServerRequest()
    assert (request.method, request.uri, request.version) == ("GET", "/", "HTTP/1.0")
    assert (request.host, request.remote_ip, request.protocol) == ("127.0.0.1", None, "http")
    assert (request.body, request.files, request.connection, request.server_connection) == (b"", {}, None, None)
    assert not request.headers
    assert not request.cookies
    assert request.full_url() == "http://127.0.0.1/"


def test_the_arguments_of_version_3() -> None:
    files = {"f": [HTTPFile(filename="a", body=b"", content_type="b")]}
    request = HTTPServerRequest(
        "PUT",
        "/a?b=c",
        "HTTP/1.1",
        HTTPHeaders({"Host": "ignored"}),
        b"body",
        remote_ip="192.0.2.1",
        protocol="https",
        host="example.com",
        files=files,
        connection=None,
    )
    assert (request.method, request.uri, request.version) == ("PUT", "/a?b=c", "HTTP/1.1")
    assert (request.body, request.remote_ip, request.protocol) == (b"body", "192.0.2.1", "https")
    assert (request.host, request.files) == ("example.com", files)
    assert request.headers["Host"] == "ignored"


def test_the_arguments_of_version_4() -> None:
    connection: Any = SimpleNamespace(context=SimpleNamespace(remote_ip="192.0.2.9", protocol="https"))
    server_connection = object()
    line = RequestStartLine("POST", "/x", "HTTP/1.1")
    request = HTTPServerRequest(
        None, None, "HTTP/1.0", HTTPHeaders(host="a"), b"b", None, None, connection, line, server_connection
    )
    assert (request.method, request.uri, request.version) == line
    assert (request.remote_ip, request.protocol) == ("192.0.2.9", "https")
    assert request.connection is connection
    assert request.server_connection is server_connection
    assert HTTPServerRequest("GET", "/y", start_line=line, host="a").uri == "/x"
    assert made(connection=connection, remote_ip="192.0.2.2", protocol="http").remote_ip == "192.0.2.2"
    assert made(connection=connection, remote_ip="192.0.2.2", protocol="http").protocol == "http"
    assert made(connection=object()).remote_ip is None


GOOD_HOSTS = [
    ("example.com", "example.com"),
    ("Example.COM:80", "example.com"),
    ("[::1]:8080", "[::1]"),
    ("[::1]", "[::1]"),
    ("192.0.2.1:1", "192.0.2.1"),
    ("a_b~c.%41!$&'()*+;=", "a_b~c.%41!$&'()*+;="),
    ("", ""),
    (":80", ":80"),
]
BAD_HOSTS = [
    *(
        "a b",
        "a,b",
        "a/b",
        "a?b",
        "a@b",
        "a#b",
        "a\\b",
        "a:b",
        "a:80:80",
        "::1",
        "[::1",
        "a]",
        "a%4",
        "a%zz",
        '"a"',
        "<a>",
    ),
    *("a\n", "\xe9", "a:123456", "[]", "a\x00"),
]


@pytest.mark.parametrize(("host", "name"), GOOD_HOSTS)
def test_a_host(host: str, name: str) -> None:
    request = made(headers=HTTPHeaders.from_raw([(b"host", host.encode())]))
    assert request.host == host
    assert request.host_name == name
    assert HTTPServerRequest(host=host).host == host


@pytest.mark.parametrize("host", BAD_HOSTS)
def test_no_host(host: str) -> None:
    headers = HTTPHeaders()
    headers["Host"] = host
    with pytest.raises(HTTPInputError, match="Invalid Host header"):
        made(headers=headers)
    with pytest.raises(HTTPInputError, match="Invalid Host header"):
        HTTPServerRequest(host=host)


def test_two_hosts() -> None:
    with pytest.raises(HTTPInputError, match="Invalid Host header: 'a,a': more than one"):
        made(headers=HTTPHeaders.from_raw([(b"host", b"a"), (b"host", b"a")]))


def test_a_missing_host() -> None:
    with pytest.raises(HTTPInputError, match="Invalid Host header: missing"):
        made(headers=HTTPHeaders())
    assert made(headers=HTTPHeaders(), host="a").host == "a"


@pytest.mark.parametrize("make", [get, lambda target: made(uri=target)], ids=["from the wire", "made"])
def test_query_arguments_are_limited_at_construction(make: Any) -> None:
    assert len(make("/?" + "a&" * 999 + "a").arguments["a"]) == 1000
    with pytest.raises(HTTPInputError, match="Invalid query string: Max number of fields exceeded: 1001, limit 1000"):
        make("/?" + "a&" * 1000)


@pytest.mark.parametrize(
    ("netloc", "expected"),
    [
        ("a:80", ("a", 80)),
        ("a", ("a", None)),
        ("a:", ("a:", None)),
        ("[::1]:443", ("[::1]", 443)),
        ("[::1]", ("[::1]", None)),
        ("", ("", None)),
        (":80", (":80", None)),
        ("a:\u0661", ("a:\u0661", None)),
        ("a:" + "1" * 5000, ("a:" + "1" * 5000, None)),
    ],
)
def test_host_and_port(netloc: str, expected: tuple[str, int | None]) -> None:
    assert split_host_and_port(netloc) == expected


# --- cookies ----------------------------------------------------------------------------------------------------------


def test_cookies() -> None:
    request = get("/", 'Cookie: a=b; c="d\\"e"; a=f; bad name=x; Path=/; (=y; g=h')
    assert {name: morsel.value for name, morsel in request.cookies.items()} == {"a": "f", "c": 'd"e', "g": "h"}
    assert all(isinstance(morsel, Morsel) for morsel in request.cookies.values())
    assert request.cookies is request.cookies


def test_several_cookie_fields() -> None:
    assert {name: morsel.value for name, morsel in get("/", "Cookie: a=b", "Cookie: c=d").cookies.items()} == {
        "a": "b",
        "c": "d",
    }


# --- forms ------------------------------------------------------------------------------------------------------------


def post(body: bytes, *fields: str, target: str = "/?a=1&b=2") -> HTTPServerRequest:
    request = get(target, *fields)
    request.body = body
    return request


URLENCODED = "Content-Type: application/x-www-form-urlencoded"


@pytest.mark.parametrize("first", [False, True], ids=["arguments asked for after", "before"])
def test_a_form_is_merged_behind_the_query(first: bool) -> None:
    request = post(b"b=3&c=4", URLENCODED)
    if first:
        assert request.arguments == {"a": [b"1"], "b": [b"2"]}
    request._parse_body()
    assert request.arguments == {"a": [b"1"], "b": [b"2", b"3"], "c": [b"4"]}
    assert request.query_arguments == {"a": [b"1"], "b": [b"2"]}
    assert request.body_arguments == {"b": [b"3"], "c": [b"4"]}
    request.arguments["c"].append(b"5")
    assert request.body_arguments == {"b": [b"3"], "c": [b"4"]}


def test_files_of_a_form() -> None:
    body = b'--b\r\nContent-Disposition: form-data; name="f"; filename="g"\r\n\r\nx\r\n--b--'
    request = post(body, "Content-Type: multipart/form-data; boundary=b")
    request._parse_body()
    assert request.files == {"f": [HTTPFile(filename="g", body=b"x", content_type="application/unknown")]}
    assert request.body_arguments == {}


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        (b"a=3", ()),
        (b"a=3", ("Content-Type: text/plain",)),
        (b"", (URLENCODED,)),
        (b"", ("Content-Type: multipart/form-data",)),
    ],
)
def test_content_that_is_no_form(body: bytes, fields: tuple[str, ...]) -> None:
    request = post(body, *fields)
    request._parse_body()
    assert request.arguments == request.query_arguments == {"a": [b"1"], "b": [b"2"]}
    assert request.body_arguments == {}


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        (b"a&" * 1000, (URLENCODED,)),
        (b"a=1", (URLENCODED, "Content-Encoding: gzip")),
        (b"a=1", ("Content-Type: multipart/form-data; boundary=b",)),
    ],
)
def test_a_form_that_is_refused_changes_nothing(body: bytes, fields: tuple[str, ...]) -> None:
    request = post(body, *fields)
    with pytest.raises(HTTPInputError):
        request._parse_body()
    assert request.arguments == {"a": [b"1"], "b": [b"2"]}
    assert request.body_arguments == {}
    assert request.files == {}


# --- writing ----------------------------------------------------------------------------------------------------------


def test_write_and_finish() -> None:
    def flushed() -> None:
        raise AssertionError

    request = get()
    request.write("HTTP/1.1 200 OK\r\n\r\né")
    request.write(b"\xff")
    request.write("", flushed)
    request.write(b"x", callback=flushed)
    request.finish()
    assert isinstance(request.connection, Connection)
    assert request.connection.calls == [
        ("write", b"HTTP/1.1 200 OK\r\n\r\n\xc3\xa9"),
        ("write", b"\xff"),
        ("write", b"", flushed),
        ("write", b"x", flushed),
        ("finish",),
    ]


def test_request_time_runs_until_finish(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(httprequest.time, "monotonic", lambda: now)
    request, other = get(), made()
    now = 101.5
    assert request.request_time() == other.request_time() == 1.5
    request.finish()
    now = 105.0
    assert request.request_time() == 1.5
    assert other.request_time() == 5.0


# --- the client's certificate -----------------------------------------------------------------------------------------


def test_no_certificate_on_a_plain_connection() -> None:
    assert get().get_ssl_certificate() is None
    assert get().get_ssl_certificate(binary_form=True) is None
    assert HTTPServerRequest().get_ssl_certificate() is None
    assert made(connection=SimpleNamespace(stream=SimpleNamespace(socket=object()))).get_ssl_certificate() is None


def handshake(client_certificate: bool) -> tuple[ssl.SSLObject, bytes]:
    """Return a server's end of a TLS connection, and the client's certificate in PEM form."""
    ca = trustme.CA()
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    ca.issue_cert("localhost").configure_cert(server)
    ca.configure_trust(server)
    ca.configure_trust(client)
    server.verify_mode = ssl.CERT_OPTIONAL
    certificate = ca.issue_cert("client@example.com")
    if client_certificate:
        certificate.configure_cert(client)
    return handshaken(server, client)[0], certificate.cert_chain_pems[0].bytes()


def test_the_clients_certificate() -> None:
    tls, pem = handshake(client_certificate=True)
    request = received(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", tls, "https")
    certificate = request.get_ssl_certificate()
    assert isinstance(certificate, dict)
    assert certificate["subjectAltName"] == (("email", "client@example.com"),)
    assert request.get_ssl_certificate(binary_form=True) == ssl.PEM_cert_to_DER_cert(pem.decode())
    stream: Any = SimpleNamespace(stream=SimpleNamespace(socket=tls))
    assert made(connection=stream).get_ssl_certificate() == certificate


def test_no_certificate_from_the_client() -> None:
    tls, _ = handshake(client_certificate=False)
    request = received(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", tls, "https")
    assert request.get_ssl_certificate() is None
    assert request.get_ssl_certificate(binary_form=True) is None


def test_no_certificate_of_a_closed_connection() -> None:
    request = get()
    request.server_connection = SimpleNamespace(transport=None)
    assert request.get_ssl_certificate() is None


@pytest.mark.parametrize("error", [ssl.SSLError(), ValueError("handshake not done yet"), OSError("closed")])
def test_no_certificate_where_there_is_no_handshake(error: Exception) -> None:
    def getpeercert(binary_form: bool) -> None:
        raise error

    request = received(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", SimpleNamespace(getpeercert=getpeercert))
    assert request.get_ssl_certificate() is None
