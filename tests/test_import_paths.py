"""Every import path that a text names can be imported, and so can every documented name of Tornado's server modules."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import ROOT
from tests.support.table import table

#: Dotted words that are no import paths: files, a logger, keys of environs and scopes, a module that may be absent.
OTHER = {
    "bridge.ctl",
    "bridge.route",
    "bridge.worker",
    *("bridge.toml", "bridge.sock", "bridge.access", "bridge.client_disconnected", "bridge.deadline"),
    *("bridge.request_id", "bridge.shutdown.notice", "bridge._speedups"),
}

#: What a program of one's own uses.
OURS = (
    *(
        "bridge.run",
        "bridge.Server",
        "bridge.Config",
        "bridge.config",
        "bridge.config.Config",
        "bridge.config.SETTINGS",
    ),
    *("bridge.adapters.mount.Mount", "bridge.adapters.wsgi.WSGIDelegate", "bridge.adapters.asgi.ASGIDelegate"),
    *("bridge.adapters.tornado.install", "bridge.pytest_plugin.bridge_server"),
    *("bridge.errors.BridgeError", "bridge.errors.ConnectionGone", "bridge.errors.LocalProtocolError"),
)

_STARTING = ("listen", "bind", "start", "add_sockets", "add_socket", "stop", "handle_stream")
_WRITING = ("write_headers", "write", "finish")
_RECEIVING = ("headers_received", "data_received", "finish", "on_connection_close")
_READING = ("read_bytes", "read_until", "read_until_regex", "read_into", "read_until_close")

#: The documented names of Tornado 3.1 to 6.x, by module: what works after ``tornado`` has become ``bridge.core``.
TORNADO: dict[str, dict[str, tuple[str, ...]]] = {
    "httpserver": {
        "HTTPServer": (*_STARTING, "close_all_connections", "configure", "configured_class", "initialize", "on_close"),
        "HTTPRequest": ("write", "finish", "supports_http_1_1", "full_url", "request_time", "get_ssl_certificate"),
        "HTTPConnection": ("set_close_callback", "write", "finish", "close"),
    },
    "tcpserver": {"TCPServer": _STARTING},
    "http1connection": {
        "HTTP1ConnectionParameters": (),
        "HTTP1Connection": (
            *("read_response", "set_close_callback", "detach", "set_body_timeout", "set_max_body_size", "close"),
            *_WRITING,
        ),
        "HTTP1ServerConnection": ("start_serving", "close"),
    },
    "httputil": {
        "HTTPServerRequest": ("full_url", "request_time", "get_ssl_certificate", "cookies"),
        "HTTPHeaders": ("add", "get_list", "get_all", "parse_line", "parse", "copy"),
        "HTTPFile": (),
        "HTTPServerConnectionDelegate": ("start_request", "on_close"),
        "HTTPMessageDelegate": _RECEIVING,
        "HTTPConnection": _WRITING,
        "RequestStartLine": ("method", "path", "version"),
        "ResponseStartLine": ("version", "code", "reason"),
        "HTTPInputError": (),
        "HTTPOutputError": (),
        "ParseMultipartConfig": (),
        "ParseUrlEncodedConfig": (),
        "ParseBodyConfig": (),
        "set_parse_body_config": (),
        "parse_request_start_line": (),
        "parse_response_start_line": (),
        "parse_body_arguments": (),
        "parse_multipart_form_data": (),
        "parse_cookie": (),
        "url_concat": (),
        "format_timestamp": (),
        "split_host_and_port": (),
        "qs_to_qsl": (),
        "encode_username_password": (),
        "responses": (),
    },
    "netutil": {
        "bind_sockets": (),
        "bind_unix_socket": (),
        "add_accept_handler": (),
        "is_valid_ip": (),
        "ssl_options_to_context": (),
        "ssl_wrap_socket": (),
    },
    "process": {"fork_processes": (), "task_id": (), "cpu_count": ()},
    "util": {"Configurable": ("configure", "configured_class", "configurable_base", "configurable_default")},
    "iostream": {
        "IOStream": (
            *("write", "close", "closed", "reading", "writing", "set_close_callback", "set_nodelay", "fileno"),
            *("connect", "start_tls"),
            *_READING,
        ),
        "SSLIOStream": ("wait_for_handshake",),
        "StreamClosedError": (),
        "UnsatisfiableReadError": (),
        "StreamBufferFullError": (),
    },
    "ioloop": {
        "IOLoop": (
            *("instance", "current", "start", "stop", "time", "add_callback", "add_timeout", "call_later"),
            *("remove_timeout", "spawn_callback", "add_future", "run_sync"),
        )
    },
    "log": {"access_log": (), "app_log": (), "gen_log": ()},
}

#: Paths that documents named, or programs may have used, and what they became. CHANGELOG.md names both.
MOVED = {
    "bridge.core.proxies": "bridge.core.middleware.proxy",
    "bridge.core.forwarded": "bridge.core.middleware.xheaders",
    "bridge.core.delegates": "bridge.core.connection.interfaces",
    "bridge.core.exchange": "bridge.core.connection.http1exchange",
    "bridge.core.serverconnection": "bridge.core.connection.http1",
    "bridge.core.websocketconnection": "bridge.core.connection.websocket",
    "bridge.core.parameters": "bridge.core.connection.parameters",
    "bridge.core.context": "bridge.core.connection.context",
    "bridge.core.clock": "bridge.core.connection.clock",
    "bridge.core.states": "bridge.core.connection.states",
    "bridge.core.http1.head": "bridge.core.http.limits",
    "bridge.settings_sources": "bridge.config.sources",
}

DOTTED = re.compile(r"\bbridge(?:\.[A-Za-z_]\w*)+")
#: What a line of the changelog says of the past is no path of today.
FORMER = re.compile(r"\(before: [^)]*\)")


def tornado_paths() -> list[str]:
    """Return the documented names of Tornado's modules as import paths of bridge, methods included."""
    return [
        ".".join(("bridge.core", module, *rest))
        for module, names in TORNADO.items()
        for name, methods in names.items()
        for rest in ((name,), *((name, method) for method in methods))
    ]


def resolve(path: str) -> object:
    """Return what *path* names: a module, or an attribute of one.

    Raises:
        ImportError: It names nothing; or a module on the way cannot be imported.
    """
    found: object = importlib.import_module("bridge")
    name = "bridge"
    for part in path.split(".")[1:]:
        name = f"{name}.{part}"
        if hasattr(found, part):
            found = getattr(found, part)
            continue
        try:
            found = importlib.import_module(name)
        except ModuleNotFoundError as exc:
            raise ImportError(f"{path}: there is no {name}") from exc
    return found


def docstrings(source: str) -> Iterator[str]:
    """Yield the docstrings in *source*."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield ast.get_docstring(node) or ""


def python_imports(source: str) -> Iterator[str]:
    """Yield what *source* imports of bridge."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "bridge")
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "bridge":
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def paths_in(path: Path) -> set[str]:
    """Return the import paths that a file names.

    All of a text counts, and all of an example, with what it imports; of a module of the package, its docstrings.
    """
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        named = text if path.is_relative_to(ROOT / "examples") else "\n".join(docstrings(text))
        return ({*DOTTED.findall(named)} | {*python_imports(text)}) - OTHER
    imported = {
        f"{module}.{name.split()[0]}"
        for module, names in re.findall(r"^\s*from (bridge[\w.]*) import ([\w, ]+)", text, re.MULTILINE)
        for name in names.split(",")
    }
    return ({*DOTTED.findall(FORMER.sub("", text))} | imported) - OTHER


def files() -> list[Path]:
    """Return the files whose import paths hold: texts, examples, and modules whose names are public."""
    texts = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.py")]
    modules = [path for path in (ROOT / "bridge").rglob("*.py") if not path.name.startswith("_")]
    return sorted([*texts, *modules])


@table("path", files())
def test_the_import_paths_of_a_file_exist(path: Path) -> None:
    for name in sorted(paths_in(path)):
        resolve(name)


@table("name", [*OURS, *tornado_paths(), *MOVED.values()])
def test_a_documented_path_exists(name: str) -> None:
    resolve(name)


@pytest.mark.parametrize(("before", "now"), MOVED.items())
def test_a_path_that_moved_stands_in_the_changelog(before: str, now: str) -> None:
    with pytest.raises(ImportError):
        resolve(before)
    lines = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").splitlines()
    assert any(f"`{now}`" in line and f"`{before}`" in line for line in lines)


@pytest.mark.parametrize(
    "name", ["bridge.core.served", "bridge.core.httpserver.HTTPServr", "bridge.core.httpserver.HTTPServer.lisen"]
)
def test_a_path_that_names_nothing_is_found(name: str) -> None:
    with pytest.raises(ImportError):
        resolve(name)


def test_the_paths_of_texts_and_sources_are_found(tmp_path: Path) -> None:
    text = tmp_path / "page.md"
    text.write_text(
        "`bridge.core.x` reads bridge.toml (before: `bridge.core.y`)\n\n    from bridge.core.z import a, b as c\n",
        encoding="utf-8",
    )
    assert paths_in(text) == {"bridge.core.x", "bridge.core.z", "bridge.core.z.a", "bridge.core.z.b"}
    source = tmp_path / "module.py"
    source.write_text(
        '"""See bridge.core.x."""\nfrom bridge.core.y import a\nimport bridge.core.z\nb = "bridge.no"\n',
        encoding="utf-8",
    )
    assert paths_in(source) == {"bridge.core.x", "bridge.core.y.a", "bridge.core.z"}
