"""The environ, made from a request head."""

from __future__ import annotations

import io
import socket
import ssl
from types import SimpleNamespace
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from bridge.adapters.wsgi import environ as module
from bridge.adapters.wsgi.environ import (
    EnvironTemplate,
    environ_key,
    environ_template,
    make_environ_pure,
    ssl_variables,
)
from bridge.core.connection.context import ConnectionContext
from bridge.core.http.limits import Limits
from bridge.core.http.message import request_line
from bridge.core.http1.request import parse_head
from tests.support.protocols import BOTH_PROTOCOLS
from tests.support.wsgi import serving

pytestmark = BOTH_PROTOCOLS

TCP = (("192.0.2.1", 1234), socket.AF_INET, "http", ("192.0.2.9", 8000))


def make(wire: bytes, address: tuple[Any, ...] = TCP, forwarded: Any = None, root_path: str = "") -> dict[str, Any]:
    context = ConnectionContext(*address)
    base = environ_template(context, root_path=root_path, multithread=True, multiprocess=False, extra={})
    head = parse_head(wire, 0, Limits())
    assert head is not None
    exchange: Any = SimpleNamespace(head=head, context=forwarded or context)
    template = EnvironTemplate(base, context)
    result = template.environ(exchange)
    assert result == template.environ(exchange)  # a second request with the same head
    assert result is not template.environ(exchange)
    assert result.pop("bridge.client_disconnected") is result.pop("waitress.client_disconnected") is template.client
    return result


def get(target: str, *lines: str, version: str = "1.1", method: str = "GET", **options: Any) -> dict[str, Any]:
    wire = "\r\n".join([f"{method} {target} HTTP/{version}", "Host: example.test", *lines, "", ""])
    return make(wire.encode("latin-1"), **options)


def test_the_whole() -> None:
    environ = get("/a/b?c=d&e=%20", "User-Agent: me", "Content-Type: text/plain", "Content-Length: 3", method="POST")
    assert {name: value for name, value in environ.items() if name not in {"wsgi.errors", "SERVER_SOFTWARE"}} == {
        "REQUEST_METHOD": "POST",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/a/b",
        "QUERY_STRING": "c=d&e=%20",
        "REQUEST_URI": "/a/b?c=d&e=%20",
        "RAW_URI": "/a/b?c=d&e=%20",
        "SERVER_NAME": "192.0.2.9",
        "SERVER_PORT": "8000",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "GATEWAY_INTERFACE": "CGI/1.1",
        "REMOTE_ADDR": "192.0.2.1",
        "REMOTE_PORT": "1234",
        "CONTENT_TYPE": "text/plain",
        "CONTENT_LENGTH": "3",
        "HTTP_HOST": "example.test",
        "HTTP_USER_AGENT": "me",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": None,
        "wsgi.input_terminated": True,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    assert environ["SERVER_SOFTWARE"].startswith("bridge/")
    assert type(environ) is dict


def test_nothing_that_was_not_sent() -> None:
    environ = get("/")
    assert environ["QUERY_STRING"] == ""
    assert "CONTENT_TYPE" not in environ
    assert "CONTENT_LENGTH" not in environ
    assert "HTTPS" not in environ


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("/", "/"),
        ("//x", "//x"),
        ("/a%2Fb", "/a/b"),
        ("/a%2541", "/a%41"),
        ("/%C3%A4", "/\xc3\xa4"),
        ("/%FF", "/\xff"),
        ("/a+b", "/a+b"),
        ("/%zz", "/%zz"),
        ("http://other.test/p?q", "/p"),
    ],
)
def test_path_info_is_the_octets_as_latin_1(target: str, path: str) -> None:
    environ = get(target)
    assert environ["PATH_INFO"] == path
    assert environ["REQUEST_URI"] == target


def test_the_authority_of_an_absolute_target_is_the_host() -> None:
    assert get("http://other.test/p")["HTTP_HOST"] == "other.test"


def test_options_of_the_whole_server() -> None:
    environ = get("*", method="OPTIONS")
    assert environ["PATH_INFO"] == "*"
    assert environ["REQUEST_URI"] == "*"


@pytest.mark.parametrize(
    ("target", "path"),
    [("/app/x", "/x"), ("/app", ""), ("/x", "/x"), ("/apple", "/apple"), ("/app/", "/")],
)
def test_where_the_application_is_mounted(target: str, path: str) -> None:
    environ = get(target, root_path="/app")
    assert (environ["SCRIPT_NAME"], environ["PATH_INFO"]) == ("/app", path)


def test_a_mount_that_is_not_ascii() -> None:
    environ = get("/%C3%A4/x", root_path="/\xe4")
    assert (environ["SCRIPT_NAME"], environ["PATH_INFO"]) == ("/\xc3\xa4", "/x")


def test_http_1_0() -> None:
    assert get("/", version="1.0")["SERVER_PROTOCOL"] == "HTTP/1.0"


LINE = request_line(b"GET", "GET", b"/%41?b", b"1.1", b"/%41", b"b", b"")


def fields_in_both(fields: tuple[tuple[bytes, bytes], ...]) -> dict[str, Any]:
    """Return what an environ has of *fields*, which both functions agree on."""
    environ = make_environ_pure({}, fields, LINE)
    if module._compiled is not None:
        parts = (LINE.method_text, LINE.path, LINE.query, LINE.target, LINE.protocol_text)
        assert module._compiled({}, fields, *parts) in [None, environ]
    for name, value in (
        ("REQUEST_METHOD", "GET"),
        ("PATH_INFO", "/A"),
        ("QUERY_STRING", "b"),
        ("REQUEST_URI", "/%41?b"),
        ("RAW_URI", "/%41?b"),
        ("SERVER_PROTOCOL", "HTTP/1.1"),
    ):
        assert environ.pop(name) == value
    return environ


def test_fields_of_one_name_are_joined() -> None:
    fields = ((b"x", b"1"), (b"cookie", b"a=1"), (b"x", b"1"), (b"cookie", b"b=2"), (b"accept", b"\xe4"))
    expected = {"HTTP_X": "1, 1", "HTTP_COOKIE": "a=1; b=2", "HTTP_ACCEPT": "\xe4"}
    assert fields_in_both(fields) == expected


@pytest.mark.parametrize("name", [b"x_forwarded_for", b"_", b"content_length", b"a-b_c", b"proxy"])
def test_fields_that_could_be_mistaken_for_others_are_left_out(name: bytes) -> None:
    assert environ_key(name) == ""
    fields = ((name, b"evil"), (b"a", b"1"))
    assert fields_in_both(fields) == {"HTTP_A": "1"}


@pytest.mark.parametrize(
    ("name", "key"),
    [
        (b"x-a", "HTTP_X_A"),
        (b"content-type", "CONTENT_TYPE"),
        (b"content-length", "CONTENT_LENGTH"),
        (b"content-language", "HTTP_CONTENT_LANGUAGE"),
        (b"proxy-authorization", "HTTP_PROXY_AUTHORIZATION"),
        (b"a.b!", "HTTP_A.B!"),
    ],
)
def test_keys(name: bytes, key: str) -> None:
    assert environ_key(name) == key


def test_what_is_kept_of_names_is_bounded_and_never_forgets_proxy() -> None:
    for number in range(5000):
        environ_key(b"x-%d" % number)
        assert len(module._keys) <= 1024
        assert environ_key(b"proxy") == ""


def test_another_head_on_the_same_connection_leaves_nothing_behind() -> None:
    context = ConnectionContext(*TCP)
    template = EnvironTemplate(
        environ_template(context, root_path="", multithread=True, multiprocess=False, extra={}), context
    )

    def ask(wire: bytes) -> dict[str, Any]:
        exchange: Any = SimpleNamespace(head=parse_head(wire, 0, Limits()), context=context)
        return template.environ(exchange)

    first = ask(b"POST /a?b HTTP/1.1\r\nHost: x\r\nCookie: secret\r\nContent-Length: 1\r\n\r\n")
    assert (first["HTTP_COOKIE"], first["QUERY_STRING"]) == ("secret", "b")
    second = ask(b"GET /c HTTP/1.0\r\nHost: y\r\n\r\n")
    assert second["HTTP_HOST"] == "y"
    assert "HTTP_COOKIE" not in second
    assert "CONTENT_LENGTH" not in second
    assert (second["REQUEST_METHOD"], second["QUERY_STRING"], second["PATH_INFO"]) == ("GET", "", "/c")
    long = b"GET / HTTP/1.1\r\nHost: z\r\nX: %b\r\n\r\n"
    assert ask(long % (b"1" * 5000))["HTTP_X"] == "1" * 5000
    assert ask(long % (b"2" * 5000))["HTTP_X"] == "2" * 5000


LINES = st.lists(
    st.tuples(
        st.sampled_from([b"a", b"A", b"b", b"cookie", b"a_b", b"proxy", b"content-type", b"s"]),
        st.sampled_from([b"", b"1", b"\xe4", b"2, 3"]),
    ),
    max_size=5,
)
HEADS = st.tuples(
    st.sampled_from([b"GET / HTTP/1.1", b"HEAD /a%20b?c HTTP/1.1", b"GET / HTTP/1.0", b"GET http://y/z HTTP/1.1"]),
    LINES,
)


@pytest.mark.http1("it compares with HTTP/1.1's environ")
@given(st.lists(HEADS, min_size=2, max_size=5), st.booleans())
def test_the_environ_is_the_same_whatever_came_before(heads: list[Any], mounted: bool) -> None:
    context = ConnectionContext(*TCP)
    base = environ_template(
        context, root_path="/a b" if mounted else "", multithread=True, multiprocess=False, extra={"wsgi.x": None}
    )
    template = EnvironTemplate(base, context)
    for line, lines in heads:
        wire = b"\r\n".join([line, b"Host: x", *(b"%b: %b" % pair for pair in lines), b"", b""])
        exchange: Any = SimpleNamespace(head=parse_head(wire, 0, Limits()), context=context)
        other = EnvironTemplate(base, context)
        environ = template.environ(exchange)
        fresh = other.environ(exchange)
        for name in ("bridge.client_disconnected", "waitress.client_disconnected"):
            assert fresh.pop(name) is other.client
            assert environ.pop(name) is template.client
        assert environ == fresh
        environ.clear()  # it is the application's


def test_a_unix_socket() -> None:
    environ = get("/", address=("", socket.AF_UNIX, "https", "/run/x"))
    assert (environ["SERVER_NAME"], environ["SERVER_PORT"]) == ("localhost", "443")
    assert (environ["REMOTE_ADDR"], environ["REMOTE_PORT"]) == ("", "")
    assert get("/", address=("", socket.AF_UNIX, "http", "/run/x"))["SERVER_PORT"] == "80"


def test_ipv6() -> None:
    environ = get("/", address=(("2001:db8::1", 5, 0, 0), socket.AF_INET6, "http", ("2001:db8::2", 80, 0, 0)))
    assert (environ["REMOTE_ADDR"], environ["SERVER_NAME"], environ["SERVER_PORT"]) == (
        "2001:db8::1",
        "2001:db8::2",
        "80",
    )


def test_what_a_trusted_proxy_reports() -> None:
    context = ConnectionContext(*TCP)
    forwarded = context.copy()
    forwarded.remote_ip, forwarded.remote_port, forwarded.protocol = "203.0.113.5", 0, "https"
    environ = get("/", forwarded=forwarded)
    assert (environ["REMOTE_ADDR"], environ["REMOTE_PORT"]) == ("203.0.113.5", "")
    assert (environ["wsgi.url_scheme"], environ["HTTPS"]) == ("https", "on")
    forwarded.protocol = "http"
    tls = ((TCP[0]), TCP[1], "https", TCP[3])
    assert "HTTPS" not in get("/", forwarded=forwarded, address=tls)
    assert get("/", address=tls)["HTTPS"] == "on"


def test_errors_go_where_stderr_is(monkeypatch) -> None:
    flushed: list[str] = []

    class Stream(io.StringIO):
        def flush(self) -> None:
            flushed.append(self.getvalue())

    stream = Stream()
    monkeypatch.setattr("sys.stderr", stream)
    errors = get("/")["wsgi.errors"]
    errors.write("a")
    errors.writelines(["b", "c"])
    assert flushed == []
    errors.flush()
    assert stream.getvalue() == "abc"
    assert flushed == ["abc"]


class TLS:
    """A connection whose client has shown a certificate, or not."""

    def __init__(self, certificate: Any = None, encoded: bytes | None = None) -> None:
        self.certificate = certificate
        self.encoded = encoded

    def version(self) -> str:
        return "TLSv1.3"

    def cipher(self) -> tuple[str, str, int]:
        return ("TLS_AES_256_GCM_SHA384", "TLSv1.3", 256)

    def getpeercert(self, binary_form: bool = False) -> Any:
        return self.encoded if binary_form else self.certificate


CERTIFICATE = {
    "subject": (
        (("countryName", "DE"),),
        (("organizationName", 'A, "B" + C'),),
        (("commonName", "J\xfcrgen"), ("x", "#y")),
    ),
    "issuer": ((("commonName", "CA"),),),
    "serialNumber": "0A",
    "version": 3,
    "notBefore": "Jan  1 00:00:00 2026 GMT",
    "notAfter": "Jan  1 00:00:00 2027 GMT",
}


def test_tls_without_a_client_certificate() -> None:
    assert ssl_variables(TLS()) == {  # type: ignore[arg-type]
        "SSL_PROTOCOL": "TLSv1.3",
        "SSL_CIPHER": "TLS_AES_256_GCM_SHA384",
        "SSL_CIPHER_USEKEYSIZE": "256",
        "SSL_CLIENT_VERIFY": "NONE",
    }


def test_tls_with_a_client_certificate() -> None:
    variables = ssl_variables(TLS(CERTIFICATE, b"der"))  # type: ignore[arg-type]
    assert variables["SSL_CLIENT_VERIFY"] == "SUCCESS"
    assert variables["SSL_CLIENT_CERT"] == ssl.DER_cert_to_PEM_cert(b"der")
    assert variables["SSL_CLIENT_S_DN"] == 'CN=J\xc3\xbcrgen+x=\\#y,O=A\\, \\"B\\" \\+ C,C=DE'
    assert variables["SSL_CLIENT_S_DN_CN"] == "J\xc3\xbcrgen"
    assert variables["SSL_CLIENT_S_DN_O"] == 'A, "B" + C'
    assert variables["SSL_CLIENT_I_DN"] == "CN=CA"
    assert variables["SSL_CLIENT_M_SERIAL"] == "0A"
    assert variables["SSL_CLIENT_M_VERSION"] == "3"
    assert variables["SSL_CLIENT_V_START"] == "Jan  1 00:00:00 2026 GMT"
    assert variables["SSL_CLIENT_V_END"] == "Jan  1 00:00:00 2027 GMT"


def test_tls_with_a_certificate_that_nobody_verified() -> None:
    variables = ssl_variables(TLS({}, b"der"))  # type: ignore[arg-type]
    assert variables["SSL_CLIENT_VERIFY"] == "GENEROUS"
    assert "SSL_CLIENT_S_DN" not in variables


async def test_entries_that_lead_back_to_the_server() -> None:
    seen: dict[str, Any] = {}

    def app(environ, start_response):
        seen.update(environ)
        start_response("200 OK", [])
        return []

    async with serving(app, threads=1, multiprocess=True) as served:
        await served.get()
    assert seen["wsgi.multithread"] is False
    assert seen["wsgi.multiprocess"] is True
    assert seen["wsgi.input"].read() == b""
    assert seen["bridge.deadline"] is None
    assert "werkzeug.socket" not in seen
    assert callable(seen["wsgi.file_wrapper"])
    assert callable(seen["wsgi.early_hints"])
    assert seen["bridge.client_disconnected"]() is False
    assert seen["waitress.client_disconnected"] == seen["bridge.client_disconnected"]


async def test_what_environs_have_in_common_is_kept_from_the_second_request_on() -> None:
    environs = []

    def app(environ, start_response):
        environs.append({key: value for key, value in environ.items() if isinstance(value, str | tuple | bool)})
        start_response("200 OK", [("Content-Length", "1")])
        return [b"x"]

    async with serving(app) as server:
        reader, writer = await server.connect()
        kept = []
        for number in range(6):
            writer.write(b"GET /a?b HTTP/1.1\r\nHost: a\r\nX-Y: z\r\n\r\n")
            assert (await reader.readuntil(b"\r\n\r\nx")).startswith(b"HTTP/1.1 200 ")
            (connection,) = server.server.connections
            kept.append(connection.templates.get(server.delegate))
            if number == 3:
                connection.on_idle()
                assert not connection.templates
        writer.close()
    assert kept[0] is None
    assert kept[1] is kept[2] is kept[3] is not None
    assert kept[4] is kept[5] is not kept[3]
    assert environs[0]["REMOTE_PORT"] != ""
    assert environs == [environs[0]] * 6
