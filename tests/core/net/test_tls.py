from __future__ import annotations

import socket
import ssl
import threading
from pathlib import Path
from typing import Any

import pytest
import trustme

from bridge.core.net.tls import check_ssl_options, ssl_options_to_context, ssl_wrap_socket
from bridge.errors import ConfigError
from tests.support.certificates import handshaken

Files = dict[str, str]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """Paths of a CA's certificate, and of certificate and key of a server and of a client."""
    folder = tmp_path_factory.mktemp("tls")
    ca = trustme.CA()
    ca.cert_pem.write_to_path(folder / "ca.pem")
    paths = {"ca": str(folder / "ca.pem")}
    for role, certificate in (("server", ca.issue_cert("localhost")), ("client", ca.issue_cert("client@example.com"))):
        for kind, blob in (("cert", certificate.cert_chain_pems[0]), ("key", certificate.private_key_pem)):
            path = folder / f"{role}-{kind}.pem"
            blob.write_to_path(path)
            paths[f"{role} {kind}"] = str(path)
    return paths


def server_options(files: Files, **others: Any) -> dict[str, Any]:
    return {"certfile": files["server cert"], "keyfile": files["server key"], **others}


def connect(server: ssl.SSLContext, client: ssl.SSLContext) -> tuple[ssl.SSLObject, ssl.SSLObject]:
    """Return both ends of a TLS connection that needs no socket."""
    ends = handshaken(server, client)
    ends[1].write(b"x")
    assert ends[0].read() == b"x"
    return ends


# --- the checks that need no key --------------------------------------------------------------------------------------


def test_what_needs_no_check(files: Files) -> None:
    check_ssl_options(None)
    check_ssl_options(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
    check_ssl_options(server_options(files, cert_reqs=ssl.CERT_REQUIRED, ca_certs=files["ca"], ciphers=None))


def test_the_content_of_files_is_not_looked_at(files: Files) -> None:
    check_ssl_options({"certfile": files["ca"], "keyfile": files["ca"]})
    check_ssl_options({"certfile": Path(files["ca"])})


@pytest.mark.parametrize("options", [{}, {"keyfile": "/nowhere"}, {"certfile": None}, {"certfile": ""}])
def test_no_certfile(options: dict[str, Any]) -> None:
    with pytest.raises(KeyError, match="certfile"):
        check_ssl_options(options)
    with pytest.raises(KeyError, match="certfile"):
        ssl_options_to_context(options, server_side=True)
    with pytest.raises(KeyError, match="certfile"):
        ssl_options_to_context(options)


@pytest.mark.parametrize("key", ["certfile", "keyfile", "ca_certs"])
def test_a_missing_file_is_named(files: Files, key: str, tmp_path: Path) -> None:
    path = tmp_path / "missing.pem"
    with pytest.raises(ValueError, match=f"{key} .*missing.pem' does not exist"):
        check_ssl_options(server_options(files, **{key: str(path)}))


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"cert_file": "a"}, "unknown key 'cert_file'; known are certfile, keyfile,"),
    ({"server_side": True}, "unknown key 'server_side'"),
    ({"ssl_version": getattr(ssl, "PROTOCOL_TLSv1", 3)}, "ssl_version .*TLS 1.2 is the oldest"),
    ({"ssl_version": getattr(ssl, "PROTOCOL_TLSv1_1", 4)}, "ssl_version .*TLS 1.2 is the oldest"),
    ({"ssl_version": "TLSv1_2"}, "ssl_version 'TLSv1_2'"),
    ({"cert_reqs": 7}, "cert_reqs 7 is not an ssl.CERT_ constant"),
    ({"cert_reqs": "required"}, "cert_reqs 'required' is not"),
    ({"cert_reqs": ssl.CERT_REQUIRED}, "cert_reqs CERT_REQUIRED needs ca_certs"),
    ({"cert_reqs": ssl.CERT_OPTIONAL, "ca_certs": None}, "cert_reqs CERT_OPTIONAL needs ca_certs"),
]


@pytest.mark.parametrize(("options", "message"), WRONG)
def test_options_that_cannot_be_used(files: Files, options: dict[str, Any], message: str) -> None:
    for check in (check_ssl_options, ssl_options_to_context):
        with pytest.raises(ConfigError, match=message):
            check(server_options(files, **options))


# --- contexts ---------------------------------------------------------------------------------------------------------


def test_a_context_is_used_as_it_is() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    assert ssl_options_to_context(context) is context
    assert ssl_options_to_context(context, server_side=False) is context


@pytest.mark.parametrize("server_side", [None, True])
def test_a_servers_context(files: Files, server_side: bool | None) -> None:
    context = ssl_options_to_context(server_options(files), server_side)
    assert context.protocol == ssl.PROTOCOL_TLS_SERVER
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert context.maximum_version == ssl.TLSVersion.MAXIMUM_SUPPORTED
    assert context.options & ssl.OP_NO_COMPRESSION
    assert context.options & ssl.OP_NO_RENEGOTIATION
    assert context.verify_mode == ssl.CERT_NONE


def test_a_servers_and_a_clients_context_connect(files: Files) -> None:
    server = ssl_options_to_context(server_options(files))
    client = ssl_options_to_context({"ca_certs": files["ca"]}, server_side=False)
    assert client.check_hostname
    assert client.verify_mode == ssl.CERT_REQUIRED
    server_end, client_end = connect(server, client)
    assert server_end.getpeercert() is None
    assert client_end.getpeercert()
    assert server_end.compression() is None
    assert server_end.selected_alpn_protocol() is None


def test_the_server_tells_alpn_clients_that_it_speaks_http_1_1(files: Files) -> None:
    client = ssl_options_to_context({"ca_certs": files["ca"]}, server_side=False)
    client.set_alpn_protocols(["h2", "http/1.1"])
    assert connect(ssl_options_to_context(server_options(files)), client)[0].selected_alpn_protocol() == "http/1.1"


def test_clients_certificates(files: Files) -> None:
    server = ssl_options_to_context(server_options(files, cert_reqs=ssl.CERT_REQUIRED, ca_certs=files["ca"]))
    trusting = {"ca_certs": files["ca"]}
    certified = {**trusting, "certfile": files["client cert"], "keyfile": files["client key"]}
    server_end, _ = connect(server, ssl_options_to_context(certified, server_side=False))
    certificate = server_end.getpeercert()
    assert certificate is not None
    assert certificate["subjectAltName"] == (("email", "client@example.com"),)
    with pytest.raises(ssl.SSLError, match="PEER_DID_NOT_RETURN_A_CERTIFICATE"):
        connect(server, ssl_options_to_context(trusting, server_side=False))


def test_a_certificate_may_be_optional(files: Files) -> None:
    server = ssl_options_to_context(server_options(files, cert_reqs=ssl.CERT_OPTIONAL, ca_certs=files["ca"]))
    server_end, _ = connect(server, ssl_options_to_context({"ca_certs": files["ca"]}, server_side=False))
    assert server_end.getpeercert() is None


@pytest.mark.parametrize("version", [None, ssl.PROTOCOL_TLS, ssl.PROTOCOL_TLS_SERVER])
def test_versions_that_mean_any(files: Files, version: int | None) -> None:
    context = ssl_options_to_context(server_options(files, ssl_version=version))
    client = ssl_options_to_context({"ca_certs": files["ca"]}, server_side=False)
    assert connect(context, client)[0].version() == "TLSv1.3"


def test_tls_1_2_only(files: Files) -> None:
    context = ssl_options_to_context(server_options(files, ssl_version=ssl.PROTOCOL_TLSv1_2))
    client = ssl_options_to_context({"ca_certs": files["ca"]}, server_side=False)
    assert connect(context, client)[0].version() == "TLSv1.2"


def test_nothing_older_than_tls_1_2_is_spoken(files: Files) -> None:
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.load_verify_locations(files["ca"])
    client.set_ciphers("DEFAULT@SECLEVEL=0")
    with pytest.warns(DeprecationWarning):
        client.minimum_version = ssl.TLSVersion.TLSv1
        client.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(ssl.SSLError, match=r"UNSUPPORTED_PROTOCOL|NO_PROTOCOLS|VERSION"):
        connect(ssl_options_to_context(server_options(files)), client)


def test_ciphers(files: Files) -> None:
    options = server_options(files, ciphers="ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES128-GCM-SHA256")
    names = {cipher["name"] for cipher in ssl_options_to_context(options).get_ciphers()}
    assert not names & {"ECDHE-RSA-AES256-GCM-SHA384", "AES128-SHA"}
    with pytest.raises(ssl.SSLError):
        ssl_options_to_context(server_options(files, ciphers="NONE-SUCH"))


def test_a_client_that_verifies_nothing(files: Files) -> None:
    client = ssl_options_to_context({"cert_reqs": ssl.CERT_NONE}, server_side=False)
    assert not client.check_hostname
    connect(ssl_options_to_context(server_options(files)), client)


def test_a_client_trusts_what_the_system_trusts_if_nothing_is_said(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[ssl.SSLContext] = []
    monkeypatch.setattr(ssl.SSLContext, "load_default_certs", lambda context: loaded.append(context))
    client = ssl_options_to_context({}, server_side=False)
    assert client.verify_mode == ssl.CERT_REQUIRED
    assert loaded == [client]
    ssl_options_to_context({"ca_certs": files["ca"]}, server_side=False)
    ssl_options_to_context(server_options(files))
    assert loaded == [client]


def test_files_without_key_or_certificate(files: Files) -> None:
    with pytest.raises(ssl.SSLError):
        ssl_options_to_context({"certfile": files["server cert"], "keyfile": files["server cert"]})
    with pytest.raises(ssl.SSLError):
        ssl_options_to_context({"certfile": files["server cert"], "keyfile": files["client key"]})


# --- sockets ----------------------------------------------------------------------------------------------------------


def test_wrapped_sockets(files: Files) -> None:
    ours, theirs = socket.socketpair()
    ours.settimeout(10)
    theirs.settimeout(10)
    received = []

    def serve() -> None:
        with ssl_wrap_socket(theirs, server_options(files), server_side=True) as server:
            received.append(server.recv(3))
            server.sendall(b"two")

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with ssl_wrap_socket(ours, {"ca_certs": files["ca"]}, server_hostname="localhost") as client:
            client.sendall(b"one")
            assert client.recv(3) == b"two"
    finally:
        thread.join(20)
    assert received == [b"one"]


def test_a_wrapped_socket_verifies_the_name(files: Files) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        client = ssl_wrap_socket(
            ours, {"ca_certs": files["ca"]}, server_hostname="other.example", do_handshake_on_connect=False
        )
        with client:
            assert client.server_hostname == "other.example"
            assert client.context.check_hostname
            assert not client.server_side
