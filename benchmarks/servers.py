"""The servers under measure: the command that starts each with its fastest fair settings.

Fair: one worker process, no access log, every limit and timeout at its default. What differs from a server's
defaults is in the functions below, each with its reason. ``{port}``, ``{cert}`` and ``{key}`` stand in a command until
it is run, so that a report can show it without the paths of one machine.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

HOST = "127.0.0.1"
PYTHON = "python"
PURE = "bridge-pure"  # bridge without its compiled functions


@dataclass(frozen=True, slots=True)
class Target:
    """What a server is asked to serve, and how."""

    interface: str  # asgi, wsgi, tornado (an HTTPServer from benchmarks.serve)
    app: str  # module:attribute; for tornado "callable" or "web"
    floor: str | None = None  # the kind of floor that does the same job
    tls: bool = False
    http2: bool = False  # by ALPN under TLS, otherwise by prior knowledge
    websocket: bool = False
    access_log: bool = False
    default_threads: bool = False  # WSGI threads as each server has them by default, not the fastest number
    many_idle: bool = False  # thousands of connections must stay open: raise what closes or refuses them


def tls_files(target: Target, cert: str, key: str) -> list[str]:
    return [cert, "{cert}", key, "{key}"] if target.tls else []


def bridge(target: Target) -> list[str]:
    if target.interface == "tornado":
        return [PYTHON, "-m", "benchmarks.serve", "bridge", target.app, "--port", "{port}"]
    command = [PYTHON, "-m", "bridge", "run", target.app, "--host", HOST, "--port", "{port}"]
    command += ["--access-log" if target.access_log else "--no-access-log"]
    command += tls_files(target, "--ssl-certfile", "--ssl-keyfile")
    if target.http2:
        command += ["--http-protocols", "h2,h1", "--http2-cleartext", "on"]
    if target.many_idle:
        command += ["--timeout-keep-alive", "75"]
    return command


def uvicorn(target: Target) -> list[str]:
    command = [PYTHON, "-m", "uvicorn", target.app, "--host", HOST, "--port", "{port}"]
    command += ["--loop", "uvloop", *(["--http", "zttp", "--http2"] if target.http2 else ["--http", "httptools"])]
    command += ["--interface"]
    command += ["wsgi" if target.interface == "wsgi" else "asgi3"]
    command += ["--access-log"] if target.access_log else ["--no-access-log", "--log-level", "warning"]
    command += tls_files(target, "--ssl-certfile", "--ssl-keyfile")
    if target.websocket:
        command += ["--ws", "websockets-sansio"]
    if target.many_idle:
        command += ["--timeout-keep-alive", "75"]
    return command


def granian(target: Target) -> list[str]:
    command = [PYTHON, "-m", "granian", "--interface", target.interface, "--host", HOST, "--port", "{port}"]
    command += ["--workers", "1", "--loop", "uvloop", "--http", "2" if target.http2 else "1"]
    command += ["--access-log"] if target.access_log else ["--no-access-log", "--log-level", "warning"]
    command += ["--ws"] if target.websocket else ["--no-ws"]
    if target.many_idle:
        command += ["--backlog", "4096"]
    command += tls_files(target, "--ssl-certificate", "--ssl-keyfile")
    return [*command, target.app]


def granian_8(target: Target) -> list[str]:
    """Return granian's command with 8 threads for WSGI.

    Of 1, 2, 4, 8, 16, 32 the cheapest: 14.1 µs per plain request where 1 takes 18.7, and 68 for 105 with Flask.
    """
    *command, app = granian(target)
    return [*command, "--blocking-threads", "8", app]


def gunicorn(target: Target) -> list[str]:
    command = [PYTHON, "-m", "gunicorn", "--bind", f"{HOST}:{{port}}", "--workers", "1", "--no-control-socket"]
    command += ["--http-parser", "fast"]  # of a browser's request it takes half of the Python parser's time
    if target.interface == "wsgi":
        command += ["--worker-class", "gthread"]
        if not target.default_threads:
            command += ["--threads", "4"]  # the cheapest of 1, 2, 4, 8, 16, 32
    else:
        command += ["--worker-class", "asgi", "--asgi-loop", "uvloop"]
    if target.http2:
        command += ["--http-protocols", "h2,h1", "--http2-cleartext", "prior-knowledge"]
    command += ["--access-logfile", "-"] if target.access_log else ["--log-level", "warning"]
    command += tls_files(target, "--certfile", "--keyfile")
    if target.many_idle:
        command += ["--keep-alive", "75", "--worker-connections", "4096"]
    return [*command, target.app]


def hypercorn(target: Target) -> list[str]:
    command = [PYTHON, "-m", "hypercorn", "--bind", f"{HOST}:{{port}}", "--workers", "1", "--worker-class", "uvloop"]
    command += ["--access-logfile", "-"] if target.access_log else ["--log-level", "warning"]
    command += tls_files(target, "--certfile", "--keyfile")
    if target.http2:
        command += ["--config", "python:benchmarks.apps.hypercorn_config"]
    if target.many_idle:
        command += ["--keep-alive", "75"]
    return [*command, target.app]


def h2corn(target: Target) -> list[str]:
    command = [PYTHON, "-m", "h2corn", target.app, "--host", HOST, "--port", "{port}", "--loop", "uvloop"]
    command += ["--access-log" if target.access_log else "--no-access-log"]
    return command + tls_files(target, "--certfile", "--keyfile")


def waitress(target: Target) -> list[str]:
    command = [PYTHON, "-m", "waitress", f"--listen={HOST}:{{port}}"]
    if not target.default_threads:
        command += ["--threads=32"]  # 8 to 64 do not differ; with fewer than connections it logs its queue
    if target.many_idle:
        command += ["--connection-limit=4096", "--asyncore-use-poll"]  # select() ends at 1024 files
    return [*command, target.app]


def tornado(target: Target) -> list[str]:
    return [PYTHON, "-m", "benchmarks.serve", "tornado", target.app, "--port", "{port}"]


def floor(target: Target) -> list[str]:
    command = [PYTHON, "-m", "benchmarks.serve", "floor", target.floor or "plaintext", "--port", "{port}"]
    return command + tls_files(target, "--ssl-certfile", "--ssl-keyfile")


@dataclass(frozen=True, slots=True)
class Server:
    """One server: how it is started, the distributions whose versions a report names, and its environment."""

    command: Callable[[Target], list[str]]
    distributions: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)


SERVERS = {
    "floor": Server(floor, ("uvloop",)),
    "bridge": Server(bridge, ("bridge", "uvloop")),
    PURE: Server(bridge, ("bridge", "uvloop"), {"BRIDGE_SPEEDUPS": "0"}),
    "uvicorn": Server(uvicorn, ("uvicorn", "httptools", "uvloop")),
    "granian": Server(granian, ("granian", "uvloop")),
    "granian-8": Server(granian_8, ("granian", "uvloop")),
    "gunicorn": Server(gunicorn, ("gunicorn", "gunicorn_h1c", "uvloop")),
    "hypercorn": Server(hypercorn, ("hypercorn", "uvloop")),
    "h2corn": Server(h2corn, ("h2corn", "uvloop")),
    "waitress": Server(waitress, ("waitress",)),
    "tornado": Server(tornado, ("tornado", "uvloop")),
}


def base(name: str) -> str:
    """Return a server's name without its commit and its options."""
    return name.partition("+")[0].partition("@")[0]


def commit_of(name: str) -> str:
    """Return the commit of a server such as "bridge@1a2b3c4+--threads=4"; empty for what is checked out."""
    return name.partition("+")[0].partition("@")[2]


def server_of(name: str) -> Server:
    """Return the server of a name, perhaps with a commit and options.

    Raises:
        KeyError: there is no such server.
    """
    return SERVERS[base(name)]


def command_of(name: str, target: Target) -> list[str]:
    """Return the command of a server; "bridge+--threads=4" is bridge with one more option.

    Raises:
        KeyError: there is no such server.
    """
    _, *options = name.split("+")
    command = server_of(name).command(target)
    end = len(command) - (command[-1] == target.app)  # some take no option after the application
    return [*command[:end], *options, *command[end:]]
