"""What a line of the access log says."""

from __future__ import annotations

import json
import os
import textwrap
from types import SimpleNamespace
from typing import Any

import pytest

from bridge.core.connection.context import ConnectionContext
from bridge.core.connection.states import CLOSED, DONE
from bridge.core.connection.times import note_times
from bridge.core.http.limits import Limits
from bridge.core.http1.request import parse_head
from bridge.errors import ConfigError
from bridge.telemetry import logformat
from bridge.telemetry.logformat import Format, compile_format, is_known_atom, json_format

WIRE = b'GET /a?b=1 HTTP/1.1\r\nHost: a\r\nUser-Agent: x"\\\xe9\r\nA: b\r\n\r\n'
NOW = 5_000_000_000


class Lines:
    """Collects them, without a clock."""

    def __init__(self, form: Format) -> None:
        self.pieces: list[str] = []
        self.stamp = form.stamp(1769860800)
        self.until = NOW + 1
        self.waited: list[object] = []

    def renew(self, now: int) -> None:
        raise AssertionError("it is not time yet")

    def defers(self, exchange: object) -> bool:
        self.waited.append(exchange)
        return True


class FakeExchange:
    """What a line is made of."""

    def __init__(self, wire: bytes = WIRE, *, status: int = 200, sent: int = 13, microseconds: int = 1_250_000) -> None:
        head = parse_head(wire, 0, Limits())
        assert head is not None
        self.head = head
        self.context = ConnectionContext(("192.0.2.1", 5), 2, "http", ("192.0.2.9", 80))
        self.status = status
        self.content_sent = sent
        self.write_paused = False
        self.writing: Any = DONE
        self.response: Any = SimpleNamespace(status=status)
        self.close_after = False
        self.stream_id: int | None = None
        self.reset_code = -1
        self.times = note_times()
        self.times.opened = NOW - microseconds * 1000
        self.times.began = NOW - 50_000_000
        self.times.queued = 0.2

    def response_field(self, name: bytes) -> bytes | None:
        return {b"content-type": b"text/html", b"x-bad": b'"\x1b'}.get(name)


@pytest.fixture(autouse=True)
def _clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logformat, "monotonic_ns", lambda: NOW)


def line_of(form: Format, *exchanges: FakeExchange, excluded: tuple[str, ...] = ()) -> str:
    lines = Lines(form)
    observer = form.observer(
        lines,
        frozenset(name.encode() for name in excluded if not name.endswith("*")),
        tuple(name[:-1].encode() for name in excluded if name.endswith("*")),
    )
    for exchange in exchanges or (FakeExchange(),):
        observer(exchange)  # type: ignore[arg-type]
    return "".join(lines.pieces)


ATOMS = [
    ("%(h)s %(l)s %(u)s", "192.0.2.1 - -"),
    ("%(t)s", "[31/Jan/2026:12:00:00 +0000]"),
    ('"%(r)s"', '"GET /a?b=1 HTTP/1.1"'),
    ("%(m)s %(U)s %(q)s %(H)s", "GET /a b=1 HTTP/1.1"),
    ("%(s)s %(b)s %(B)s", "200 13 13"),
    ("%(T)s %(M)s %(D)s %(L)s", "1 1250 1250000 1.250000"),
    ("%(queue)s %(app)s %(write)s", "0.200000 1.000000 0.050000"),
    ("%(a)s", r"x\x22\x5c\xe9"),
    ("%(f)s", "-"),
    ("%({a}i)s %({X-None}i)s", "b -"),
    ("%({Content-Type}o)s %({X-None}o)s %({x-bad}o)s", r"text/html - \x22\x1b"),
    ("%({BRIDGE_TEST}e)s %({BRIDGE_NONE}e)s", "value -"),
    ("%({REQUEST_METHOD}e)s %({wsgi.url_scheme}e)s %({HTTP_A}e)s %({SERVER_PORT}e)s", "GET http b 80"),
    ("%({RAW_URI}e)s %({PATH_INFO}e)s %({QUERY_STRING}e)s %({REMOTE_ADDR}e)s:%({REMOTE_PORT}e)s",
     "/a?b=1 /a b=1 192.0.2.1:5"),
    pytest.param("%(p)s", f"<{os.getpid()}>", id="pid"),
    ("%(addr)s %(dt_ms)s %(status)s %(header{a})s", "192.0.2.1 1250.000 200 b"),
    ("%(time)s %(method)s %(path)s %(query_string)s %(protocol)s", "[31/Jan/2026:12:00:00 +0000] GET /a b=1 HTTP/1.1"),
    ("100%% %(scheme)s {}", "100% http {}"),
    ("%(request_id)s", "-"),
    ("nothing", "nothing"),
    ("%(h)s%(h)s%(l)s%(h)s", "192.0.2.1192.0.2.1-192.0.2.1"),
    ("%(s)s%(r)s%(s)s", "200GET /a?b=1 HTTP/1.1200"),
]  # fmt: skip


@pytest.mark.parametrize(("form", "line"), ATOMS)
def test_atoms(form: str, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRIDGE_TEST", "value")
    compiled = compile_format(form)
    assert line_of(compiled) == line + "\n"
    assert line_of(compiled, FakeExchange(), FakeExchange(), FakeExchange()) == 3 * (line + "\n")


@pytest.mark.parametrize("form", ["%(z)s", "%h", "%(h)q", "%({x}z)s", "100%", "%()s", "%(queue + 1)s"])
def test_unknown_atoms(form: str) -> None:
    with pytest.raises(ConfigError, match="--access-logformat: unknown atom at '%"):
        compile_format(form)


def test_no_text_of_the_users_becomes_code() -> None:
    text = "'\"\\{0}{name}\n{{}}__import__('os')"
    assert line_of(compile_format(text + "%({'+x+'}i)s" + text)) == f"{text}-{text}\n"


def test_a_response_that_was_not_sent() -> None:
    form = compile_format("%(s)s %(b)s %(B)s")
    assert line_of(form, FakeExchange(status=0, sent=0), FakeExchange(sent=5_000_000), FakeExchange()) == (
        "- - 0\n200 5000000 5000000\n200 13 13\n"
    )


@pytest.mark.parametrize("microseconds", [0, 1, 4095, 4096, 999_999, 1_000_000, 86_400_000_007])
def test_durations_of_any_length(microseconds: int) -> None:
    form = compile_format("%(L)s %(D)s %(dt_ms)s")
    line = f"{microseconds // 10**6}.{microseconds % 10**6:06d} {microseconds} "
    line += f"{microseconds // 1000}.{microseconds % 1000:03d}\n"
    assert line_of(form, *[FakeExchange(microseconds=microseconds)] * 2) == line * 2


def test_what_was_made_before_is_not_taken_for_something_else() -> None:
    form = compile_format('"%(r)s" %(s)s %(b)s %(L)s %({a}i)s')
    other = b"POST /b HTTP/1.0\r\nA: c\r\n\r\n"
    exchanges = [FakeExchange(), FakeExchange(other, status=404, sent=0, microseconds=7), FakeExchange()]
    first, second = '"GET /a?b=1 HTTP/1.1" 200 13 1.250000 b\n', '"POST /b HTTP/1.0" 404 - 0.000007 c\n'
    assert line_of(form, *exchanges) == first + second + first


def test_what_clients_choose_is_not_kept() -> None:
    form = compile_format("%(U)s %(a)s %(s)s")
    exchanges = [
        FakeExchange(b"GET /%d HTTP/1.1\r\nHost: a\r\nUser-Agent: %d\r\n\r\n" % (number, number)) for number in range(8)
    ]
    assert line_of(form, *exchanges) == "".join(f"/{number} {number} 200\n" for number in range(8))
    observer = form.observer(Lines(form), frozenset(), ())
    for exchange in exchanges:
        observer(exchange)  # type: ignore[arg-type]
    (kept,) = [value for name, value in observer.__globals__.items() if name.startswith("kept_")]
    assert [text for text in kept if text] == [kept[200]]


def test_an_exchange_that_was_not_queued_or_has_no_response_of_its_own() -> None:
    exchange = FakeExchange(microseconds=1000)
    exchange.times.began, exchange.times.queued = 0, 0.0
    assert line_of(compile_format("%(queue)s %(app)s %(write)s"), exchange) == "0.000000 0.001000 0.000000\n"


@pytest.mark.parametrize(
    ("form", "timed"), [("%(L)s", True), ("%(h)s", False), ("%(queue)s", True), ("%(app)s", True), ("%(write)s", True)]
)
def test_only_formats_that_need_it_want_times(form: str, timed: bool) -> None:
    assert compile_format(form).timed is timed


@pytest.mark.parametrize(("form", "waits"), [("%(L)s", True), ("%(write)s", True), ("%(r)s", False)])
def test_a_line_with_a_duration_waits_for_a_peer_that_reads_slowly(form: str, waits: bool) -> None:
    compiled = compile_format(form)
    lines = Lines(compiled)
    exchange = FakeExchange()
    exchange.write_paused = True
    compiled.observer(lines, frozenset(), ())(exchange)  # type: ignore[arg-type]
    assert bool(lines.pieces) is not waits
    assert bool(lines.waited) is waits


def test_paths_without_a_line() -> None:
    exchanges = [
        FakeExchange(b"GET %b HTTP/1.1\r\nHost: a\r\n\r\n" % path)
        for path in (b"/health", b"/healthy", b"/health?x", b"/static", b"/static/a.css")
    ]
    text = line_of(compile_format("%(U)s"), *exchanges, excluded=("/health", "/static/*"))
    assert text == "/healthy\n/static\n"


def test_json_lines() -> None:
    wire = b'GET /?x HTTP/1.1\r\nHost: a\r\nUser-Agent: "\\\xe9\r\nReferer: r\r\nX-Request-Id: 7\r\n\r\n'
    form = json_format(False)
    one, two = line_of(form, FakeExchange(wire), FakeExchange(wire, status=0)).splitlines()
    expected = {
        "time": "2026-01-31T12:00:00Z", "client": "192.0.2.1", "method": "GET", "path": "/", "query": "x",
        "protocol": "HTTP/1.1", "status": 200, "bytes": 13, "seconds": 1.25, "queue": 0.2, "app": 1.0, "write": 0.05,
        "pid": os.getpid(), "agent": '"\\é', "referer": "r", "request_id": "7",
    }  # fmt: skip
    assert json.loads(one) == expected
    assert json.loads(two) == {**expected, "status": 0}
    assert list(json.loads(one)) == list(expected)


def test_json_lines_with_ids_of_the_servers() -> None:
    exchange = FakeExchange(b"GET / HTTP/1.1\r\nHost: a\r\nX-Request-Id: 7\r\n\r\n")
    exchange.context.request_id = "abc"
    entry = json.loads(line_of(json_format(True), exchange))
    assert entry["request_id"] == "abc"
    assert list(entry)[-2:] == ["pid", "request_id"]


def test_the_example_in_the_module_s_text_is_what_is_made() -> None:
    example = compile_format('%(h)s "%(r)s" %(s)s %(L)s').source({}, exclude=False)
    assert logformat.__doc__ is not None
    assert textwrap.indent(example, "    ") in logformat.__doc__


@pytest.mark.parametrize(
    ("form", "variables"),
    [("%(h)s", set()), ("%(L)s", {"total"}), ("%(queue)s", {"queue"}), ("%(app)s", {"total", "queue", "write"})],
)
def test_only_durations_that_the_format_has_are_worked_out(form: str, variables: set[str]) -> None:
    source = compile_format(form).source({}, exclude=False)
    assert {name for name in ("total", "queue", "write") if f"    {name} = " in source} == variables


def test_no_text_of_the_user_s_gets_into_the_source() -> None:
    assert "secret" not in compile_format("secret %(h)s secret %(r)s %({secret}i)s").source({}, exclude=True)


# --- streams of HTTP/2 ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stream", "code", "text", "member"),
    [
        (None, -1, "- -", None),
        (5, -1, "5 -", {"stream": 5}),
        (5, -2, "5 -", {"stream": 5}),
        (7, 0, "7 NO_ERROR", {"stream": 7, "reset": "NO_ERROR"}),
        (7, 8, "7 CANCEL", {"stream": 7, "reset": "CANCEL"}),
        (7, 0xFFFFFFFF, "7 0xffffffff", {"stream": 7, "reset": "0xffffffff"}),
    ],
    ids=["HTTP/1", "not reset", "the connection was lost", "reset without error", "cancelled", "no code of the RFC"],
)
def test_the_stream_and_its_reset(stream: int | None, code: int, text: str, member: object) -> None:
    exchange = FakeExchange()
    exchange.stream_id, exchange.reset_code = stream, code
    assert line_of(compile_format("%(stream)s %(reset)s"), exchange) == f"{text}\n"
    assert json.loads(line_of(json_format(False), exchange)).get("http2") == member


# --- responses that were cut short ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("writing", "status", "response", "cut"),
    [
        (DONE, 200, 200, False),
        (CLOSED, 200, 200, True),
        (CLOSED, 0, None, True),
        (CLOSED, 408, None, False),
        (CLOSED, 408, 200, False),
    ],
    ids=["complete", "in the middle", "the client left before", "refused", "refused in place of a response"],
)
def test_a_cut_is_marked(writing: Any, status: int, response: int | None, cut: bool) -> None:
    exchange = FakeExchange(status=status)
    exchange.writing = writing
    exchange.response = None if response is None else SimpleNamespace(status=response)
    assert line_of(compile_format("%(s)s%(cut)s"), exchange) == f"{status or '-'}{' cut' if cut else ''}\n"
    assert line_of(compile_format("%(X)s"), exchange) == ("X\n" if cut else "+\n")
    exchange.close_after = True
    assert line_of(compile_format("%(X)s"), exchange) == ("X\n" if cut else "-\n")
    assert json.loads(line_of(json_format(False), exchange)).get("cut", False) is cut


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("h", True),
        ("t", True),
        ("{user-agent}i", True),
        ("{x-id}o", True),
        ("{HOME}e", True),
        ("zz", False),
        ("", False),
    ],
)
def test_which_names_are_atoms(name: str, known: bool) -> None:
    assert is_known_atom(name) is known
