"""What is measured: the application, the load and the servers of each scenario."""

from dataclasses import dataclass, field, replace
from typing import Any

from benchmarks.answers import CHUNK, CHUNKS, PLAINTEXT, TEN_KILOBYTES, UPLOAD_SIZE
from benchmarks.servers import PURE, Target, base

ASGI_SERVERS = ("floor", "bridge", "uvicorn", "granian", "gunicorn")
WSGI_SERVERS = ("floor", "bridge", "granian", "granian-8", "waitress", "gunicorn", "uvicorn")
WSGI_APPLICATION_SERVERS = ("bridge", PURE, "granian", "granian-8", "waitress", "gunicorn")
ZTTP = "uvicorn+--http+zttp"  # uvicorn's newest parser, beside the one that it recommends
APPLICATION_SERVERS = ("bridge", "uvicorn", "granian")


@dataclass(frozen=True, slots=True)
class Scenario:
    """One row of servers that do the same job.

    ``kind`` is what is measured: "load" (processor time per request), "rate" (the same load, but requests per second
    count), "idle" and "slow" (memory per connection) or "start" (processor time from the command to the first byte
    answered).
    """

    name: str
    title: str
    target: Target
    servers: tuple[str, ...]
    group: str  # the plot that shows it
    kind: str = "load"
    sends: str = "get"  # load.lua and client.py know the words; of each but mixed, the client repeats itself
    connections: int = 32
    streams: int = 1  # HTTP/2: requests at once on each connection
    rounds: int = 3
    expect: bytes = PLAINTEXT  # the content of a right answer, checked before each round
    uses: tuple[str, ...] = ()  # distributions beside the servers' own, whose versions matter
    notes: tuple[str, ...] = field(default=())

    @property
    def websocket(self) -> bool:
        return self.sends.startswith("websocket-")

    @property
    def needs_h2load(self) -> bool:
        return self.target.http2 and self.kind == "load" and self.sends != "mixed"

    def choose(self, names: list[str] | None) -> list[str]:
        """Return those of *names* that can serve this scenario; None names all of its servers."""
        if names is None:
            return list(self.servers)
        able = {base(server) for server in self.servers}
        return [name for name in names if base(name) in able]


ASGI = Target("asgi", "benchmarks.apps.asgi:plaintext", floor="plaintext")
WSGI = Target("wsgi", "benchmarks.apps.wsgi:plaintext", floor="plaintext")
WEBSOCKET = Target("asgi", "benchmarks.apps.asgi:websocket_echo", websocket=True)
ONE_MEGABYTE = CHUNK * CHUNKS
THREADS = (
    "Threads: bridge has its default, granian its default, granian-8 has 8, gunicorn (gthread) 4, and waitress 32. For "
    "plain requests, 8 and 4 are the cheapest numbers from 1 to 32 for granian and gunicorn. For waitress, all numbers "
    "from 8 to 64 give the same figures within the spread.",
)
SLOW = (
    "400 clients ask and do not read. One more client reads; the time is how long it waits for its whole "
    "answer. A server that never answers it is not compared. Memory of the kernel's buffers is not "
    "counted. Each piece of an answer is an object of its own, as templates and files are.",
)

MIXED = (
    "The requests are like those behind a proxy: 4,000 different heads of browsers, crawlers, mobile "
    "applications and programs, in random order, with 15 fields on average, a proxy's fields among them. "
    "6 of 100 requests have content, which the application reads. Each request has a new number in query, "
    "cookie and request id, so no head is sent twice.",
)
PURE_NOTE = "bridge-pure is bridge without its compiled functions (BRIDGE_SPEEDUPS=0)."


def mixed(name: str, title: str, target: Target, servers: tuple[str, ...], **more: Any) -> Scenario:
    """Return a scenario whose client never repeats itself."""
    notes = (*MIXED, PURE_NOTE, *more.pop("notes", ()))
    values: dict[str, Any] = {"group": "mixed", "sends": "mixed", "connections": 64, "rounds": 5}
    return Scenario(f"{name}-mixed", f"{title}, no head twice", target, servers, **(values | more), notes=notes)


_MIXED = (
    mixed(
        "asgi",
        "ASGI, 13 bytes of text",
        replace(ASGI, app="benchmarks.apps.asgi:taking", floor="mixed"),
        ("floor", "bridge", PURE, "uvicorn", ZTTP, "granian", "gunicorn"),
        uses=("zttp",),
    ),
    mixed(
        "wsgi",
        "WSGI through threads, 13 bytes of text",
        replace(WSGI, app="benchmarks.apps.wsgi:taking", floor="mixed"),
        ("floor", *WSGI_APPLICATION_SERVERS),
        notes=THREADS,
    ),
    mixed(
        "flask",
        "Flask, one view",
        replace(WSGI, app="benchmarks.apps.flask_hello:every_path"),
        WSGI_APPLICATION_SERVERS,
        uses=("flask", "werkzeug"),
        notes=THREADS,
    ),
    mixed(
        "django",
        "Django through WSGI, one view, no middleware",
        replace(WSGI, app="benchmarks.apps.django_hello:wsgi"),
        WSGI_APPLICATION_SERVERS,
        uses=("django",),
        notes=(
            *THREADS,
            "waitress closes the connection after each of Django's answers, because they have no Content-Length.",
        ),
    ),
    mixed(
        "fastapi",
        "FastAPI, one coroutine, JSON",
        replace(ASGI, app="benchmarks.apps.fastapi_hello:every_path"),
        ("bridge", PURE, "uvicorn", ZTTP, "granian"),
        expect=b'{"message":"Hello, World!"}',
        uses=("fastapi", "starlette", "zttp"),
    ),
    mixed(
        "tls",
        "TLS 1.3, ASGI, 13 bytes of text",
        replace(ASGI, app="benchmarks.apps.asgi:taking", floor="mixed", tls=True),
        ("floor", "bridge", PURE, "uvicorn", "granian", "gunicorn"),
        notes=("Connections stay open, so the figures contain no handshakes.",),
    ),
    mixed(
        "callable",
        "HTTPServer with a plain callable",
        Target("tornado", "callable", floor="mixed"),
        ("floor", "bridge", PURE, "tornado"),
    ),
)

HTTP2 = replace(ASGI, http2=True)
HTTP2_SERVERS = ("bridge", "granian", "h2corn", "uvicorn", "gunicorn", "hypercorn")


def http2(name: str, title: str, target: Target = HTTP2, **more: Any) -> Scenario:
    """Return a scenario over HTTP/2."""
    values: dict[str, Any] = {"group": "http2", "connections": 8, "streams": 32, "servers": HTTP2_SERVERS}
    uses = ("zttp", "h2")  # uvicorn's protocol; hypercorn's and gunicorn's
    return Scenario(f"h2-{name}", f"HTTP/2, {title}", target, **(values | more), uses=uses)


_HTTP2 = (
    http2(
        "mixed",
        "13 bytes of text, no head twice",
        replace(HTTP2, app="benchmarks.apps.asgi:taking"),
        sends="mixed",
        servers=("bridge", PURE, *HTTP2_SERVERS[1:]),
        notes=(
            "The requests are those of the other -mixed rows. The first requests of each connection put the most "
            "common field lines into the dynamic table. Later requests name these by index, and send all other "
            "field lines as literals without indexing, mostly with Huffman coding. The client is our own.",
        ),
    ),
    http2("plaintext", "13 bytes of text"),
    http2("paths", "a browser's 10 fields, 500 paths", sends="paths"),
    http2("tls", "TLS 1.3, 13 bytes of text", replace(HTTP2, tls=True)),
    http2(
        "upload",
        "64 KiB of content sent and echoed",
        replace(HTTP2, app="benchmarks.apps.asgi:echo"),
        sends="upload",
        streams=4,
        expect=b"u" * 16_384 * 3,
    ),
    http2(
        "idle",
        "idle connections",
        replace(HTTP2, many_idle=True),
        kind="idle",
        connections=500,
        notes=("500 idle connections; each has had one request.",),
    ),
    http2(
        "slow",
        "readers of 1 MiB that open no window",
        replace(HTTP2, app="benchmarks.apps.asgi:stream_made"),
        kind="slow",
        connections=4,
        streams=100,
        expect=ONE_MEGABYTE,
        notes=(
            "4 connections have 100 streams each, with a window of 0. The figure in KiB is for one stream. One "
            "more client reads; the time is how long it waits for its whole answer.",
        ),
    ),
)

_REPEATED = (
    Scenario(
        "asgi-plaintext", "ASGI, 13 bytes of text", ASGI, (*ASGI_SERVERS, ZTTP, "hypercorn"), "asgi", uses=("zttp",)
    ),
    Scenario(
        "asgi-128",
        "ASGI, 13 bytes of text, 128 connections",
        ASGI,
        ASGI_SERVERS,
        "asgi",
        connections=128,
        notes=(
            "Servers that pass requests from one thread to another need less time for each request when more "
            "requests come at once.",
        ),
    ),
    Scenario(
        "asgi-browser",
        "ASGI, a browser's 11 fields, other values in every request",
        ASGI,
        (*ASGI_SERVERS, ZTTP),
        "asgi",
        sends="browser",
        uses=("zttp",),
    ),
    Scenario(
        "asgi-10k",
        "ASGI, an answer of 10 KiB",
        replace(ASGI, app="benchmarks.apps.asgi:ten_kilobytes", floor="10k"),
        ASGI_SERVERS,
        "asgi",
        expect=TEN_KILOBYTES,
    ),
    Scenario(
        "asgi-stream",
        "ASGI, an answer of 1 MiB in 16 pieces",
        replace(ASGI, app="benchmarks.apps.asgi:stream", floor="stream"),
        ASGI_SERVERS,
        "asgi",
        expect=ONE_MEGABYTE,
    ),
    Scenario(
        "asgi-upload",
        "ASGI, 64 KiB of content sent and echoed",
        replace(ASGI, app="benchmarks.apps.asgi:echo", floor="upload"),
        ASGI_SERVERS,
        "asgi",
        sends="upload",
        expect=b"u" * UPLOAD_SIZE,
    ),
    Scenario(
        "asgi-await",
        "ASGI, 10 ms of asyncio.sleep, 256 connections",
        replace(ASGI, app="benchmarks.apps.asgi:wait", floor="wait"),
        ASGI_SERVERS,
        "asgi",
        connections=256,
    ),
    Scenario(
        "wsgi-plaintext",
        "WSGI through threads, 13 bytes of text",
        WSGI,
        WSGI_SERVERS,
        "wsgi",
        uses=("a2wsgi",),
        notes=(
            *THREADS,
            "uvicorn runs WSGI through a2wsgi, as it recommends. Its own adapter, which is deprecated, took less "
            "than half of that time.",
        ),
    ),
    Scenario(
        "wsgi-sleep",
        "WSGI, 10 ms of time.sleep, 64 connections, default threads",
        replace(WSGI, app="benchmarks.apps.wsgi:sleep", default_threads=True),
        ("bridge", "granian", "waitress", "gunicorn"),
        "wsgi",
        kind="rate",
        connections=64,
        notes=("Each server has its default number of threads. Compare the requests per second.",),
    ),
    Scenario(
        "flask",
        "Flask, one view",
        replace(WSGI, app="benchmarks.apps.flask_hello:app"),
        ("bridge", "granian", "granian-8", "waitress", "gunicorn"),
        "frameworks",
        uses=("flask", "werkzeug"),
        notes=THREADS,
    ),
    Scenario(
        "django-wsgi",
        "Django through WSGI, one view, no middleware",
        replace(WSGI, app="benchmarks.apps.django_hello:wsgi"),
        ("bridge", "granian", "granian-8", "waitress", "gunicorn"),
        "frameworks",
        uses=("django",),
        notes=THREADS,
    ),
    Scenario(
        "fastapi",
        "FastAPI, one coroutine, JSON",
        replace(ASGI, app="benchmarks.apps.fastapi_hello:app"),
        APPLICATION_SERVERS,
        "frameworks",
        expect=b'{"message":"Hello, World!"}',
        uses=("fastapi", "starlette"),
    ),
    Scenario(
        "starlette",
        "Starlette, one route",
        replace(ASGI, app="benchmarks.apps.starlette_hello:app"),
        APPLICATION_SERVERS,
        "frameworks",
        uses=("starlette",),
    ),
    Scenario(
        "websocket-64",
        "WebSocket echo, 64 bytes, no compression",
        WEBSOCKET,
        ("bridge", "uvicorn", "granian", "gunicorn", "hypercorn"),
        "more",
        sends="websocket-64",
        uses=("websockets", "wsproto"),
        notes=("A request is one message and its echo.",),
    ),
    Scenario(
        "websocket-16k",
        "WebSocket echo, 16 KiB, no compression",
        WEBSOCKET,
        ("bridge", "uvicorn", "granian", "gunicorn", "hypercorn"),
        "more",
        sends="websocket-16384",
        uses=("websockets", "wsproto"),
        notes=(
            "A request is one message and its echo.",
            "gunicorn unmasks each byte in a Python loop, so its figure is that high; it is no error of measurement.",
        ),
    ),
    Scenario(
        "tls",
        "TLS 1.3, ASGI, 13 bytes of text",
        replace(ASGI, tls=True),
        ASGI_SERVERS,
        "more",
        notes=("Connections stay open, so the figures contain no handshakes.",),
    ),
    Scenario(
        "callable",
        "HTTPServer with a plain callable",
        Target("tornado", "callable", floor="plaintext"),
        ("floor", "bridge", "tornado"),
        "tornado",
    ),
    Scenario(
        "tornado-web",
        "HTTPServer with a tornado.web.Application of one handler",
        Target("tornado", "web", floor="plaintext"),
        ("floor", "bridge", "tornado"),
        "tornado",
        uses=("tornado",),
    ),
    Scenario(
        "access-log",
        "ASGI, 13 bytes of text, access log on, written to a file",
        replace(ASGI, access_log=True),
        ("bridge", "bridge+--no-access-log", "uvicorn", "granian", "gunicorn"),
        "more",
    ),
    Scenario(
        "metrics",
        "ASGI, 13 bytes of text, with and without metrics",
        ASGI,
        ("bridge", "bridge+--admin-bind=127.0.0.1:0"),
        "more",
        rounds=5,
        notes=("Nobody reads the metrics during the measurement.",),
    ),
    Scenario(
        "idle-asgi",
        "Idle keep-alive connections, ASGI",
        replace(ASGI, many_idle=True),
        (*ASGI_SERVERS, "hypercorn"),
        "memory",
        kind="idle",
        connections=2000,
        notes=("2,000 idle connections; each has had one request.",),
    ),
    Scenario(
        "idle-wsgi",
        "Idle keep-alive connections, WSGI",
        replace(WSGI, many_idle=True),
        ("bridge", "granian", "waitress", "gunicorn"),
        "memory",
        kind="idle",
        connections=2000,
        notes=("2,000 idle connections; each has had one request.", *THREADS),
    ),
    Scenario(
        "slow-asgi",
        "Readers that ask for 1 MiB and do not read, ASGI",
        replace(ASGI, app="benchmarks.apps.asgi:stream_made", floor="stream"),
        ("bridge", "uvicorn", "granian", "gunicorn", "hypercorn"),
        "memory",
        kind="slow",
        connections=400,
        expect=ONE_MEGABYTE,
        notes=SLOW,
    ),
    Scenario(
        "slow-wsgi",
        "Readers that ask for 1 MiB and do not read, WSGI",
        replace(WSGI, app="benchmarks.apps.wsgi:stream_made", many_idle=True),
        ("bridge", "granian", "waitress", "gunicorn"),
        "memory",
        kind="slow",
        connections=400,
        expect=ONE_MEGABYTE,
        notes=(*SLOW, *THREADS),
    ),
    Scenario(
        "start-asgi",
        "From the command to the first byte answered, ASGI",
        ASGI,
        (*ASGI_SERVERS, "hypercorn"),
        "start",
        kind="start",
    ),
    Scenario(
        "start-wsgi",
        "From the command to the first byte answered, WSGI",
        WSGI,
        WSGI_SERVERS,
        "start",
        kind="start",
    ),
)

# What a title says of a client that sends the same bytes, or the same fields, all the time: a server may remember them.
REPEATS = {
    "get": "the client repeats itself",
    "upload": "the client repeats itself",
    "browser": "the client repeats all but its values",
    "paths": "the client repeats all but the path",
}


def told(scenario: Scenario) -> Scenario:
    """Return *scenario* with a title that says when its client repeats itself."""
    words = REPEATS.get(scenario.sends) if scenario.kind in ("load", "rate") else None
    return replace(scenario, title=f"{scenario.title}; {words}") if words else scenario


_ALL = (*_MIXED, *map(told, (*_HTTP2, *_REPEATED)))
SCENARIOS = {scenario.name: scenario for scenario in _ALL}


def select(names: list[str]) -> list[Scenario]:
    """Return the scenarios named, or all; "asgi" names every scenario that begins with "asgi".

    Raises:
        LookupError: a name fits none.
    """
    if not names:
        return list(SCENARIOS.values())
    chosen: dict[str, Scenario] = {}
    for name in names:
        fitting = [SCENARIOS[name]] if name in SCENARIOS else [s for s in _ALL if s.name.startswith(name)]
        if not fitting:
            raise LookupError(f"no scenario {name!r}; there are: {', '.join(SCENARIOS)}")
        chosen |= {scenario.name: scenario for scenario in fitting}
    return list(chosen.values())
