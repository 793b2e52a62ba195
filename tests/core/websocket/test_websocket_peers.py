"""Clients written by others talk to the pure layer: handshake, messages both ways, closing."""

from __future__ import annotations

import random
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.client import ClientProtocol
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.uri import parse_uri
from wsproto import ConnectionType, WSConnection
from wsproto import events as wsproto_events
from wsproto.extensions import PerMessageDeflate

from bridge.core.http.limits import Limits
from bridge.core.http1.request import parse_head
from bridge.core.websocket import frames
from bridge.core.websocket.extensions import DeflateOptions
from bridge.core.websocket.handshake import Handshake, accept_fields, check_handshake
from bridge.core.websocket.receiver import Close, Ping, Pong, Receiver
from bridge.core.websocket.sender import Sender
from tests.support.websocket_peer import at_random, read, whole


@pytest.fixture(autouse=True, scope="module")
def _seeded():
    """The peers draw their masks and keys from the system: give them a seeded source."""
    source = random.Random(6455)
    with pytest.MonkeyPatch.context() as patch:
        for module in ("websockets.frames", "websockets.utils"):
            patch.setattr(f"{module}.secrets", SimpleNamespace(token_bytes=source.randbytes))
        for module in ("wsproto.frame_protocol", "wsproto.utilities"):
            patch.setattr(f"{module}.os", SimpleNamespace(urandom=source.randbytes))
        yield


class WebsocketsClient:
    """The sans-IO client of the websockets distribution."""

    def __init__(self, deflate):
        extensions = None if deflate is None else [ClientPerMessageDeflateFactory(**deflate)]
        self.protocol = ClientProtocol(
            parse_uri("ws://example.test/chat"), extensions=extensions, subprotocols=["a", "b"], max_size=None
        )

    def request(self):
        self.protocol.send_request(self.protocol.connect())
        return self.sent()

    def accepted(self, response):
        self.protocol.receive_data(response)
        self.protocol.events_received()
        assert self.protocol.handshake_exc is None
        assert self.protocol.state is State.OPEN
        return self.protocol.subprotocol, [type(extension).__name__ for extension in self.protocol.extensions]

    def sent(self):
        return b"".join(self.protocol.data_to_send())

    def send(self, pieces):
        send = self.protocol.send_text if isinstance(pieces[0], str) else self.protocol.send_binary
        for index, piece in enumerate(pieces):
            content = piece.encode() if isinstance(piece, str) else piece
            fin = index == len(pieces) - 1
            if index:
                self.protocol.send_continuation(content, fin)
            else:
                send(content, fin)
        return self.sent()

    def ping(self, payload):
        self.protocol.send_ping(payload)
        return self.sent()

    def close(self, code, reason):
        self.protocol.send_close(code, reason)
        return self.sent()

    def receive(self, wire):
        self.protocol.receive_data(wire)
        messages = []
        for event in self.protocol.events_received():
            assert isinstance(event, Frame)
            assert event.fin
            if event.opcode is Opcode.TEXT:
                messages.append(bytes(event.data).decode())
            elif event.opcode is Opcode.BINARY:
                messages.append(bytes(event.data))
            elif event.opcode is Opcode.CLOSE:
                assert self.protocol.close_rcvd is not None
                messages.append((int(self.protocol.close_rcvd.code), self.protocol.close_rcvd.reason))
            else:
                messages.append((event.opcode.name, bytes(event.data)))
        assert self.protocol.parser_exc is None
        return messages


class WsprotoClient:
    """The client of the wsproto distribution."""

    def __init__(self, deflate):
        self.connection = WSConnection(ConnectionType.CLIENT)
        arguments = dict(deflate or {})
        arguments.pop("compress_settings", None)
        if arguments.get("client_max_window_bits") is True:
            del arguments["client_max_window_bits"]  # this client names its window by itself
        self.extensions = [] if deflate is None else [PerMessageDeflate(**arguments)]

    def request(self):
        return self.connection.send(
            wsproto_events.Request("example.test", "/chat", extensions=self.extensions, subprotocols=["a", "b"])
        )

    def accepted(self, response):
        self.connection.receive_data(response)
        (event,) = self.connection.events()
        assert isinstance(event, wsproto_events.AcceptConnection)
        return event.subprotocol, [type(extension).__name__ for extension in event.extensions]

    def send(self, pieces):
        return b"".join(
            self.connection.send(wsproto_events.Message(piece, message_finished=index == len(pieces) - 1))
            for index, piece in enumerate(pieces)
        )

    def ping(self, payload):
        return self.connection.send(wsproto_events.Ping(payload))

    def close(self, code, reason):
        return self.connection.send(wsproto_events.CloseConnection(code, reason))

    def receive(self, wire):
        self.connection.receive_data(wire)
        messages, parts = [], []
        for event in self.connection.events():
            if isinstance(event, wsproto_events.Message):
                parts.append(event.data if isinstance(event.data, str) else bytes(event.data))
                if event.message_finished:
                    messages.append(parts[0][:0].join(parts))
                    parts.clear()
            elif isinstance(event, wsproto_events.CloseConnection):
                messages.append((event.code, event.reason))
            else:
                messages.append((type(event).__name__.upper(), bytes(event.payload)))
        assert not parts
        return messages


PEERS = [pytest.param(WebsocketsClient, id="websockets"), pytest.param(WsprotoClient, id="wsproto")]

OFFERS = [
    pytest.param(None, id="no deflate"),
    pytest.param({}, id="deflate"),
    pytest.param({"client_max_window_bits": 9, "server_max_window_bits": 10}, id="small windows"),
    pytest.param(
        {"client_no_context_takeover": True, "server_no_context_takeover": True, "client_max_window_bits": True},
        id="no takeover",
    ),
]

OPTIONS = DeflateOptions(threshold=20)


def connect(client):
    """Let the client through the opening handshake; return our two halves of the connection."""
    wire = client.request()
    head = parse_head(wire, 0, Limits())
    assert head is not None
    assert head.size == len(wire)
    handshake = check_handshake(head, OPTIONS)
    assert isinstance(handshake, Handshake)
    assert handshake.subprotocols == ["a", "b"]
    lines = [b"%b: %b\r\n" % field for field in accept_fields(handshake, "b")]
    subprotocol, extensions = client.accepted(b"HTTP/1.1 101 Switching Protocols\r\n" + b"".join(lines) + b"\r\n")
    assert subprotocol == "b"
    assert len(extensions) == (handshake.deflate is not None)
    sender = frames if handshake.deflate is None else Sender(handshake.deflate, OPTIONS)
    return Receiver(deflate=handshake.deflate), sender


@pytest.mark.parametrize("peer", PEERS)
@pytest.mark.parametrize("offer", OFFERS)
def test_agreement(peer, offer):
    client = peer(offer)
    receiver, sender = connect(client)
    assert isinstance(sender, Sender) == (offer is not None)
    wire = client.send(["Hello"])
    assert bool(wire[0] & 0x40) == (offer is not None)
    assert read(receiver, whole(wire)) == (["Hello"], None)


SHORT = st.one_of(st.text(max_size=150), st.binary(max_size=150))
LONG = st.builds(lambda part, times: part * times, SHORT, st.integers(1, 700))
FRAGMENTED = st.lists(st.text(max_size=40), min_size=2, max_size=6) | st.lists(
    st.binary(max_size=40), min_size=2, max_size=6
)


@pytest.mark.parametrize("peer", PEERS)
@pytest.mark.parametrize("offer", OFFERS)
@settings(max_examples=40, deadline=None)
@given(messages=st.lists(st.builds(lambda m: [m], SHORT | LONG) | FRAGMENTED, max_size=6), seed=st.integers(0, 1000))
def test_messages_from_the_client(peer, offer, messages, seed):
    client = peer(offer)
    receiver, _ = connect(client)
    wire = b"".join(client.send(pieces) for pieces in messages)
    expected = [pieces[0][:0].join(pieces) for pieces in messages]
    assert read(receiver, at_random(seed)(wire)) == (expected, None)


@pytest.mark.parametrize("peer", PEERS)
@pytest.mark.parametrize("offer", OFFERS)
@settings(max_examples=40, deadline=None)
@given(messages=st.lists(SHORT | LONG, max_size=6), seed=st.integers(0, 1000))
def test_messages_to_the_client(peer, offer, messages, seed):
    client = peer(offer)
    _, sender = connect(client)
    wire = b"".join(
        sender.encode_text(message) if isinstance(message, str) else sender.encode_binary(message)
        for message in messages
    )
    assert client.receive(wire) == messages


@pytest.mark.parametrize("peer", PEERS)
@pytest.mark.parametrize("offer", [None, {}], ids=["plain", "deflate"])
@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536, 1 << 20])
def test_echo_of_any_size(peer, offer, size):
    client = peer(offer)
    receiver, sender = connect(client)
    source = random.Random(size)
    binary, text = source.randbytes(size), "é" * (size // 2)
    for message in (binary, text):
        events, code = read(receiver, whole(client.send([message])))
        assert (events, code) == ([message], None)
        encode = sender.encode_text if isinstance(message, str) else sender.encode_binary
        assert client.receive(encode(message)) == [message]


@pytest.mark.parametrize("peer", PEERS)
def test_ping_both_ways(peer):
    client = peer({})
    receiver, _ = connect(client)
    assert read(receiver, whole(client.ping(b"are you there?"))) == ([Ping(b"are you there?")], None)
    assert client.receive(frames.encode_pong(b"are you there?")) == [("PONG", b"are you there?")]
    assert client.receive(frames.encode_ping(b"and you?")) == [("PING", b"and you?")]
    answer = frames.encode_pong(b"x")  # what a client may send at any time
    assert read(receiver, whole(answer[:1] + b"\x81\0\0\0\0x")) == ([Pong(b"x")], None)


CLOSES = [
    pytest.param(1000, "bye", id="normal"),
    pytest.param(1001, "", id="no reason"),
    pytest.param(3000, "é" * 61, id="reason beyond ASCII"),
    pytest.param(4999, "x" * 123, id="longest reason"),
]


@pytest.mark.parametrize("peer", PEERS)
@pytest.mark.parametrize(("code", "reason"), CLOSES)
def test_close_both_ways(peer, code, reason):
    client = peer({})
    receiver, _ = connect(client)
    events, _ = read(receiver, whole(client.close(code, reason)))
    assert events == [Close(code, reason)]
    assert client.receive(events[0].answer())[0][0] == code
    assert receiver.closed

    client = peer(None)
    connect(client)
    assert client.receive(frames.encode_close(code, reason)) == [(code, reason)]
