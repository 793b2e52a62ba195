"""The compiled functions: their rules, and that they do what their Python twins do."""

from __future__ import annotations

import gc
import math
import os
import re
import subprocess
import sys
import time
import types
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge import speedups
from bridge.adapters.asgi.scope import ASGI_VERSIONS, ScopeTemplate
from bridge.adapters.wsgi.environ import environ_key, make_environ_pure
from bridge.core.connection.times import note_opening_pure, note_times_pure
from bridge.core.http.limits import Limits
from bridge.core.http.message import RequestHead, RequestLine, request_line
from bridge.core.http1.request import parse_head, parse_head_pure
from bridge.core.http2 import huffman
from bridge.core.http2.codes import ConnectionFault
from bridge.core.http2.hpack import STATIC_TABLE, FieldDecoder
from bridge.core.websocket.masking import apply_mask_pure
from bridge.errors import BridgeError, RemoteProtocolError
from bridge.telemetry.metrics import counting as metrics_counting
from bridge.telemetry.metrics.counting import BOUNDS_NS, SUM, PureCounter
from tests.support import ROOT
from tests.support.reader import head_values

if not speedups.COMPILED:
    pytest.skip("bridge._speedups is not built, or BRIDGE_SPEEDUPS=0", allow_module_level=True)

from bridge import _speedups

SOURCE = (ROOT / "bridge/_speedups.c").read_text(encoding="utf-8")
KNOWN_NAMES = re.findall(r'^    \{"([^"]+)", (?:NULL|"[A-Z_]*"), [A-Z_]+\}', SOURCE, re.MULTILINE)
HEAD = b"GET /a?b HTTP/1.1\r\nHost: a\r\nX-Y: z\r\n\r\n"


def parse(wire: bytes | bytearray, start: int = 0, limits: Limits | None = None) -> Any:
    return _speedups.parse_head(wire, start, (limits or Limits()).of_head)


def test_the_revision_is_the_one_that_python_asks_for() -> None:
    assert _speedups.REVISION == speedups._REVISION


def test_python_is_forced_by_a_variable() -> None:
    code = (
        "from bridge import speedups as s; import sys;"
        "names = [name for name in s.__all__ if name not in ('COMPILED', 'find_apply_mask')];"
        "found = {getattr(s, name) for name in names};"
        "print(s.COMPILED, found, s.find_apply_mask(), 'bridge._speedups' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"BRIDGE_SPEEDUPS": "0"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert done.stdout == "False {None} None False\n"


# ---------------------------------------------------------------------- request heads

USUAL = [
    HEAD,
    HEAD.replace(b"1.1", b"1.0"),
    HEAD.replace(b"GET", b"QUERY"),
    HEAD.replace(b"/a?b", b"/"),
    HEAD.replace(b"/a?b", b"/?"),
    HEAD.replace(b"/a?b", b"/a?b?c=/%41"),
    HEAD.replace(b"/a?b", b"/%41%c3%a4%zz%4%ff%"),
    HEAD.replace(b"X-Y", b"x-" + b"y" * 100),
    HEAD.replace(b"X-Y", b"x_y!"),
    HEAD.replace(b"z", b"\xe4 \t z\xff"),
    HEAD.replace(b": z", b":\t  z \t"),
    HEAD.replace(b": z", b":"),
    HEAD.replace(b": z", b": \t "),
    HEAD.replace(b"Host: a", b"hOST:a.b-c:8080"),
    HEAD.replace(b"X-Y: z", b"Content-Length: 000000000000000017"),
    HEAD.replace(b"X-Y: z", b"Transfer-Encoding: Chunked"),
    HEAD.replace(b"X-Y: z", b"Connection: x, Keep-Alive,"),
    HEAD.replace(b"X-Y: z", b"Connection: keep-alive\r\nConnection: CLOSE"),
    HEAD.replace(b"X-Y: z", b"Connection: Upgrade\r\nUpgrade: WebSocket"),
    HEAD.replace(b"X-Y: z", b"Upgrade: WebSocket"),
    HEAD.replace(b"X-Y: z", b"Connection: upgrade"),
    HEAD.replace(b"X-Y: z", b"Expect: 100-Continue\r\nContent-Length: 5"),
    HEAD.replace(b"X-Y: z", b"Expect: 100-continue"),
    b"GET / HTTP/1.0\r\n\r\n",
    b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    b"PRI / HTTP/1.1\r\nHost: " + b"a" * 3000 + b"\r\n\r\n",
]
CONTROLS = (b"\r", b"\n", b"\0", b"\x7f", b"\x1f")
FOR_PYTHON = [
    b"",
    HEAD[:-1],
    HEAD.replace(b"1.1", b"1.2"),
    HEAD.replace(b"1.1", b"2.0"),
    HEAD.replace(b"HTTP", b"http"),
    HEAD.replace(b"GET", b"CONNECT"),
    HEAD.replace(b"/a?b", b"*"),
    HEAD.replace(b"/a?b", b"http://b/"),
    HEAD.replace(b"/a?b", b"/a#b"),
    HEAD.replace(b"/a?b", b"/\xe4"),
    HEAD.replace(b"/a?b", b"/%41" + b"a" * 2000),
    HEAD.replace(b"Host: a", b"X: a"),
    HEAD.replace(b"Host: a", b"Host:"),
    HEAD.replace(b"Host: a", b"Host: a%41"),
    HEAD.replace(b"Host: a", b"Host: [::1]"),
    HEAD.replace(b"Host: a", b"Host: a:123456"),
    HEAD.replace(b"Host: a", b"Host: a,b"),
    HEAD.replace(b"Host: a", b"Host: a\r\nHost: a"),
    HEAD.replace(b"X-Y", b"X Y"),
    HEAD.replace(b"X-Y", b""),
    HEAD.replace(b"X-Y: z", b"X"),
    HEAD.replace(b"X-Y: z", b" folded: z"),
    *(HEAD.replace(b"z", b"z" * at + octet + b"z" * 9) for octet in CONTROLS for at in range(10)),
    HEAD.replace(b"X-Y: z", b"Content-Length: 5\r\nContent-Length: 5"),
    HEAD.replace(b"X-Y: z", b"Content-Length: +5"),
    HEAD.replace(b"X-Y: z", b"Content-Length:"),
    HEAD.replace(b"X-Y: z", b"Content-Length: 1" + b"0" * 18),
    HEAD.replace(b"X-Y: z", b"Content-Length: 5\r\nTransfer-Encoding: chunked"),
    HEAD.replace(b"X-Y: z", b"Transfer-Encoding: chunked\r\nContent-Length: 5"),
    HEAD.replace(b"X-Y: z", b"Transfer-Encoding: gzip, chunked"),
    HEAD.replace(b"X-Y: z", b"Expect: 200"),
    HEAD.replace(b"X-Y: z", b"Connection: upgrade\r\nUpgrade: a, b"),
    HEAD.replace(b"1.1", b"1.0").replace(b"X-Y: z", b"Transfer-Encoding: chunked"),
    HEAD.replace(b"X-Y: z\r\n", b"A: b\r\n" * 101),
    HEAD.replace(b"z", b"z" * 8200),
    HEAD.replace(b"/a?b", b"/" + b"a" * 8200),
]  # fmt: skip


def outcome(function: Callable[..., Any], *arguments: Any) -> object:
    try:
        head = function(*arguments)
    except RemoteProtocolError as exc:
        return type(exc), str(exc), exc.status
    return None if head is None else head_values(head)


@pytest.mark.parametrize("wire", USUAL)
def test_a_usual_head_is_parsed_here(wire: bytes) -> None:
    assert parse(wire) is not None
    assert outcome(parse_head, wire, 0, Limits()) == outcome(parse_head_pure, wire, 0, Limits())


@pytest.mark.parametrize("wire", FOR_PYTHON)
def test_what_is_not_understood_is_left_to_python(wire: bytes) -> None:
    assert parse(wire) is None
    assert outcome(parse_head, wire, 0, Limits()) == outcome(parse_head_pure, wire, 0, Limits())


@pytest.mark.parametrize("wire", USUAL)
def test_a_head_that_is_cut_off_is_left_to_python(wire: bytes) -> None:
    for end in range(len(wire)):
        assert parse(wire[:end]) is None
    for start in (1, 7):
        for make in (bytes, bytearray):
            buffer = make(b"x" * start + wire + b"rest")
            assert head_values(parse(buffer, start)) == head_values(parse(wire))


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 255)), max_size=4), st.sampled_from(USUAL + FOR_PYTHON))
@settings(max_examples=1000)
def test_other_octets_anywhere(changes: list[tuple[int, int]], wire: bytes) -> None:
    changed = bytearray(wire)
    for at, octet in changes:
        if at < len(changed):
            changed[at] = octet
    for limits in (Limits(), Limits(request_line=14, field_line=9, fields=2, head=40)):
        assert outcome(parse_head, changed, 0, limits) == outcome(parse_head_pure, changed, 0, limits)


def test_known_names_are_shared_and_others_are_not() -> None:
    def names() -> list[bytes]:
        wire = b"GET / HTTP/1.1\r\nHost: a\r\nUSER-agent: b\r\nX-Mine-8: c\r\n\r\n"
        return [name for name, _ in parse(wire).fields]

    (host, agent, mine), (other_host, other_agent, other) = names(), names()
    assert (host, agent, mine) == (b"host", b"user-agent", b"x-mine-8")
    assert host is other_host
    assert agent is other_agent
    assert mine is not other


def test_known_names_are_found_however_they_are_written() -> None:
    for name in KNOWN_NAMES:
        if name not in {"host", "content-length", "transfer-encoding", "expect"}:
            for written in (name, name.title(), name.upper(), name.swapcase(), name[:-1] + name[-1].upper()):
                head = parse(b"GET / HTTP/1.1\r\nHost: a\r\n%b: v\r\n\r\n" % written.encode())
                assert head.fields[1] == (name.encode(), b"v")
                assert head.fields[1][0] is parse(b"GET / HTTP/1.0\r\n%b: v\r\n\r\n" % name.encode()).fields[0][0]


def test_octets_that_differ_from_a_name_by_the_bit_of_the_case_are_no_name() -> None:
    for name in KNOWN_NAMES:
        for at, letter in enumerate(name):
            if not letter.isalpha():
                odd = name[:at].encode() + bytes([ord(letter) ^ 0x20]) + name[at + 1 :].encode()
                wire = b"GET / HTTP/1.0\r\n%b: v\r\n\r\n" % odd
                assert parse(wire) is None
                assert outcome(parse_head, wire, 0, Limits()) == outcome(parse_head_pure, wire, 0, Limits())


@given(st.binary(max_size=40), st.integers(0, 255), st.binary(max_size=12))
@settings(max_examples=1000)
def test_any_octet_anywhere_in_target_and_value(before: bytes, octet: int, behind: bytes) -> None:
    text = before.replace(b"\r", b"r").translate(bytes(max(0x30, i % 0x7E) for i in range(256)))
    for wire in (
        HEAD.replace(b"/a?b", b"/" + text + bytes([octet]) + behind),
        HEAD.replace(b"z", text + bytes([octet]) + behind),
    ):
        assert outcome(parse_head, wire, 0, Limits()) == outcome(parse_head_pure, wire, 0, Limits())


def test_lines_and_heads_are_values() -> None:
    head = parse(HEAD)
    for made, pure in ((head, RequestHead), (head.line, RequestLine)):
        names = [name for name in dir(pure) if not name.startswith("_")]
        assert [name for name in dir(made) if not name.startswith("_")] == names
        for name in names:
            with pytest.raises(AttributeError):
                setattr(made, name, None)
            with pytest.raises(AttributeError):
                delattr(made, name)
        with pytest.raises(TypeError):
            type(made)()
        with pytest.raises(TypeError):
            type(made).new = 1
    assert (head.method, head.target, head.version, head.path, head.query) == (b"GET", b"/a?b", b"1.1", b"/a", b"b")


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        (HEAD, 0),
        ("text", 0, (1, 1, 1, 1)),
        (HEAD, "0", (1, 1, 1, 1)),
        (HEAD, 0, (1, 1, 1)),
        (HEAD, 0, [1, 1, 1, 1]),
        (HEAD, 0, (1, 1, 1, "1")),
        (HEAD, 0, (1, 1, 1, 1), 1),
    ],
)
def test_wrong_arguments_are_an_error_of_the_caller(arguments: tuple[Any, ...]) -> None:
    with pytest.raises(TypeError):
        _speedups.parse_head(*arguments)


def test_sizes_are_not_negative_and_may_be_any_number() -> None:
    for place in range(5):
        sizes = [0, 99, 99, 99, 99]

        def parse_now() -> Any:
            return _speedups.parse_head(HEAD, sizes[0], (sizes[1], sizes[2], sizes[3], sizes[4]))  # noqa: B023

        sizes[place] = -1
        with pytest.raises(ValueError, match="negative"):
            parse_now()
        sizes[place] = 1 << 64
        with pytest.raises(OverflowError):
            parse_now()
        sizes[place] = sys.maxsize
        assert (parse_now() is None) is (place == 0)


# ---------------------------------------------------------------------- scopes


def template_of(root_path: str = "") -> ScopeTemplate:
    context = types.SimpleNamespace(
        protocol="http", has_remote=True, remote_ip="127.0.0.1", remote_port=1, address=("127.0.0.1", 1),
        local_address=("127.0.0.1", 80),
    )  # fmt: skip
    exchange: Any = types.SimpleNamespace(connection_context=context, loop=None)
    return ScopeTemplate(exchange, root_path, root_path, {"a": {}})


@pytest.mark.parametrize("wire", USUAL)
def test_a_scope_is_the_one_that_python_makes(wire: bytes) -> None:
    template = template_of()
    before = template.scope.copy()
    head = parse(wire)
    scope = template.make_scope(template.scope, head, ASGI_VERSIONS, template.extensions)
    assert scope == template.scope_of(head)
    assert [*scope] == [*before]
    assert template.scope == before
    assert scope["asgi"] is not ASGI_VERSIONS
    assert scope["extensions"] is not template.extensions
    assert scope["headers"] is not head.fields


def scope_from(template: ScopeTemplate, head: Any, extensions: dict[str, Any]) -> dict[str, Any]:
    scope = template.make_scope(template.scope, head, ASGI_VERSIONS, extensions)
    assert scope is not None
    return scope


@pytest.mark.parametrize("wire", USUAL)
def test_a_head_that_comes_again_makes_the_same_scope_of_each_template(wire: bytes) -> None:
    head = parse(wire)
    for template in (template_of(), template_of()) * 2:
        for _ in range(4):
            scope = scope_from(template, head, template.extensions)
            assert scope == template.scope_of(head)
            assert [*scope] == [*template.scope]
            scope.clear()


CHANGES: dict[str, Callable[[dict[str, Any]], object]] = {
    "nothing": lambda values: None,
    "a new key": lambda values: values.update(new=1),
    "another value": lambda values: values.update(a=1),
    "an equal value": lambda values: values.update(a={}),
    "a key less": lambda values: values.pop("a"),
    "another order": lambda values: values.update(a=values.pop("a")),
    "another key": lambda values: values.update(c=values.pop("a")),
    "nothing left": lambda values: values.clear(),
}


@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("change", CHANGES.values(), ids=[*CHANGES])
def test_a_scope_has_nothing_of_the_scopes_before_it(change: Callable[[dict[str, Any]], object], kept: bool) -> None:
    template = template_of()
    head = parse(HEAD)
    extensions: dict[str, Any] = {"a": {}, "b": {}}
    versions = ASGI_VERSIONS.copy()
    scopes = []
    for _ in range(4):
        scope = template.make_scope(template.scope, head, versions, extensions)
        assert scope is not None
        assert scope["asgi"] == versions == ASGI_VERSIONS
        assert scope["extensions"] == extensions == {"a": {}, "b": {}}
        assert [*scope["extensions"]] == ["a", "b"]
        assert scope["extensions"]["a"] is extensions["a"]
        assert scope["headers"] == [*head.fields]
        assert not any(scope[key] is other[key] for other in scopes for key in ("asgi", "headers", "extensions"))
        scope["asgi"]["a"] = 1
        change(scope["asgi"])
        change(scope["extensions"])
        scope["headers"].clear()
        scope["path"] = "/changed"
        if kept:
            scopes.append(scope)


def test_python_makes_the_scopes_of_other_heads_and_paths() -> None:
    template = template_of()
    assert template.make_scope(template.scope, parse_head_pure(HEAD, 0, Limits()), ASGI_VERSIONS, {}) is None
    assert template_of("/root").make_scope({}, parse(HEAD), ASGI_VERSIONS, {}) is None
    for odd in (
        (None, parse(HEAD), {}, {}),
        ({}, parse(HEAD), None, {}),
        ({}, parse(HEAD), {}, None),
        ({}, None, {}, {}),
    ):
        assert _speedups.make_scope(*odd) is None
    with pytest.raises(TypeError):
        _speedups.make_scope({}, parse(HEAD), {})


# ---------------------------------------------------------------------- environs

LINE = request_line(b"GET", "GET", b"/%41?b", b"1.1", b"/%41", b"b", b"")
PARTS = ("GET", b"/%41", b"b", b"/%41?b", "HTTP/1.1")


def environ_of(template: dict[str, Any], fields: tuple[tuple[bytes, bytes], ...]) -> dict[str, Any]:
    """Return a compiled environ, without what comes from the request line."""
    environ = _speedups.make_environ(template, fields, *PARTS)
    assert environ is not None
    line = make_environ_pure({}, (), LINE)
    assert {name: environ.pop(name) for name in line} == line
    return environ


def test_the_keys_of_known_names_are_those_that_python_makes() -> None:
    assert len(KNOWN_NAMES) > 80
    for name in KNOWN_NAMES:
        fields = ((name.encode(), b"v"),)
        key = environ_key(name.encode())
        assert environ_of({}, fields) == ({key: "v"} if key else {})


NAMES = st.sampled_from(
    [b"a", b"A", b"b-c", b"cookie", b"a_b", b"proxy", b"Proxy", b"content-type", b"x" * 80, b"\xe4", b"", b"host"]
)


@given(st.lists(st.tuples(NAMES, st.binary(max_size=3)), max_size=6).map(tuple))
def test_an_environ_is_the_same_as_that_of_python(fields: tuple[tuple[bytes, bytes], ...]) -> None:
    template = {"HTTP_HOST": "t", "wsgi.version": (1, 0)}
    found = _speedups.make_environ(template, fields, *PARTS)
    assert found is None or found == make_environ_pure(template, fields, LINE)
    assert template == {"HTTP_HOST": "t", "wsgi.version": (1, 0)}
    assert (found is None) <= any(b"\xe4" in name for name, _ in fields)


@pytest.mark.parametrize("field", [[b"a", b"b"], (b"a",), ("a", b"b"), (b"a", "b"), (b"a", bytearray(b"b")), None])
def test_other_fields_are_left_to_python(field: Any) -> None:
    assert _speedups.make_environ({}, (field,), *PARTS) is None
    assert _speedups.make_environ({"HTTP_A": 1}, ((b"a", b"b"),), *PARTS) is None


@pytest.mark.parametrize("path", [b"/", b"/%41%c3%a4%zz%4", b"/\xe4", b"/" + b"a" * 3000, b"/%41" + b"a" * 3000, b""])
def test_a_request_line_says_the_same_to_both(path: bytes) -> None:
    line = request_line(b"GET", "GET", path + b"?\xff", b"1.1", path, b"\xff", b"") if path.isascii() else LINE
    found = _speedups.make_environ({}, (), line.method_text, path, line.query, line.target, line.protocol_text)
    assert (found is None) is (path.startswith(b"/%41" + b"a" * 9))
    if path.isascii() and found is not None:
        assert found == make_environ_pure({}, (), line)


@pytest.mark.parametrize(
    "arguments", [(), ({},), ({}, [], *PARTS), ([], (), *PARTS), ({}, (), *PARTS, 1), ({}, (), *PARTS[1:], "")]
)
def test_an_environ_of_something_else_is_an_error_of_the_caller(arguments: tuple[Any, ...]) -> None:
    with pytest.raises(TypeError):
        _speedups.make_environ(*arguments)


# ---------------------------------------------------------------------- WebSocket

KEY = b"\x01\x02\x83\x04"


@given(st.binary(max_size=40), st.binary(min_size=4, max_size=4))
def test_masks(data: bytes, key: bytes) -> None:
    for form in (bytes, bytearray, memoryview):
        assert _speedups.apply_mask(form(data), key) == apply_mask_pure(data, key)


@pytest.mark.parametrize(
    "arguments", [(), (b"",), (b"", b"123"), (b"", bytearray(4)), ("", b"1234"), (b"", b"1234", 1)]
)
def test_a_mask_of_something_else_is_an_error_of_the_caller(arguments: tuple[Any, ...]) -> None:
    with pytest.raises(TypeError):
        _speedups.apply_mask(*arguments)


def frame(first: int, payload: bytes, form: int = 0) -> bytes:
    length = len(payload)
    form = form or (7 if length < 126 else 16 if length < 65536 else 64)
    head = b"" if form == 7 else length.to_bytes(form // 8, "big")
    second = 0x80 | (length if form == 7 else 126 if form == 16 else 127)
    return bytes([first, second]) + head + KEY + apply_mask_pure(payload, KEY)


@pytest.mark.parametrize("size", [0, 1, 125, 126, 1000, 1024, 1025, 65535, 65536, 70000])
def test_a_complete_frame_is_read_here(size: int) -> None:
    for first, payload in ((0x82, b"\xff" * size), (0x81, b"\xc3\xa4" * (size // 2)), (0x01, b"x" * size)):
        wire = frame(first, payload)
        value = payload.decode() if first == 0x81 else payload
        for rest in (b"", b"\x81"):
            assert _speedups.read_frame(b"12" + wire + rest, 2, size) == (first, value, len(wire) + 2)
        assert _speedups.read_frame(wire, 0, len(payload) - 1 if payload else 0) == (
            None if payload else (first, value, len(wire))
        )
        for end in {*range(min(20, len(wire))), len(wire) - 1}:
            assert _speedups.read_frame(wire[:end], 0, size) is None


@pytest.mark.parametrize(
    "wire",
    [
        b"\x81\x01aaaaa",
        frame(0x81, b"\xff"),
        frame(0x81, b"\xc3" * 2000),
        frame(0x82, b"x" * 125, 16),
        frame(0x82, b"x" * 65535, 64),
        frame(0x89, b"x" * 126),
        b"\x82\xff" + b"\xff" * 8 + KEY,
        b"\x82\xff\x80" + bytes(7) + KEY,
    ],
)
def test_other_frames_are_left_to_python(wire: bytes) -> None:
    assert _speedups.read_frame(wire, 0, sys.maxsize) is None


# ---------------------------------------------------------------------- fields of HTTP/2


def decoded_by_both(*blocks: bytes, list_size: int = 2000) -> list[object]:
    """Return what each block gave; the compiled and the Python function agree on it and on what they keep."""
    found: list[object] = []
    mine, pure = FieldDecoder(list_size), FieldDecoder(list_size)
    for block in blocks:
        said: list[object] = []
        for decoder, decode in ((mine, mine.decode), (pure, pure._decode)):
            try:
                fields: object = decode(block)
            except (BridgeError, ConnectionFault) as exc:
                said.append((type(exc), str(exc)))
                continue
            kept = (decoder._table, decoder._size, decoder.generation, decoder.largest)
            said.append((fields, decoder.literals, decoder.never_indexed, kept))
        assert said[0] == said[1]
        found.append(said[0])
        if not isinstance(said[0][0], list):  # type: ignore[index]
            break
    return found


def literal(name: bytes, value: bytes, first: int = 0x40) -> bytes:
    return b"%c%c%b%c%b" % (first, len(name), name, len(value), value)


BLOCKS = [
    b"",
    b"\x82\x86\x84\x41\x8c\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff",  # RFC 7541 C.4.1
    b"\xbe",
    b"\xbf\xbe",
    literal(b"a", b"b"),
    literal(b"a", b"b" * 100) * 9,
    literal(b"a", b"b", 0),
    literal(b"a", b"b", 0x10),
    b"\x0f\x2f\x01a",
    b"\x7f\x00\x01a",
    b"\xff\x00",
    b"\x7f\xff\xff\xff\xff\x7f\x01a",
    b"\xff\x80\x80\x80\x80\x80\x00",
    b"\x80",
    b"\x20",
    b"\x82\x20",
    b"\x3f\xe1\x1f\x82",
    b"\x40\x01a\x05b",
    b"\x40\x01a\x82\xff\xff",
    b"\x40\x01a\x81\x1e",
    b"\x40\x01a\x84\xff\xff\xff\xff",
    b"\x82" * 60,
]


@pytest.mark.parametrize("block", BLOCKS)
def test_field_blocks(block: bytes) -> None:
    for size in (40, 2000, 65536):
        decoded_by_both(block, list_size=size)
        decoded_by_both(literal(b"x", b"y"), literal(b"z", b"1" * 90), block, b"\xbe", list_size=size)
    for end in range(len(block)):
        decoded_by_both(block[:end])


def test_a_usual_block_is_decoded_here() -> None:
    table = [(b"", b""), *STATIC_TABLE]
    assert _speedups.decode_fields(BLOCKS[1], table, 0, 4096, 2000) == (
        [(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/"), (b":authority", b"www.example.com")],
        [(b":authority", b"www.example.com")],
        1,
        57,
        False,
        25,
    )
    assert table[62:] == [(b":authority", b"www.example.com")]
    before = [*table]
    for block in (b"\x40\x01a\x05b", literal(b"a", b"b") + b"\x80", literal(b"a", b"b" * 100) * 20, b"\x20"):
        assert _speedups.decode_fields(block, table, 57, 4096, 2000) is None
        assert table == before
    # More is evicted than was there, and an entry that is larger than the table empties it.
    assert _speedups.decode_fields(literal(b"a", b"b" * 90), table, 57, 100, 2000) is not None
    assert table[62:] == []


@given(st.lists(st.lists(st.sampled_from(BLOCKS) | st.binary(max_size=12), max_size=4).map(b"".join), max_size=4))
@settings(max_examples=500)
def test_blocks_one_after_the_other(blocks: list[bytes]) -> None:
    decoded_by_both(*blocks)


@given(st.binary(max_size=60))
def test_huffman_strings(data: bytes) -> None:
    coded = huffman.encode(data)
    if len(coded) < 127:
        (found,) = decoded_by_both(b"\x00\x01a" + bytes([0x80 | len(coded)]) + coded)
        assert found[0] == [(b"a", data)]  # type: ignore[index]


@given(st.binary(min_size=1, max_size=12))
def test_strings_that_may_be_no_huffman_code(coded: bytes) -> None:
    decoded_by_both(b"\x00\x01a" + bytes([0x80 | len(coded)]) + coded)


@pytest.mark.parametrize("table", [[], [(b"", b"")], [None] * 70, [(b"", b"")] * 62 + [("a", "b")]])
def test_a_table_that_is_none_is_left_to_python(table: list[Any]) -> None:
    assert _speedups.decode_fields(b"\xbe", table, 100, 4096, 2000) is None
    assert _speedups.decode_fields(literal(b"a", b"b"), table, 100, 50, 2000) is None


@pytest.mark.parametrize("arguments", [(), (b"", (), 0, 0, 0), ("", [], 0, 0, 0), (b"", [], 0, 0)])
def test_a_block_of_something_else_is_an_error_of_the_caller(arguments: tuple[Any, ...]) -> None:
    with pytest.raises(TypeError):
        _speedups.decode_fields(*arguments)


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        (_speedups.request_block, ()),
        (_speedups.request_block, ("text", 0, 1)),
        (_speedups.request_block, (b"", "0", 1)),
        (_speedups.response_frames, (1, b"")),
        (_speedups.response_frames, (1, bytearray(1), b"")),
        (_speedups.response_frames, ("1", b"", b"")),
    ],
)
def test_frames_of_something_else_are_an_error_of_the_caller(function: Any, arguments: tuple[Any, ...]) -> None:
    with pytest.raises(TypeError):
        function(*arguments)


def test_a_position_or_stream_is_any_number() -> None:
    wire = b"\0\0\0\1\5\0\0\0\1"
    assert _speedups.request_block(wire, 0, 1) == b""
    for arguments in ((sys.maxsize, 1), (0, sys.maxsize), (1, 1), (0, 1 << 32 | 1)):
        assert _speedups.request_block(wire, *arguments) is None
    assert _speedups.response_frames(1 << 31, b"", b"") is None


# ---------------------------------------------------------------------- counts

CELLS = memoryview(bytearray(8 * 64)).cast("Q")
STATE = object()
KIND: tuple[int, bytes, object, str, str] = (200, b"GET", STATE, "1.1", "http")


def times(called_with: Any = None, elapsed: int = 1_000, queued: float = 0.0) -> Any:
    """Return what an exchange has noted that began so many nanoseconds ago."""
    made = _speedups.note_opening()
    made.opened -= elapsed
    made.called_with = called_with
    made.queued = queued
    return made


def counter(make: Callable[..., Any] | None = None, row: int = 16, queue: int = 48, cells: Any = CELLS) -> Any:
    """Return a counter that knows one kind."""
    made = (make or _speedups.make_counter)(cells, queue)
    made.learn(row, *KIND)
    return made


def counted_by(count: Callable[..., Any], *arguments: Any) -> tuple[Any, list[int]]:
    """Return what a function says, and the cells that it leaves."""
    for index in range(64):
        CELLS[index] = 0
    return count(*arguments), CELLS.tolist()


CALLED_WITH = [None, {}, {"type": "http"}, "/", {"route": None}, {"bridge.route": "/"}]
CALLED_WITH += [{"werkzeug.request": object()}, types.MappingProxyType({}), 7]


@given(
    called_with=st.sampled_from(CALLED_WITH),
    elapsed=st.one_of(st.integers(-(10**9), 1 << 40), st.sampled_from([b + d for b in BOUNDS_NS for d in (-10000, 0)])),
    queued=st.one_of(st.just(0.0), st.floats(-1.0, 100.0), st.sampled_from([0.005, 0.01, 10.0, 1e-12])),
    refused=st.sampled_from(["", "", "", "overload"]),
    kind=st.tuples(
        st.sampled_from([200, 200, 201, 404]),
        st.sampled_from([b"GET", bytes([71, 69, 84]), b"PUT"]),
        st.sampled_from([STATE, STATE, None]),
        st.sampled_from(["1.1", "".join(["1", ".1"]), "2"]),
        st.sampled_from(["http", "".join(["ht", "tp"]), "https"]),
    ),
    add=st.booleans(),
)
def test_an_exchange_is_counted_as_by_python(
    called_with: object, elapsed: int, queued: float, refused: str, kind: Any, add: bool
) -> None:
    noted, again = times(called_with, elapsed, queued), note_opening_pure()
    again.opened, again.queued, again.refused = noted.opened, noted.queued, refused
    again.called_with, noted.refused = noted.called_with, refused
    arguments = (32,) if add else kind
    did = counted_by(getattr(counter(), "add" if add else "count"), noted, *arguments)
    took = did[1][16 + SUM] + did[1][32 + SUM]  # what its clock has said
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics_counting, "monotonic_ns", lambda: again.opened + took)
        assert counted_by(getattr(counter(PureCounter), "add" if add else "count"), again, *arguments) == did
    assert add or did[0] is any(did[1])
    assert took >= max(elapsed, 0) or not did[0]
    assert noted.called_with is again.called_with is (None if did[0] or add else called_with)


@pytest.mark.parametrize(
    "called_with",
    [
        *CALLED_WITH,
        {"werkzeug.request": None},
        {"werkzeug.request": 1, "bridge.route": "/"},
        {"werkzeug.request": 1, "bridge.route": None},
    ],
)
def test_werkzeugs_request_is_kept_as_by_python(called_with: Any) -> None:
    noted, again = times(called_with), note_opening_pure()
    again.called_with = called_with
    noted.keep_request()
    again.keep_request()
    assert noted.called_with is again.called_with


def test_notes_may_be_deleted() -> None:
    """No code does so. CPython's objects offer it."""
    noted = times()
    del noted.called_with
    noted.keep_request()
    assert counted_by(counter().count, noted, *KIND)[0]
    assert noted.called_with is None
    del noted.refused
    assert not counted_by(counter().count, noted, *KIND)[0]
    del noted.queued
    with pytest.raises(TypeError, match="queued is no float"):
        counted_by(counter().add, noted, 0)


@pytest.mark.parametrize("make", [None, PureCounter])
def test_what_notes_nothing_is_not_counted(make: Any) -> None:
    assert counted_by(counter(make).count, None, *KIND) == (True, [0] * 64)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 20)), max_size=80))
def test_the_same_kinds_are_remembered_as_by_python(steps: list[tuple[bool, int]]) -> None:
    made, pure = _speedups.make_counter(CELLS, 0), PureCounter(CELLS, 0)
    for learn, number in steps:
        kind = (200 + number % 5, b"%d" % (number // 5), STATE, "1.1", "http")
        if learn:
            made.learn(16, *kind)
            pure.learn(16, *kind)
        else:
            assert made.count(times(), *kind) is pure.count(note_opening_pure(), *kind)


def test_the_notes_of_an_exchange_are_those_of_python() -> None:
    for make, pure in ((_speedups.note_times, note_times_pure), (_speedups.note_opening, note_opening_pure)):
        before, noted, expected = time.monotonic_ns(), make(), pure()
        assert before <= noted.opened <= expected.opened
        for name in ("answers", "began", "queued", "called_with", "refused"):
            assert getattr(noted, name) == getattr(expected, name), name
        noted.opened, noted.began, noted.queued, noted.called_with, noted.refused = 1, 2, 3.0, {}, "overload"
        assert (noted.opened, noted.began, noted.queued, noted.called_with, noted.refused) == (
            1,
            2,
            3.0,
            {},
            "overload",
        )
        for name, value in (("opened", "x"), ("answers", True), ("other", 1)):
            with pytest.raises((TypeError, AttributeError)):
                setattr(noted, name, value)
        with pytest.raises(TypeError):
            make(1)  # type: ignore[call-arg]  # this is tested
        with pytest.raises(TypeError):
            type(noted)()


def test_notes_that_refer_to_themselves_are_collected() -> None:
    noted = _speedups.note_times()
    left = Left()
    noted.called_with = {"notes": noted, "left": left}
    gone = weakref.ref(left)
    del noted, left
    gc.collect()
    assert gone() is None


class Left:
    """Something that can be referred to weakly."""


class Meddler:
    """A key that takes the scope away while it is compared."""

    def __init__(self, noted: Any) -> None:
        self.noted = noted

    def __hash__(self) -> int:
        return hash("route")

    def __eq__(self, other: object) -> bool:
        self.noted.called_with = None
        return False


def test_a_scope_may_go_while_it_is_looked_at() -> None:
    noted = times()
    noted.called_with = {Meddler(noted): 1}
    assert counted_by(counter().count, noted, *KIND)[0]
    assert noted.called_with is None


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("count", ()),
        ("count", (times(), *KIND[:-1])),
        ("count", (times(), *KIND, 0)),
        ("count", (1_000, *KIND)),
        ("count", (note_opening_pure(), *KIND)),
        ("count", (times(), "200", *KIND[1:])),
        ("count", (times(queued=None), *KIND)),
        ("add", (times(queued=1), 0)),
        ("add", (times(),)),
        ("add", (note_opening_pure(), 0)),
        ("add", (times(), None)),
        ("add", (times(), 1 << 70)),
        ("add", (times(), 49)),
        ("add", (times(), -1)),
        ("learn", (16,)),
        ("learn", ("16", *KIND)),
        ("learn", (16, None, *KIND[1:])),
        ("learn", (1 << 70, *KIND)),
    ],
)
def test_wrong_arguments_write_nothing(name: str, arguments: tuple[Any, ...]) -> None:
    before = CELLS.tolist()
    with pytest.raises((TypeError, ValueError, OverflowError)):
        getattr(counter(), name)(*arguments)
    assert CELLS.tolist() == before


@pytest.mark.parametrize(
    "wrong",
    [
        {"row": 49},
        {"row": -1},
        {"queue": 49},
        {"queue": -1},
        {"cells": b"x" * 512},
        {"cells": bytearray(7)},
        {"cells": 1},
    ],
)
def test_cells_that_are_not_there_are_not_written(wrong: dict[str, Any]) -> None:
    before = CELLS.tolist()
    with pytest.raises((TypeError, ValueError, BufferError)):
        counter(**wrong).count(times(), *KIND)
    assert CELLS.tolist() == before
    for arguments in ((), (CELLS,), (CELLS, "0"), (CELLS, 1 << 70), (CELLS, 0, 0)):
        with pytest.raises((TypeError, OverflowError)):
            _speedups.make_counter(*arguments)


def test_a_counter_that_refers_to_itself_is_collected() -> None:
    left = Left()
    made: Any = _speedups.make_counter(CELLS, 0)
    made.learn(0, 200, b"GET", [made, left], "1.1", "http")
    gone = weakref.ref(left)
    del made, left
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize("opened", [-(1 << 63), -1, (1 << 63) - 1])
@pytest.mark.parametrize("queued", [math.inf, -math.inf, math.nan, 1e300])
def test_times_that_cannot_be(opened: int, queued: float) -> None:
    noted = times(queued=queued)
    noted.opened = opened
    assert counted_by(counter().count, noted, *KIND)[0]
    assert sum(CELLS[16 : 16 + SUM]) == 1


# ---------------------------------------------------------------------- references

TABLE = [(b"", b""), *STATIC_TABLE]
LIMITS = (2000, 8000, 8000, 100)
REQUEST = (
    b"\x82\x86\x04\x06/a%41?\x01\x01a"
    + literal(b"cookie", b"a=b") * 3
    + literal(b"priority", b"u=1")
    + literal(b"content-length", b"0")
    + literal(b"x-y", b"\xe4")
)


def refused(function: Callable[..., object], *arguments: object) -> None:
    try:
        function(*arguments)
    except ValueError:
        return
    raise AssertionError


KINDS = counter()
TEMPLATE = {"path": 1}
AGAIN = parse(HEAD)
CALLS: dict[str, Callable[[], object]] = {
    "a head": lambda: parse(HEAD),
    "a head with content": lambda: parse(USUAL[21]),
    "a head for Python": lambda: parse(FOR_PYTHON[17]),
    "a path to decode": lambda: parse(USUAL[6]),
    "a scope": lambda: _speedups.make_scope({"path": 1}, parse(HEAD), {"a": 1}, {}),
    "a scope of a head again": lambda: [_speedups.make_scope(TEMPLATE, AGAIN, {"a": 1}, {}) for _ in range(3)],
    "a scope for Python": lambda: _speedups.make_scope({}, parse(HEAD), {}, None),
    "an environ": lambda: _speedups.make_environ({"a": 1}, ((b"x", b"1"), (b"x", b"22"), (b"accept", b"\xe4")), *PARTS),
    "an environ for Python": lambda: _speedups.make_environ({"HTTP_X": 1}, ((b"a", b"22"), (b"x", b"1")), *PARTS),
    "a mask": lambda: _speedups.apply_mask(b"x" * 20, KEY),
    "a text": lambda: _speedups.read_frame(frame(0x81, b"hello"), 0, 99),
    "a field block": lambda: _speedups.decode_fields(BLOCKS[5] + BLOCKS[1], [(b"", b"")] * 62, 0, 300, 2000),
    "a field block for Python": lambda: _speedups.decode_fields(BLOCKS[5] + b"\x80", [(b"", b"")] * 62, 0, 300, 2000),
    "a block": lambda: _speedups.request_block(b"xx\0\0\1\1\5\0\0\0\1b", 2, 1),
    "a block for Python": lambda: _speedups.request_block(b"\0\0\2\1\5\0\0\0\1b", 0, 1),
    "frames": lambda: _speedups.response_frames(1, b"b" * 50, b"c" * 50),
    "frames for Python": lambda: _speedups.response_frames(1, b"b", bytearray(1)),
    "an exchange": lambda: counter().count(times(), *KIND),
    "an exchange for Python": lambda: counter().count(times({"route": 1}), *KIND),
    "kinds": lambda: [KINDS.learn(16, number, b"%d" % number, [], "1.1", "http") for number in range(20)],
    "notes with an answer": lambda: _speedups.note_times(),
    "notes with a request": lambda: times({"werkzeug.request": object()}).keep_request(),
    "a frame for Python": lambda: _speedups.read_frame(frame(0x81, b"\xff"), 0, 99),
    "a request": lambda: _speedups.read_request(REQUEST + literal(b"x", b"y"), True, [*TABLE], 0, 40, LIMITS),
    "a request for Python": lambda: _speedups.read_request(REQUEST + b"\x80", False, [*TABLE], 0, 4096, LIMITS),
    "a request with a wrong limit": lambda: refused(
        _speedups.read_request, REQUEST, True, [*TABLE], 0, 0, (1, 1, 1, -1)
    ),
}


# With PYTHONMALLOC=malloc, as under a sanitizer, Python does not count.
counted = pytest.mark.skipif(not sys.getallocatedblocks(), reason="allocated blocks are not counted")


def growth(function: Callable[[], object], calls: int) -> int:
    """Return how many more blocks are allocated after so many calls."""
    for _ in range(1000):
        function()
    before = sys.getallocatedblocks()
    for _ in range(calls):
        function()
    return sys.getallocatedblocks() - before


@counted
@pytest.mark.parametrize("name", CALLS)
def test_nothing_is_kept_of_a_call(name: str) -> None:
    assert growth(CALLS[name], 10_000) < 100


@counted
@pytest.mark.long
@pytest.mark.parametrize("name", CALLS)
def test_nothing_is_kept_of_a_million_calls(name: str) -> None:
    assert growth(CALLS[name], 1_000_000) < 100


@counted
def test_a_leak_would_be_found() -> None:
    kept: list[object] = []
    assert growth(lambda: kept.append(object()), 10_000) > 9_000


def test_fixed_objects_keep_their_references() -> None:
    name = parse(HEAD).fields[0][0]
    before = sys.getrefcount(name)
    for _ in range(1000):
        _speedups.make_scope({}, parse(HEAD), {}, {})
        _speedups.make_environ({}, ((name, b"a"),), *PARTS)
    assert sys.getrefcount(name) == before


# ---------------------------------------------------------------------- the source


def test_the_source_keeps_its_rules() -> None:
    assert "PyErr_SetString(PyExc_Runtime" not in SOURCE
    raised = set(re.findall(r"PyErr_(?:SetString|Format)\((\w+)", SOURCE))
    assert raised <= {"PyExc_TypeError", "PyExc_ValueError"}  # of wrong arguments
    # Outside functions everything is constant, except what describes the module and its types.
    made = re.findall(r"^(?:static )?[^(){}\n;#=]*?(\w+)(?:\[[^\]]*\])* = \{?", SOURCE, re.MULTILINE)
    constant = re.findall(r"^static const [^(){}\n;=]*?(\w+)(?:\[[^\]]*\])* = \{?", SOURCE, re.MULTILINE)
    outside = {name for name in made if re.search(rf"^static .*\b{name}\b(?:\[[^\]]*\])* = ", SOURCE, re.MULTILINE)}
    describing = {"module_functions", "module_slots", "module_definition", "times_members", "times_slots", "times_spec"}
    describing |= {"counter_methods", "counter_slots", "counter_spec", "line_members", "line_slots", "line_spec"}
    describing |= {"head_members", "head_properties", "head_slots", "head_spec", "times_methods"}
    assert outside - set(constant) == describing
    # The keys and method names are the table's; nothing a peer sends is interned.
    interned = re.findall(r"PyUnicode_Intern\w+\(([^)]*)\)", SOURCE)
    assert interned == [
        "key", "KNOWN[index].key", "METHODS[i]", "VARIABLES[i]", "ROUTES[i]", "SCOPE_KEYS[i]", "VERSIONS[i]",
        "PROTOCOLS[i]", '""', '"werkzeug.request"',
    ]  # fmt: skip
    assert len(re.findall(r"PyObject_GetBuffer\(", SOURCE)) <= len(re.findall(r"PyBuffer_Release\(", SOURCE))
