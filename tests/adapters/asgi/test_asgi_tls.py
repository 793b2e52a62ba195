"""What applications are told of TLS (ASGI TLS extension), on HTTP and WebSocket connections."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

import pytest
import trustme
from websockets.asyncio.client import connect as ws_connect

from bridge.adapters.asgi import ASGIDelegate
from bridge.core.httpserver import HTTPServer
from tests.support.asgi import Client

AUTHORITY = trustme.CA()
SERVER = AUTHORITY.issue_cert("127.0.0.1")
CLIENT = AUTHORITY.issue_cert("somebody@example.org", common_name="Some, Body", organization_name="Örg")


def server_context(verify: ssl.VerifyMode) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    SERVER.configure_cert(context)
    AUTHORITY.configure_trust(context)
    context.verify_mode = verify
    return context


def client_context(*, certificate: bool, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> ssl.SSLContext:
    context = ssl.create_default_context()
    AUTHORITY.configure_trust(context)
    context.maximum_version = version
    if certificate:
        CLIENT.configure_cert(context)
    return context


async def scopes(verify: ssl.VerifyMode, context: ssl.SSLContext, certificate: Any = None) -> list[Any]:
    """Return the scopes of one request and one WebSocket."""
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope)
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 204})
            await send({"type": "http.response.body"})
        else:
            await receive()
            await send({"type": "websocket.accept"})
            await send({"type": "websocket.send", "text": "x" * 100_000})
            await receive()

    delegate = ASGIDelegate(app, certificate=certificate)
    http = HTTPServer(delegate, ssl_options=server_context(verify))
    http.listen(0, "127.0.0.1")
    port = next(iter(http._sockets.values())).getsockname()[1]
    client = Client(*await asyncio.open_connection("127.0.0.1", port, ssl=context))
    client.get()
    assert (await client.head())[0] == 204
    await client.close()
    async with ws_connect(f"wss://127.0.0.1:{port}/", ssl=context, proxy=None) as websocket:
        assert await websocket.recv() == "x" * 100_000
    http.stop()
    await http.drain(0)
    await delegate.wait(1)
    return seen


async def test_without_a_client_certificate() -> None:
    web, socket = await scopes(ssl.CERT_NONE, client_context(certificate=False), lambda: "PEM")
    assert (web["scheme"], socket["scheme"]) == ("https", "wss")
    assert web["extensions"]["tls"] == socket["extensions"]["tls"]
    tls = web["extensions"]["tls"]
    tls = tls.copy()
    assert tls["cipher_suite"] in {0x1301, 0x1302, 0x1303}
    del tls["cipher_suite"]
    assert tls == {
        "server_cert": "PEM",
        "client_cert_chain": (),
        "client_cert_name": None,
        "client_cert_error": None,
        "tls_version": 0x0304,
    }


@pytest.mark.parametrize("verify", [ssl.CERT_OPTIONAL, ssl.CERT_REQUIRED])
async def test_with_a_client_certificate(verify: ssl.VerifyMode) -> None:
    web, _ = await scopes(verify, client_context(certificate=True, version=ssl.TLSVersion.TLSv1_2))
    tls = web["extensions"]["tls"]
    assert tls["tls_version"] == 0x0303
    assert tls["cipher_suite"] & 0xFF00 in {0xC000, 0xCC00}
    assert tls["client_cert_chain"][0] == CLIENT.cert_chain_pems[0].bytes().decode()
    assert tls["client_cert_name"].startswith("CN=Some\\, Body,")
    assert "O=Örg" in tls["client_cert_name"]
    assert tls["server_cert"] is None


def test_no_extension_without_tls() -> None:
    delegate = ASGIDelegate(lambda scope, receive, send: None)  # type: ignore[arg-type,return-value]
    assert "tls" not in delegate._extensions
