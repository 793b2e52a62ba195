from __future__ import annotations

import pytest

from bridge.core.http.limits import Limits
from bridge.core.http.message import RequestHead, request_line
from bridge.core.http1.request import parse_head
from bridge.core.websocket.extensions import DeflateOptions, DeflateParameters
from bridge.core.websocket.handshake import Handshake, Refusal, accept_fields, accept_token, check_handshake
from bridge.errors import LocalProtocolError
from tests.support.table import table

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="  # RFC 6455 section 1.3


def request(*lines: str, line: str = "GET /chat HTTP/1.1", without: str = "") -> RequestHead:
    """Return a handshake's head; *lines* are added, the lines that begin with *without* left out."""
    usual = (
        "Host: example.test",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Key: {KEY}",
        "Sec-WebSocket-Version: 13",
    )
    kept = [text for text in usual if not without or not text.startswith(without)]
    head = parse_head("\r\n".join([line, *kept, *lines, "", ""]).encode("latin-1"), 0, Limits())
    assert head is not None
    return head


ACCEPTED = [
    pytest.param(request(), id="plain"),
    pytest.param(request("Upgrade: WebSocket", without="Upgrade"), id="upgrade in another case"),
    pytest.param(request("Upgrade: h2c, WEBSOCKET", without="Upgrade"), id="upgrade list"),
    pytest.param(request("Connection: keep-alive, UPGRADE", without="Connection"), id="connection list"),
    pytest.param(request("Content-Length: 0"), id="no content"),
    pytest.param(request("Sec-WebSocket-Protocol:"), id="no subprotocol"),
    pytest.param(request("Sec-WebSocket-Extensions: mystery; x=1"), id="unknown extension"),
]


@pytest.mark.parametrize("head", ACCEPTED)
def test_accepts(head):
    assert check_handshake(head, DeflateOptions()) == Handshake(ACCEPT, [], None)


ORDINARY = [
    pytest.param(request(line="POST /chat HTTP/1.1"), id="POST"),
    pytest.param(request(line="HEAD /chat HTTP/1.1"), id="HEAD"),
    pytest.param(request(line="GET /chat HTTP/1.0"), id="HTTP/1.0"),
    pytest.param(request(without="Upgrade"), id="no upgrade"),
    pytest.param(request("Upgrade: h2c", without="Upgrade"), id="another upgrade"),
    pytest.param(request("Upgrade: websockets", without="Upgrade"), id="upgrade with more letters"),
    pytest.param(request(without="Connection"), id="no connection"),
    pytest.param(request("Connection: keep-alive", without="Connection"), id="connection without upgrade"),
]


@pytest.mark.parametrize("head", ORDINARY)
def test_a_request_that_asks_for_no_websocket_is_no_handshake(head):
    assert check_handshake(head, DeflateOptions()) is None


def extended_connect(method: bytes, protocol: bytes) -> RequestHead:
    line = request_line(method, method.decode(), b"/chat", b"2", b"/chat", b"", b"")
    return RequestHead(line, ((b"sec-websocket-version", b"13"),), b"example.test", 0, upgrade=protocol)


def test_accepts_an_extended_connect():
    assert check_handshake(extended_connect(b"CONNECT", b"websocket")) == Handshake(b"", [], None)


@pytest.mark.parametrize(("method", "asked"), [(b"GET", b"websocket"), (b"CONNECT", b"connect-udp")])
def test_another_extended_connect_is_refused(method, asked):
    refusal = check_handshake(extended_connect(method, asked))
    assert isinstance(refusal, Refusal)
    assert refusal.status == 400


REFUSED = [
    pytest.param(request("Content-Length: 5"), 400, id="content"),
    pytest.param(request("Transfer-Encoding: chunked"), 400, id="chunked content"),
    pytest.param(request(without="Sec-WebSocket-Version"), 426, id="no version"),
    *(
        pytest.param(request(f"Sec-WebSocket-Version: {text}", without="Sec-WebSocket-Version"), 426, id=f"v {text!r}")
        for text in ("8", "12", "14", "013", "+13", "13, 8", "13 13", "")
    ),
    pytest.param(request("Sec-WebSocket-Version: 13"), 426, id="version twice"),
    pytest.param(request("Sec-WebSocket-Version: 8"), 426, id="two versions"),
    pytest.param(request(without="Sec-WebSocket-Key"), 400, id="no key"),
    pytest.param(request(f"Sec-WebSocket-Key: {KEY}"), 400, id="key twice"),
    *(
        pytest.param(request(f"Sec-WebSocket-Key: {text}", without="Sec-WebSocket-Key"), 400, id=f"key {text!r}")
        for text in (
            "",
            "!!!!",
            KEY[:-1],
            KEY[:-2],
            KEY + "=",
            "A" + KEY,
            KEY[1:],
            KEY + ", " + KEY,
            "dGhlIHNhbXBs ZSBub25jZQ==",
            "dGhlIHNhbXBs-SBub25jZQ=_",
            "dGhlIHNhbXBsZSBub25jZTE=",  # 17 bytes
            "dGhlIHNhbXBsZSBub24=",  # 14 bytes
            "\xb2GhlIHNhbXBsZSBub25jZQ==",
        )
    ),
    *(
        pytest.param(request(f"Sec-WebSocket-Protocol: {text}"), 400, id=f"subprotocol {text!r}")
        for text in ("a b", "a, (b)", "a/b", '"a"', "a;b", "\xe9", "a\tb")
    ),
    *(
        pytest.param(request(f"Sec-WebSocket-Extensions: {text}"), 400, id=f"extensions {text!r}")
        for text in ("a b", "permessage-deflate;", "permessage-deflate; =1", '"a"')
    ),
]


@table("head, status", REFUSED)
def test_refuses(head, status):
    refusal = check_handshake(head, DeflateOptions())
    assert isinstance(refusal, Refusal)
    assert refusal.status == status
    assert refusal.message


def test_another_version_is_told_ours():
    refusal = check_handshake(request("Sec-WebSocket-Version: 8", without="Sec-WebSocket-Version"))
    assert isinstance(refusal, Refusal)
    assert refusal.fields == [
        (b"upgrade", b"websocket"),
        (b"connection", b"Upgrade"),
        (b"sec-websocket-version", b"13"),
    ]


def test_refusals_quote_little_of_the_peer():
    refusal = check_handshake(request("Sec-WebSocket-Protocol: " + "(" * 4000))
    assert isinstance(refusal, Refusal)
    assert len(refusal.message) < 120


def test_accept_token():
    assert accept_token(KEY.encode()) == ACCEPT


# --- subprotocols -----------------------------------------------------------------------------------------------------


def accepted(*lines: str, options: DeflateOptions | None = None) -> Handshake:
    handshake = check_handshake(request(*lines), options)
    assert isinstance(handshake, Handshake)
    return handshake


SUBPROTOCOLS = [
    pytest.param(["Sec-WebSocket-Protocol: chat"], ["chat"], id="one"),
    pytest.param(["Sec-WebSocket-Protocol: chat, superchat"], ["chat", "superchat"], id="two"),
    pytest.param(["Sec-WebSocket-Protocol: b", "Sec-WebSocket-Protocol: a,B"], ["b", "a", "B"], id="two lines"),
    pytest.param(["Sec-WebSocket-Protocol: ,a,, \tb ,a"], ["a", "b"], id="empty members and repetition"),
    pytest.param(["Sec-WebSocket-Protocol: v12.stomp, x~y!z"], ["v12.stomp", "x~y!z"], id="odd tokens"),
]


@pytest.mark.parametrize(("lines", "subprotocols"), SUBPROTOCOLS)
def test_subprotocols(lines, subprotocols):
    assert accepted(*lines).subprotocols == subprotocols


def test_fields_of_the_answer():
    assert accept_fields(accepted()) == [
        (b"upgrade", b"websocket"),
        (b"connection", b"Upgrade"),
        (b"sec-websocket-accept", ACCEPT),
    ]


def test_fields_of_the_answer_with_everything():
    handshake = accepted(
        "Sec-WebSocket-Protocol: chat, superchat",
        "Sec-WebSocket-Extensions: mystery",
        "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits",
        options=DeflateOptions(),
    )
    assert handshake.deflate == DeflateParameters(server_max_window_bits=12, client_max_window_bits=12)
    assert accept_fields(handshake, "superchat")[3:] == [
        (b"sec-websocket-protocol", b"superchat"),
        (
            b"sec-websocket-extensions",
            b"permessage-deflate; server_max_window_bits=12; client_max_window_bits=12",
        ),
    ]


def test_no_subprotocol_needs_to_be_chosen():
    assert len(accept_fields(accepted("Sec-WebSocket-Protocol: chat"))) == 3


@pytest.mark.parametrize("subprotocol", ["", "Chat", "other", "chat\r\nx: y", "\xe9"])
def test_subprotocol_that_was_not_offered(subprotocol):
    with pytest.raises(LocalProtocolError):
        accept_fields(accepted("Sec-WebSocket-Protocol: chat"), subprotocol)


def test_no_agreement_without_options():
    assert accepted("Sec-WebSocket-Extensions: permessage-deflate").deflate is None
