from __future__ import annotations

import pytest

from bridge.core.websocket.extensions import DeflateOptions, DeflateParameters, agree_on_deflate, parse_offers
from bridge.errors import ConfigError, RequestSyntaxError

PARSED = [
    pytest.param(b"", [], id="empty"),
    pytest.param(b" , ,", [], id="empty members"),
    pytest.param(b"a", [(b"a", [])], id="one"),
    pytest.param(b"a, b", [(b"a", []), (b"b", [])], id="two"),
    pytest.param(b",, a ,\t,b ,", [(b"a", []), (b"b", [])], id="two among empty members"),
    pytest.param(b"a;x;y=1", [(b"a", [(b"x", None), (b"y", b"1")])], id="parameters"),
    pytest.param(b"a ; x ;\ty = 1 , b", [(b"a", [(b"x", None), (b"y", b"1")]), (b"b", [])], id="white space"),
    pytest.param(b'a; x="10"; y', [(b"a", [(b"x", b"10"), (b"y", None)])], id="quoted"),
    pytest.param(b'a; x="1\\0"', [(b"a", [(b"x", b"10")])], id="quoted with a backslash"),
    pytest.param(b"a; x; x=2", [(b"a", [(b"x", None), (b"x", b"2")])], id="repeated parameter"),
    pytest.param(b"A; X=Y", [(b"A", [(b"X", b"Y")])], id="case is kept"),
]

MALFORMED = [
    b";",
    b"a;",
    b"a; ",
    b"a;;x",
    b"a; =1",
    b"a; x=",
    b"a; x= , b",
    b'a; x=""',
    b'a; x="1',
    b'a; x=1"',
    b'a; x="1 0"',
    b'a; x="1,0"',
    b'a; x="1"0"',
    b'a; x="\\"',
    b"a b",
    b"a; x y",
    b"a; x=1 2",
    b"a=1",
    b'"a"',
    b"a, (b)",
    b"a/b",
    b"\xe9",
    b"a; x=\xe9",
    b"a\x0b, b",
    b"a; x=1\x00",
]


@pytest.mark.parametrize(("value", "offers"), PARSED)
def test_parses(value, offers):
    assert parse_offers(value) == offers


@pytest.mark.parametrize("value", MALFORMED)
def test_refuses(value):
    with pytest.raises(RequestSyntaxError):
        parse_offers(value)


NO_WINDOWS = DeflateOptions(window_bits=15)

AGREED = [
    pytest.param(b"permessage-deflate", b"permessage-deflate", id="bare"),
    pytest.param(b"permessage-deflate; client_max_window_bits", b"permessage-deflate", id="as browsers ask"),
    pytest.param(
        b"permessage-deflate; client_max_window_bits=10",
        b"permessage-deflate; client_max_window_bits=10",
        id="client's window",
    ),
    pytest.param(
        b"permessage-deflate; client_max_window_bits=8",
        b"permessage-deflate; client_max_window_bits=8",
        id="client's smallest window",
    ),
    pytest.param(
        b"permessage-deflate; server_max_window_bits=9",
        b"permessage-deflate; server_max_window_bits=9",
        id="server's window",
    ),
    pytest.param(
        b'permessage-deflate; server_max_window_bits="10"; client_max_window_bits="11"',
        b"permessage-deflate; server_max_window_bits=10; client_max_window_bits=11",
        id="quoted windows",
    ),
    pytest.param(
        b"permessage-deflate; server_no_context_takeover",
        b"permessage-deflate; server_no_context_takeover",
        id="server_no_context_takeover",
    ),
    pytest.param(
        b"permessage-deflate; client_no_context_takeover",
        b"permessage-deflate; client_no_context_takeover",
        id="client_no_context_takeover",
    ),
    pytest.param(
        b"x-webkit-deflate-frame, permessage-deflate; mystery, permessage-deflate; server_max_window_bits=11",
        b"permessage-deflate; server_max_window_bits=11",
        id="the third offer",
    ),
]

DECLINED = [
    b"",
    b"x-webkit-deflate-frame",
    b"permessage-bzip2",
    b"Permessage-Deflate",
    b"permessage-deflate; mystery",
    b"permessage-deflate; server_no_context_takeover=1",
    b"permessage-deflate; client_no_context_takeover=true",
    b"permessage-deflate; client_no_context_takeover; client_no_context_takeover",
    b"permessage-deflate; client_max_window_bits; client_max_window_bits=10",
    b"permessage-deflate; server_max_window_bits",
    b"permessage-deflate; server_max_window_bits=8",  # zlib cannot
    b"permessage-deflate; server_max_window_bits=7",
    b"permessage-deflate; server_max_window_bits=16",
    b"permessage-deflate; server_max_window_bits=010",
    b"permessage-deflate; server_max_window_bits=+10",
    b"permessage-deflate; client_max_window_bits=0",
    b"permessage-deflate; client_max_window_bits=100",
    b"permessage-deflate; client_max_window_bits=1_0",
    b"permessage-deflate; CLIENT_MAX_WINDOW_BITS",
]


@pytest.mark.parametrize(("value", "answer"), AGREED)
def test_agrees(value, answer):
    agreed = agree_on_deflate(parse_offers(value), NO_WINDOWS)
    assert agreed is not None
    assert agreed.to_field() == answer


@pytest.mark.parametrize("value", DECLINED)
def test_declines(value):
    assert agree_on_deflate(parse_offers(value), NO_WINDOWS) is None


OURS = [
    pytest.param(
        b"permessage-deflate; client_max_window_bits",
        DeflateOptions(),
        DeflateParameters(server_max_window_bits=12, client_max_window_bits=12),
        id="both windows",
    ),
    pytest.param(
        b"permessage-deflate",
        DeflateOptions(),
        DeflateParameters(server_max_window_bits=12),
        id="a client that knows no window",
    ),
    pytest.param(
        b"permessage-deflate; server_max_window_bits=10; client_max_window_bits=15",
        DeflateOptions(window_bits=11),
        DeflateParameters(server_max_window_bits=10, client_max_window_bits=11),
        id="the smaller of both",
    ),
    pytest.param(
        b"permessage-deflate",
        DeflateOptions(context_takeover=False),
        DeflateParameters(True, True, server_max_window_bits=12),
        id="no context takeover",
    ),
]


@pytest.mark.parametrize(("value", "options", "parameters"), OURS)
def test_own_terms(value, options, parameters):
    assert agree_on_deflate(parse_offers(value), options) == parameters


@pytest.mark.parametrize(
    "arguments",
    [
        {"window_bits": 8},
        {"window_bits": 16},
        {"mem_level": 0},
        {"mem_level": 10},
        {"level": -1},
        {"level": 10},
        {"threshold": -1},
    ],
    ids=str,
)
def test_options_out_of_range(arguments):
    with pytest.raises(ConfigError):
        DeflateOptions(**arguments)


@pytest.mark.parametrize(
    "options", [DeflateOptions(9, 1, 0, 0), DeflateOptions(15, 9, 9, 1 << 30)], ids=["least", "most"]
)
def test_options_at_the_edges(options):
    assert agree_on_deflate([(b"permessage-deflate", [])], options) is not None
