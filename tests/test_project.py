"""What holds for the project as a whole: layers, sizes of modules, what tracked files may say, commands that exist.

The checks are functions of source text, so that each of them is also shown a text that breaks it.
"""

from __future__ import annotations

import ast
import io
import re
import runpy
import subprocess
import sys
import tokenize
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bridge import __version__
from bridge.core.connection import states
from bridge.dialects import NAMES, dialect
from tests.support import ROOT
from tests.support.table import table

PACKAGE = ROOT / "bridge"

# --- layers -----------------------------------------------------------------------------------------------------------

#: What any part may import.
GROUND = (
    *("bridge.errors", "bridge._version", "bridge.speedups", "bridge.files", "bridge.forks"),
    *("bridge.core.log", "bridge.core.util"),
)
PROTOCOLS = ("bridge.core.http", "bridge.core.http1", "bridge.core.http2", "bridge.core.websocket")
#: The documented modules that other parts of the core may import: they stand for no layer of their own.
TOOLS = ("bridge.core.ioloop", "bridge.core.process")
RINGS = (
    "bridge.core.net",
    "bridge.core.net.addresses",
    "bridge.core.connection",
    "bridge.core.middleware",
    "bridge.core.stream",
)
#: The parts of the ring of connections that others use by name: what an adapter needs besides the contracts.
CLOSING = "bridge.core.connection.closing"
WAITER = "bridge.core.connection.waiter"
WEBSOCKET = "bridge.core.connection.websocket"
STREAMS = "bridge.core.connection.streams"
CORE = (*GROUND, *PROTOCOLS, *TOOLS, *RINGS, CLOSING, WAITER, WEBSOCKET, STREAMS, "bridge.core.tornado", "bridge.core")
SERVING = (*CORE, "bridge.config", "bridge.adapters", "bridge.adapters.mount", "bridge.telemetry", "bridge.apps")
#: What a delegate may know of a connection: what it promises, not what it is.
CONTRACTS = (
    "bridge.core.connection.interfaces",
    "bridge.core.connection.context",
    "bridge.core.connection.states",
    "bridge.core.connection.times",
    "bridge.core.connection.clock",
    "bridge.core.connection.budgets",
    "bridge.core.connection.turns",
    "bridge.core.connection.parameters",
)

#: What each part of the package may import of the others, besides itself. The longest name that fits decides.
LAYERS = {
    "bridge.errors": (),
    "bridge._version": (),
    "bridge.speedups": ("bridge._speedups",),
    "bridge._speedups": (),
    "bridge.files": (),
    "bridge.forks": (),
    "bridge.core.log": (),
    "bridge.core.util": ("bridge.errors",),
    "bridge.core.http": ("bridge.errors", "bridge.speedups"),
    "bridge.core.http1": ("bridge.errors", "bridge.speedups", "bridge.core.http"),
    "bridge.core.http2": ("bridge.errors", "bridge.speedups", "bridge.core.http"),
    "bridge.core.websocket": ("bridge.errors", "bridge.speedups", "bridge.core.http"),
    "bridge.core.ioloop": GROUND,
    "bridge.core.process": (*GROUND, "bridge.core.ioloop"),
    "bridge.core.net": (*GROUND, *TOOLS),
    "bridge.core.net.addresses": (),
    "bridge.core.connection.interfaces": ("bridge.core.http", *CONTRACTS),
    "bridge.core.connection.context": (),
    "bridge.core.connection.states": (),
    "bridge.core.connection.times": ("bridge.speedups",),
    "bridge.core.connection.clock": (
        *("bridge.core.log", "bridge.core.http", "bridge.core.connection.turns", "bridge.core.connection.budgets"),
    ),
    "bridge.core.connection.budgets": (
        *("bridge.core.log", "bridge.core.connection.heap", "bridge.core.connection.holdback"),
    ),
    "bridge.core.connection.heap": (),
    "bridge.core.connection.holdback": (),
    "bridge.core.connection.turns": ("bridge.core.log",),
    STREAMS: ("bridge.core.log", *CONTRACTS),
    "bridge.core.connection.parameters": ("bridge.core.http", *CONTRACTS),
    CLOSING: (),
    WAITER: (),
    WEBSOCKET: (*GROUND, *PROTOCOLS, *CONTRACTS, CLOSING, WAITER, "bridge.core.connection"),
    "bridge.core.connection": (*GROUND, *PROTOCOLS, *CONTRACTS, CLOSING, WAITER, "bridge.core.connection"),
    "bridge.core.middleware": (*GROUND, "bridge.core.http", "bridge.core.net.addresses", *CONTRACTS),
    "bridge.core.stream": (*GROUND, *TOOLS, "bridge.core.net", *CONTRACTS, CLOSING, "bridge.core.connection"),
    "bridge.core.tornado": (*GROUND, *PROTOCOLS, *TOOLS, *RINGS, *CONTRACTS),
    "bridge.core": (*CORE, *CONTRACTS),
    "bridge.config": ("bridge.errors",),
    "bridge.adapters.tornado": (*CORE, *CONTRACTS),
    "bridge.adapters.mount": (*CORE, *CONTRACTS, "bridge.adapters"),  # it takes delegates of every kind
    "bridge.adapters": (*GROUND, *PROTOCOLS, *CONTRACTS, CLOSING, WAITER, WEBSOCKET, STREAMS),
    "bridge.telemetry": (*CORE, *CONTRACTS, "bridge.config"),
    "bridge.apps": (
        *CORE,
        *CONTRACTS,
        "bridge.config",
        "bridge.adapters",
        "bridge.adapters.mount",
        "bridge.adapters.tornado",
    ),
    "bridge.operations": (*GROUND, *PROTOCOLS, "bridge.telemetry"),
    "bridge.serving": (*SERVING, "bridge.operations", *CONTRACTS, "bridge.adapters.tornado"),
    "bridge.hooks": (*SERVING, *CONTRACTS),
    "bridge.supervisor": (*SERVING, *CONTRACTS, "bridge.serving", "bridge.operations", "bridge.hooks"),
    "bridge.dialects": (*SERVING, "bridge.serving", "bridge.supervisor", "bridge.hooks"),
    "bridge.compat": (*SERVING, "bridge.serving", "bridge.supervisor", "bridge.dialects", "bridge.hooks", "bridge.cli"),
    "bridge.authority": ("bridge.errors",),
    "bridge.dev": (*SERVING, "bridge.authority"),
    "bridge.contrib": (*SERVING, "bridge.serving", "bridge.supervisor", "bridge.cli"),
    "bridge.cli": (
        "bridge.dev",
        *SERVING,
        "bridge.operations",
        "bridge.serving",
        "bridge.supervisor",
        "bridge.dialects",
        "bridge.compat",
    ),
    "bridge.__main__": ("bridge.cli",),
    "bridge.pytest_plugin": ("bridge.serving",),
    "bridge": (*SERVING, "bridge.serving", "bridge.supervisor", "bridge.cli"),
}

#: The documented modules: nothing else stands directly in ``bridge/core``.
DOORS = {
    *("httpserver", "tcpserver", "http1connection", "httputil", "iostream"),
    *("netutil", "ioloop", "process", "util", "log"),
}

#: Bytes in, values out: these parts see no socket, no loop, no file and no clock.
PURE = PROTOCOLS

#: All that a pure part may import from outside: a list of what is allowed, so that a new module must be thought about.
PURE_IMPORTS = {
    "__future__",
    "_sha1.sha1",
    "base64",
    "binascii",
    "bisect",
    "codecs.getincrementaldecoder",
    "codecs.utf_8_decode",
    "collections",
    "dataclasses",
    "enum",
    "functools",
    "hashlib",
    "http.HTTPStatus",
    "itertools",
    "operator",
    "re",
    "string",
    "struct",
    "time.gmtime",  # of a time that is given
    "typing",
    "urllib.parse",
    "zlib",
}

#: Built-in functions that reach outside, or hide what they import.
IMPURE_CALLS = {"open", "print", "input", "breakpoint", "exec", "eval", "__import__"}


def layer_of(module: str) -> str | None:
    """Return the entry of LAYERS that *module* belongs to, None if it has none."""
    name = module
    while name:
        if name in LAYERS and (name != "bridge" or module == "bridge"):
            return name
        name = name.rpartition(".")[0]
    return None


def imported(module: str, tree: ast.AST, *, is_package: bool) -> Iterator[tuple[int, str]]:
    """Yield line and full name of everything that *tree* imports, wherever in it the import stands.

    ``from a import b`` yields ``a.b``: b may be a module, and the layer of ``a.b`` is the same if it is not.
    """
    package = module if is_package else module.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = package.split(".")
                parents = parts[: len(parts) - node.level + 1]
                base = ".".join([*parents, base] if base else parents)
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and node.args:
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            argument = node.args[0]
            if called in {"import_module", "__import__"} and isinstance(argument, ast.Constant):
                yield node.lineno, str(argument.value)


def layer_faults(module: str, source: str, *, is_package: bool = False) -> list[str]:
    """Return what *source*, the text of *module*, imports although its layer must not."""
    layer = layer_of(module)
    if layer is None:
        return [f"{module} has no place in LAYERS"]
    tree = ast.parse(source)
    faults = []
    for line, name in imported(module, tree, is_package=is_package):
        if name.split(".")[0] != "bridge":
            if layer in PURE and not any(f"{name}.".startswith(f"{allowed}.") for allowed in PURE_IMPORTS):
                faults.append(f"{module}:{line} imports {name}: not pure")
            continue
        target = layer_of(name)
        if target is None:  # "from bridge import x", x being no module: a name of the package itself
            target = "bridge"
        if target != layer and target not in LAYERS[layer]:
            faults.append(f"{module}:{line} imports {name}: {layer} stands below {target}")
    if layer in PURE:
        faults += [
            f"{module}:{node.lineno} calls {node.func.id}: not pure"
            for node in ast.walk(tree)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in IMPURE_CALLS
        ]
    return faults


def modules() -> list[tuple[str, Path]]:
    """Return name and file of every module of the package."""
    found = []
    for path in sorted([*PACKAGE.rglob("*.py"), *PACKAGE.rglob("*.pyi")]):  # the latter stand for compiled modules
        parts = path.relative_to(ROOT).with_suffix("").parts
        found.append((".".join(parts[:-1] if parts[-1] == "__init__" else parts), path))
    return found


@table("module, path", [pytest.param(m, p, id=m) for m, p in modules()])
def test_imports_point_downwards(module: str, path: Path) -> None:
    faults = layer_faults(module, path.read_text(encoding="utf-8"), is_package=path.name == "__init__.py")
    assert faults == []


UPWARD = [
    pytest.param("bridge.core.x", "import bridge.adapters.asgi", id="plain import"),
    pytest.param("bridge.core.x", "from bridge.adapters.asgi import Asgi", id="name from a module"),
    pytest.param("bridge.core.x", "from bridge.adapters import asgi", id="module from a package"),
    pytest.param("bridge.core.x", "from bridge import adapters", id="package from the top"),
    pytest.param("bridge.core.x", "from bridge import *", id="star from the top"),
    pytest.param("bridge.core.x", "import bridge", id="the top itself"),
    pytest.param("bridge.core.x", "from bridge import run", id="a name of the top"),
    pytest.param("bridge.core.x", "from ..adapters import wsgi", id="relative, name from a package"),
    pytest.param("bridge.core.x", "from .. import supervisor", id="relative, a package"),
    pytest.param("bridge.core.x", "def f():\n    import bridge.cli", id="inside a function"),
    pytest.param("bridge.core.x", "try:\n    pass\nfinally:\n    import bridge.cli", id="inside a block"),
    pytest.param("bridge.core.x", "if TYPE_CHECKING:\n    import bridge.adapters", id="for types only"),
    pytest.param("bridge.core.x", "import importlib\nimportlib.import_module('bridge.adapters')", id="import_module"),
    pytest.param("bridge.core.x", "__import__('bridge.adapters')", id="__import__"),
    pytest.param("bridge.core.x", "import bridge.__main__", id="the main module"),
    pytest.param("bridge.adapters.x", "import bridge.serving.server", id="adapters, supervisor"),
    pytest.param("bridge.adapters.x", "from bridge.cli import main", id="adapters, cli"),
    pytest.param("bridge.supervisor.x", "from bridge.cli import main", id="supervisor, cli"),
    pytest.param("bridge.core.x", "from bridge.config.sources import load", id="core, settings_sources"),
    pytest.param("bridge.config.table", "from bridge.serving import server", id="config, serving"),
    pytest.param("bridge.config", "from bridge.core import httpserver", id="config, core"),
    pytest.param("bridge.errors", "from bridge.config import Config", id="errors, config"),
    pytest.param("bridge.core.http1.x", "from bridge.core import httputil", id="http1, core"),
    pytest.param("bridge.core.http1.x", "from ..iostream import IOStream", id="http1, core, relative"),
    pytest.param("bridge.core.http1.x", "from bridge.config import Config", id="http1, config"),
    pytest.param("bridge.core.http1.x", "from bridge.core.websocket import frames", id="http1, websocket"),
    pytest.param("bridge.unheard_of", "", id="a module without a layer"),
]


@pytest.mark.parametrize(("module", "source"), UPWARD)
def test_an_upward_import_is_found(module: str, source: str) -> None:
    assert len(layer_faults(module, source)) == 1


def test_an_upward_import_of_a_package_file_is_found() -> None:
    assert layer_faults("bridge.core", "from .. import adapters", is_package=True) != []
    assert layer_faults("bridge.core", "from . import httputil", is_package=True) == []


IMPURE = [
    *("asyncio", "socket", "ssl", "select", "selectors", "uvloop", "queue", "contextvars", "weakref"),
    *("threading", "multiprocessing", "subprocess", "concurrent.futures", "signal", "sys", "importlib"),
    *("logging", "io", "os", "os.path", "pathlib", "tempfile", "time", "datetime", "random", "secrets"),
    *("http.client", "http", "urllib.request", "urllib", "codecs", "codecs.open", "websockets", "zlibx"),
]


@table("layer, name", [(layer, name) for layer in PURE for name in IMPURE])
def test_an_impure_import_is_found(layer: str, name: str) -> None:
    assert len(layer_faults(f"{layer}.x", f"import {name}")) == 1
    assert len(layer_faults(f"{layer}.x", f"def f():\n    from {name} import something")) == 1


@pytest.mark.parametrize("call", ["open('f')", "print(1)", "input()", "eval('1')", "exec('1')"])
def test_an_impure_call_is_found(call: str) -> None:
    assert len(layer_faults("bridge.core.http1.x", f"def f():\n    return {call}")) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        (
            "bridge.core.http1.x",
            "import re\nfrom collections.abc import Iterator\nfrom bridge.errors import FramingError",
        ),
        ("bridge.core.http1.x", "from .grammar import TOKEN\nfrom bridge.core.http1 import head"),
        ("bridge.core.websocket.x", "from bridge.core.http.fields import TOKEN"),
        (
            "bridge.core.x",
            "import asyncio, time\nfrom bridge.core.http1.request import parse_head\nfrom . import httputil",
        ),
        ("bridge.adapters.x", "from bridge.core.http.message import RequestHead\nfrom bridge import speedups"),
        (
            "bridge.supervisor.x",
            "from bridge.core.http1 import head\nimport bridge.adapters.asgi\nfrom bridge._version import __version__",
        ),
        ("bridge.__main__", "from bridge.cli import main"),
        ("bridge", "from bridge.serving.server import run"),
    ],
)
def test_a_downward_import_is_fine(module: str, source: str) -> None:
    assert layer_faults(module, source) == []


# --- circles ----------------------------------------------------------------------------------------------------------

#: The circles that are meant: ``start_tls`` is a method of the plain stream and returns the other kind.
MEANT_CIRCLES = [{"bridge.core.stream.stream", "bridge.core.stream.tls"}]


def import_graph(sources: dict[str, tuple[str, bool]]) -> dict[str, set[str]]:
    """Return which modules of *sources* import which, wherever the import stands: lazy and type-only ones count.

    Args:
        sources: The text of each module by its name, and whether it is a package's own file.
    """
    graph: dict[str, set[str]] = {}
    for module, (source, is_package) in sources.items():
        graph[module] = set()
        for _, name in imported(module, ast.parse(source), is_package=is_package):
            target = name
            while target and target not in sources:
                target = target.rpartition(".")[0]
            if target and target != module:
                graph[module].add(target)
    return graph


def circles(graph: dict[str, set[str]]) -> list[set[str]]:
    """Return the sets of modules that reach each other."""
    reached = {}
    for start in graph:
        seen: set[str] = set()
        todo = [start]
        while todo:
            for target in graph[todo.pop()] - seen:
                seen.add(target)
                todo.append(target)
        reached[start] = seen
    found: list[set[str]] = []
    for module in sorted(graph):
        circle = {other for other in reached[module] if module in reached[other]}
        if circle and circle not in found:
            found.append(circle)
    return found


def test_no_imports_form_a_circle() -> None:
    sources = {module: (path.read_text(encoding="utf-8"), path.name == "__init__.py") for module, path in modules()}
    found = [circle for circle in circles(import_graph(sources)) if circle not in MEANT_CIRCLES]
    assert found == [], "these modules import each other; imports in functions and for types count, too"
    assert circles(import_graph(sources)) == MEANT_CIRCLES


CIRCLE = [
    pytest.param("import bridge.b", "import bridge.a", id="plain"),
    pytest.param("from bridge import b", "from bridge.a import f", id="from"),
    pytest.param("def f():\n    import bridge.b", "from bridge.a import f", id="inside a function"),
    pytest.param("if TYPE_CHECKING:\n    from bridge.b import B", "from bridge import a", id="for types only"),
    pytest.param("from . import b", "from .c import f", id="relative, by a third module"),
    pytest.param("importlib.import_module('bridge.b')", "import bridge.a", id="import_module"),
]


@pytest.mark.parametrize(("a", "b"), CIRCLE)
def test_a_circle_is_found(a: str, b: str) -> None:
    sources = {"bridge": "", "bridge.a": a, "bridge.b": b, "bridge.c": "import bridge.a"}
    graph = import_graph({module: (source, module == "bridge") for module, source in sources.items()})
    assert [circle - {"bridge.c"} for circle in circles(graph)] == [{"bridge.a", "bridge.b"}]


# --- doors ------------------------------------------------------------------------------------------------------------


def strangers(names: set[str]) -> set[str]:
    """Return which of *names*, the modules that stand directly in ``bridge/core``, are missing or no documented one."""
    return names ^ DOORS


def test_the_core_has_ten_doors() -> None:
    found = strangers({path.stem for path in (PACKAGE / "core").glob("*.py")} - {"__init__"})
    assert found == set(), "bridge/core/ has only the ten documented modules: put others into its folders"
    assert len(DOORS) == 10


def test_another_door_is_found() -> None:
    assert strangers(DOORS | {"served"}) == {"served"}
    assert strangers(DOORS - {"util"}) == {"util"}


# --- framing ----------------------------------------------------------------------------------------------------------

#: What only HTTP/1's own modules may spell: a version on the wire, the end of a head, a chunk's size, a framing field.
WIRE = re.compile(rb"HTTP/1\.|: [^\r\n]*\r\n\r\n|%x\r\n|(?i:^|\n)(?:content-length|transfer-encoding|connection): ")
#: The client of Tornado's interface writes requests; the others only look for such bytes, or are the text of a page.
WIRE_ELSEWHERE = {"bridge.core.tornado.client", "bridge.core.tornado.startline", "bridge.core.websocket.handshake"}


def wire_faults(module: str, source: str) -> list[str]:
    """Return the byte strings of *source* that are HTTP/1's framing, unless *module* is one of HTTP/1's own."""
    if module.startswith("bridge.core.http1.") or module in WIRE_ELSEWHERE:
        return []
    return [
        f"{module}:{node.lineno} {node.value!r:.60}"
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Constant) and isinstance(node.value, bytes) and WIRE.search(node.value)
    ]


@table("module, path", [pytest.param(m, p, id=m) for m, p in modules()])
def test_only_http1_spells_its_framing(module: str, path: Path) -> None:
    assert wire_faults(module, path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("text", [r"HTTP/1.1 200 OK\r\n", r"%x\r\n%b\r\n", r"a: b\r\n\r\n", "content-length: %d"])
def test_framing_elsewhere_is_found(text: str) -> None:
    assert len(wire_faults("bridge.core.connection.x", f"wire = b'{text}'")) == 1
    assert wire_faults("bridge.core.http1.x", f"wire = b'{text}'") == []


# --- the exchange -----------------------------------------------------------------------------------------------------

#: Who uses an exchange and must not look at the connection behind it.
USERS = ("adapters", "serving", "supervisor", "telemetry", "core/middleware")


def reaching(source: str) -> list[int]:
    """Return the lines of *source* that take an attribute of the connection behind an exchange."""
    return [
        node.lineno
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Attribute)
        and (
            node.attr == "server_connection"
            or (
                (isinstance(node.value, ast.Attribute) and node.value.attr == "connection")
                and ast.unparse(node.value.value).endswith("exchange")
            )
        )
    ]


def test_users_of_an_exchange_ask_the_exchange() -> None:
    paths = [path for folder in USERS for path in sorted((PACKAGE / folder).rglob("*.py"))]
    assert len(paths) > 40
    texts = {path: path.read_text(encoding="utf-8") for path in paths}
    found = {str(path.relative_to(ROOT)): lines for path, text in texts.items() if (lines := reaching(text))}
    assert found == {}, "these lines look behind an exchange: ask the exchange, see core/connection/interfaces.py"
    assert [path.name for path, text in texts.items() if "server_connection" in text] == []


def test_a_look_behind_an_exchange_is_found() -> None:
    assert reaching("x = exchange.server_connection") == [1]
    assert reaching("x = self._exchange.connection.transport") == [1]
    assert reaching("users[exchange.connection] = 1") == []


# --- sizes ------------------------------------------------------------------------------------------------------------

MOST_LINES = 500
#: One class is one file: it is never split by inheritance to keep a file short.
LONGER = {"bridge.core.connection.http1": 734}
NO_CODE = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENCODING,
    tokenize.ENDMARKER,
}


def lines_of_code(source: str) -> int:
    """Return how many lines of *source* hold code: blank lines, comments and docstrings do not."""
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in NO_CODE:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and ast.get_docstring(
            node
        ):
            lines.difference_update(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    return len(lines)


def test_lines_of_code_are_counted_without_comments_and_docstrings() -> None:
    source = (
        """'''Doc\n\nstring.'''\n\n# comment\nx = (1,\n     2)  # two lines\n\ndef f():\n    'Doc.'\n    return 3\n"""
    )
    assert lines_of_code(source) == 4


def test_no_module_is_too_long() -> None:
    sizes = {module: lines_of_code(path.read_text(encoding="utf-8")) for module, path in modules()}
    found = {module: size for module, size in sizes.items() if size > LONGER.get(module, MOST_LINES)}
    assert found == {}, f"more than {MOST_LINES} lines of code: which part is a subject of its own?"


# --- reasons ----------------------------------------------------------------------------------------------------------

#: Switches a check off for one line, with what follows it.
SWITCH = re.compile(
    r"#\s*(?:type: ignore(?:\[[\w, -]+\])?|noqa(?:: ?[A-Z]+\d+(?:, ?[A-Z]+\d+)*)?|pragma: no \w+)(?P<reason>.*)"
)


def unexplained(source: str) -> list[int]:
    """Return the lines of *source* that switch a check off and do not say why, or put something off."""
    found = []
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            switch = SWITCH.search(token.string)
            if (switch is not None and len(switch["reason"].strip(" #-:")) < 5) or re.search(
                r"\b(?:TODO|FIXME|XXX)\b", token.string
            ):
                found.append(token.start[0])
    return found


@table("module, path", modules())
def test_a_check_is_switched_off_for_a_reason(module: str, path: Path) -> None:
    assert unexplained(path.read_text(encoding="utf-8")) == [], "say why, behind the switch"


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("x = y  # type: ignore", True),
        ("x = y  # type: ignore[arg-type]", True),
        ("x = y  # type: ignore[arg-type]  # all of them are bytes", False),
        ("x = y  # noqa: S311", True),
        ("x = y  # noqa: C901, PLR0912", True),
        ("x = y  # noqa: S311 -- no secret", False),
        ("x = y  # pragma: no cover", True),
        ("x = y  # pragma: no cover -- only on Windows", False),
        ("x = y  # TODO: later", True),
        ("x = y  # the reason", False),
        ("x = '# noqa'", False),
    ],
)
def test_a_switch_without_a_reason_is_found(line: str, found: bool) -> None:
    assert unexplained(f"{line}\n") == ([1] if found else [])


# --- logged exceptions ------------------------------------------------------------------------------------------------


def dropped_tracebacks(source: str) -> list[int]:
    """Return the lines of *source* that give a logger an exception which the logger drops if it is false."""
    return [
        node.value.lineno
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.keyword)
        and node.arg == "exc_info"
        and ast.unparse(node.value) not in {"True", "False"}
        and not ast.unparse(node.value).startswith("traceback_of(")
    ]


@table("module, path", modules())
def test_loggers_get_their_exceptions_from_traceback_of(module: str, path: Path) -> None:
    assert dropped_tracebacks(path.read_text(encoding="utf-8")) == [], "exc_info=traceback_of(exc)"


@pytest.mark.parametrize(
    ("value", "found"), [("exc", [1]), ("task.exception()", [1]), ("True", []), ("traceback_of(exc)", [])]
)
def test_an_exception_that_may_be_dropped_is_found(value: str, found: list[int]) -> None:
    assert dropped_tracebacks(f"log.error('x', exc_info={value})") == found


# --- docstrings -------------------------------------------------------------------------------------------------------


def undocumented(source: str) -> list[str]:
    """Return the public functions, classes and methods of *source* that have no docstring."""
    found = []

    def look(nodes: list[ast.stmt], prefix: str) -> None:
        for node in nodes:
            if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) or node.name.startswith("_"):
                continue
            marks = {ast.unparse(mark).rpartition(".")[2] for mark in node.decorator_list}
            if not ast.get_docstring(node) and not marks & {"overload", "setter"}:
                found.append(prefix + node.name)
            if isinstance(node, ast.ClassDef):
                look(node.body, f"{node.name}.")

    look(ast.parse(source).body, "")
    return found


@table("module, path", modules())
def test_public_names_have_docstrings(module: str, path: Path) -> None:
    if path.suffix == ".py":  # what is compiled is explained beside its twin in Python
        assert undocumented(path.read_text(encoding="utf-8")) == []


def test_a_name_without_a_docstring_is_found() -> None:
    source = "def f(): pass\ndef _g(): pass\nclass C:\n    def m(self): pass\n    def __init__(self): pass\n"
    assert undocumented(source) == ["f", "C", "C.m"]
    assert undocumented("def f():\n    'Doc.'\nclass C:\n    'Doc.'\n    @x.setter\n    def m(self, y): pass\n") == []


# --- the surroundings -------------------------------------------------------------------------------------------------

#: What is told everything that it has to know, by arguments: else a setting would have two ways in.
TOLD = ("adapters", "core")


def surroundings_read(source: str) -> list[int]:
    """Return the lines of *source* that read the environment or the command line."""
    names = {"os.environ", "os.environb", "os.getenv", "sys.argv"}
    nodes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Attribute)]
    return sorted(node.lineno for node in nodes if ast.unparse(node) in names)


def test_core_and_adapters_are_told_the_settings() -> None:
    paths = [path for folder in TOLD for path in sorted((PACKAGE / folder).rglob("*.py"))]
    texts = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in paths}
    found = {path: lines for path, text in texts.items() if (lines := surroundings_read(text))}
    assert found == {}, "make it an argument, and an option in bridge/config"


def test_a_look_at_the_surroundings_is_found() -> None:
    assert surroundings_read("import os\nx = os.environ.get('X')\ny = os.getenv('Y')") == [2, 3]


# --- tests ------------------------------------------------------------------------------------------------------------

#: Objects that accept every call are what these tests are about.
MOCKS = {"tests/apps/test_detection.py"}
BINDS = {"bind", "create_server", "bind_sockets"}


def unsteady(source: str) -> list[str]:
    """Return what *source*, a file of tests, must not do: bind a fixed port, or use objects that accept every call."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom | ast.Import) and "mock" in ast.unparse(node).split("import")[0] + " ".join(
            alias.name for alias in node.names
        ):
            found.append(f"{node.lineno}: mocks accept what the real object refuses; write a stand-in")
        if not (isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in BINDS and node.args):
            continue
        address = node.args[0]
        port = address.elts[1] if isinstance(address, ast.Tuple) and len(address.elts) > 1 else address
        if isinstance(port, ast.Constant) and isinstance(port.value, int) and port.value:
            found.append(f"{node.lineno}: port {port.value} may be in use; bind port 0")
    return found


def test_tests_bind_free_ports_and_use_real_objects() -> None:
    paths = {str(path.relative_to(ROOT)): path for path in sorted((ROOT / "tests").rglob("*.py"))}
    faults = {name: unsteady(path.read_text(encoding="utf-8")) for name, path in paths.items() if name not in MOCKS}
    assert {name: found for name, found in faults.items() if found} == {}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("sock.bind(('127.0.0.1', 8099))", 1),
        ("socket.create_server(('', 8099))", 1),
        ("bind_sockets(8099, 'localhost')", 1),
        ("sock.bind(('127.0.0.1', 0))", 0),
        ("sock.bind(path)", 0),
        ("from unittest import mock", 1),
        ("from unittest.mock import Mock", 1),
        ("import unittest.mock", 1),
    ],
)
def test_an_unsteady_test_is_found(text: str, found: int) -> None:
    assert len(unsteady(text)) == found


#: How often tests sleep for longer than a moment, without saying why. It may only fall: wait for what is asserted.
SLEEPS = 47
MOMENT = 0.05


def sleeps(source: str) -> list[int]:
    """Return the lines of *source* that sleep for 0.05 seconds or longer, and have no comment that says why."""
    lines = source.splitlines()
    return [
        node.lineno
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) in {"time.sleep", "asyncio.sleep"}
        and isinstance(node.args[0], ast.Constant)
        and node.args[0].value >= MOMENT
        and "#" not in lines[node.lineno - 1]
    ]


def test_no_more_tests_sleep() -> None:
    paths = {str(path.relative_to(ROOT)): path for path in sorted((ROOT / "tests").rglob("*.py"))}
    applications = ("tests/support/apps/", "tests/apps/", "tests/applications/")
    texts = {
        name: path.read_text(encoding="utf-8") for name, path in paths.items() if not name.startswith(applications)
    }
    found = {name: lines for name, text in texts.items() if (lines := sleeps(text))}
    assert sum(map(len, found.values())) <= SLEEPS, f"wait for the event, or say behind the sleep why: {found}"


def test_a_sleep_is_found() -> None:
    assert sleeps("time.sleep(0.2)\nawait asyncio.sleep(1)\ntime.sleep(0.01)\ntime.sleep(1)  # the reason") == [1, 2]


# --- dependencies -----------------------------------------------------------------------------------------------------


def unbounded(requirements: list[str]) -> list[str]:
    """Return the requirements that would take any later version."""
    return [text for text in requirements if not re.search(r"<|==", text.partition(";")[0])]


def test_dependencies_have_an_upper_bound() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    groups = {"dependencies": project["dependencies"], **project["optional-dependencies"]}
    assert {name: found for name, group in groups.items() if (found := unbounded(group))} == {}


def test_a_dependency_without_an_upper_bound_is_found() -> None:
    assert unbounded(["attrs", "attrs>=1", "attrs>=1; python_version < '4'", "attrs>=1,<2", "attrs==1"]) == [
        "attrs",
        "attrs>=1",
        "attrs>=1; python_version < '4'",
    ]


# --- tracked files ----------------------------------------------------------------------------------------------------


def tracked_files() -> list[Path]:
    """Return the files that git tracks, or skip where there is no git repository (an unpacked source archive)."""
    try:
        listing = subprocess.run(
            ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True, timeout=30
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git work tree")
    return [path for name in listing.split("\0") if name and (path := ROOT / name).is_file()]


def local_words() -> list[str]:
    """Return patterns that only a particular machine or network gives: places and package indexes."""
    words = [
        r"/home/[a-z]\w*/",
        r"/Users/[A-Z]?[a-z]\w*/",
        r"\.pyenv/",
        r"pythonhosted\.org",
        r"--(?:extra-)?index-url\b",
        r"--trusted-host\b",
        r"\bPIP_[A-Z_]*INDEX_URL\b",
    ]
    # A place like /app may well be a path in somebody's URL; one with two parts is this place.
    places = {ROOT, Path(sys.prefix), Path(sys.base_prefix)}
    return words + [rf"(?<![\w.]){re.escape(str(place))}\b" for place in places if len(place.parts) > 3]


def local_faults(text: str, words: list[str]) -> list[str]:
    """Return the lines of *text* that hold one of the patterns *words*."""
    pattern = re.compile("|".join(words))
    return [
        f"{number}: {line.strip()[:80]}" for number, line in enumerate(text.splitlines(), 1) if pattern.search(line)
    ]


def test_a_path_of_a_machine_is_found() -> None:
    words = local_words()
    assert local_faults(f"sys.path.append('{'/home'}/jo/bridge/')", words) != []
    assert local_faults(f"pip install {'--index'}-url https://index.example/simple bridge", words) != []
    assert (
        local_faults("uds=/run/bridge.sock, WorkingDirectory=/srv/mysite, https://pypi.org/project/bridge", words) == []
    )


def test_no_file_names_a_machine() -> None:
    words = local_words()
    faults = {}
    for path in tracked_files():
        if path == Path(__file__).resolve():
            continue  # the patterns themselves
        try:
            found = local_faults(path.read_text(encoding="utf-8"), words)
        except UnicodeDecodeError:
            continue  # not text
        if found:
            faults[path.name] = found
    assert faults == {}


# --- commands ---------------------------------------------------------------------------------------------------------


def targets() -> set[str]:
    """Return the commands of the Makefile."""
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])
def test_commands_of_the_texts_exist(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    commands = set(re.findall(r"(?:^|`)\s*make ([a-z-]+)", text, re.MULTILINE))
    assert commands
    assert commands <= targets()


WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_run_commands_that_exist_and_actions_of_one_commit(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    commands = [name for line in re.findall(r"run: make (.+)$", text, re.MULTILINE) for name in line.split()]
    assert set(commands) <= targets()
    used = re.findall(r"uses: (\S+)  # v\d", text)
    assert used
    assert used == re.findall(r"uses: ([\w.-]+/[\w.-]+@[0-9a-f]{40})", text)
    assert len(used) == text.count("uses: ")


def test_every_command_is_phony_and_explained() -> None:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    phony = re.search(r"^\.PHONY: (.*)$", text, re.MULTILINE)
    assert phony is not None
    assert set(phony[1].split()) == targets()
    assert set(re.findall(r"^([a-z-]+):.*## ", text, re.MULTILINE)) == targets()


def test_the_readme_opens_with_the_two_commands() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert text.index("make run") < text.index("make test") < text.index("## ")


# --- documentation ----------------------------------------------------------------------------------------------------

DOCS = ROOT / "docs"


def test_the_tables_of_states_are_current() -> None:
    generate = runpy.run_path(str(DOCS / "generate.py"))
    page = (DOCS / "architecture.md").read_text(encoding="utf-8")
    assert page == generate["with_tables"](page), "run `make docs`"
    assert "| done | the response is complete |  |" in page


def map_of(text: str) -> dict[str, str]:
    """Return the map of files in *text*: what it says of each file and folder, by path; a folder's ends with a slash.

    Two spaces of indentation are one level. The map begins with the line of ``bridge/`` and ends with its code block.
    """
    found: dict[str, str] = {}
    above: list[str] = []
    for line in text[text.index("\nbridge/") + 1 : text.index("\n```", text.index("\nbridge/"))].splitlines():
        name, _, words = line.strip().partition(" ")
        del above[(len(line) - len(line.lstrip())) // 2 :]
        above.append(name)
        found["".join(above)] = words.strip()
    return found


def map_faults(text: str, files: set[str]) -> list[str]:
    """Return what the map in *text* lacks of *files*, has beyond them, or does not explain."""
    on_map = map_of(text)
    return sorted(
        [f"not on the map: {path}" for path in files - on_map.keys()]
        + [f"not there: {path}" for path in on_map.keys() - files]
        + [f"not explained: {path}" for path, words in on_map.items() if not words]
    )


def test_the_map_shows_every_file() -> None:
    files = set()
    for _, path in modules():
        place = path.relative_to(ROOT).as_posix()
        files.add(place.removesuffix("__init__.py") if path.name == "__init__.py" else place)
    assert map_faults((DOCS / "architecture.md").read_text(encoding="utf-8"), files) == []


def test_a_fault_of_the_map_is_found() -> None:
    text = "x\n```\nbridge/  all\n  a.py  first\n  b/  room\n    c.py  third\n  d.py  last\n```\n"
    files = {"bridge/", "bridge/a.py", "bridge/b/", "bridge/b/c.py", "bridge/d.py"}
    assert map_faults(text, files) == []
    assert map_faults(text, files | {"bridge/b/e.py"}) == ["not on the map: bridge/b/e.py"]
    assert map_faults(text, files - {"bridge/d.py"}) == ["not there: bridge/d.py"]
    assert map_faults(text.replace("  third", ""), files) == ["not explained: bridge/b/c.py"]
    assert len(map_faults(text.replace("    c.py", "  c.py"), files)) == 2


def methods_of(source: str) -> set[str]:
    """Return the methods in *source*, each as ``Class.method``."""
    return {
        f"{owner.name}.{function.name}"
        for owner in ast.walk(ast.parse(source))
        if isinstance(owner, ast.ClassDef)
        for function in owner.body
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def code_faults(text: str, files: set[str], methods: set[str]) -> list[str]:
    """Return which files (``core/x.py``) and methods (``Class.method``) *text* names that are not in the package."""
    words = set(re.findall(r"`([\w./]+)`", text))
    paths = {word for word in words if re.fullmatch(r"[a-z]\w*(?:/\w+)+\.py", word) and not word.startswith("tests/")}
    named = {word for word in words if re.fullmatch(r"[A-Z]\w*\.[a-z_]\w*", word)}
    return sorted((paths - files) | (named - methods))


def test_files_and_methods_that_the_architecture_names_exist() -> None:
    files = {path.relative_to(PACKAGE).as_posix() for _, path in modules()}
    methods = set().union(*(methods_of(path.read_text(encoding="utf-8")) for _, path in modules()))
    assert code_faults((DOCS / "architecture.md").read_text(encoding="utf-8"), files, methods) == []


def test_a_file_or_a_method_that_does_not_exist_is_found() -> None:
    methods = methods_of("class Writer:\n def flush(self): ...\n async def emptied(self): ...\ndef loose(): ...\n")
    assert methods == {"Writer.flush", "Writer.emptied"}
    text = "`core/writer.py`: `Writer.flush` and `Writer.write_soon`, `core/ending.py`, `states.py`, `tests/test_x.py`"
    assert code_faults(text, {"core/writer.py"}, methods) == ["Writer.write_soon", "core/ending.py"]


#: The attributes that hold a state, and the only form in which they may be assigned.
STATES = ("reading", "writing")


def state_faults(source: str) -> list[str]:
    """Return where *source* assigns a state otherwise than by an event: ``self.reading = self.reading.event``.

    The first value, a plain name, is allowed where the attribute is declared with its type or set in ``open``.
    """
    faults = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Assign | ast.AnnAssign):
            continue
        for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
            if not (isinstance(target, ast.Attribute) and target.attr in STATES):
                continue
            value = node.value
            by_event = isinstance(value, ast.Attribute) and ast.unparse(value.value) == ast.unparse(target)
            first = isinstance(value, ast.Name) and value.id in {"READ_HEAD", "HEAD"}
            if not by_event and not first:
                faults.append(f"{node.lineno}: {ast.unparse(node)}")
    return faults


@table("module, path", [pytest.param(m, p, id=m) for m, p in modules()])
def test_states_change_by_their_tables_only(module: str, path: Path) -> None:
    assert state_faults(path.read_text(encoding="utf-8")) == []


def test_a_state_that_is_set_by_hand_is_found() -> None:
    assert state_faults("self.reading = READ_CLOSED") != []
    assert state_faults("exchange.writing = DONE") != []
    assert state_faults("exchange.writing = other.writing.complete") != []
    assert state_faults("self.writing = self.writing.complete\nself.reading: Reading = READ_HEAD") == []


@pytest.mark.parametrize("machine", [states.READING_TABLE, states.WRITING_TABLE], ids=["reading", "writing"])
def test_a_state_has_the_events_of_its_table_and_no_other(machine: Any) -> None:
    names = {name for events in machine.values() for name in events}
    for state, events in machine.items():
        for name in names:
            if name in events:
                assert getattr(state, name) is events[name]
            else:
                with pytest.raises(AttributeError, match=name):
                    getattr(state, name)


def test_the_page_of_options_is_current() -> None:
    from bridge.config.reference import options_page

    assert (DOCS / "options.md").read_text(encoding="utf-8") == options_page(), "run `make docs`"


def test_the_page_of_dialects_is_current() -> None:
    from bridge.dialects.reference import dialects_page

    assert (DOCS / "dialects.md").read_text(encoding="utf-8") == dialects_page(), "run `make docs`"


#: The options of `bridge explain` and `dev`, and those of other servers, which `bridge gunicorn` and its like take.
OTHERS = {
    *("--json", "--toml", "--noasgi", "--app", "--https", "--create-self-signed-cert"),
    # of the commands that steer a running server
    *("--read-only", "--tmpfs"),  # of docker run
    *("--socket", "--pid", "--interval", "--count", "--wait", "--timeout", "--worker", "--for"),
} | {spelling for name in NAMES for row in dialect(name).rows for spelling in (*row.spellings, *row.negative)}


@pytest.mark.parametrize("path", [ROOT / "README.md", *sorted(DOCS.glob("*.md"))], ids=lambda path: path.name)
def test_options_that_texts_name_exist(path: Path) -> None:
    from bridge.config import SETTINGS

    known = {spelling for row in SETTINGS for spelling in row.spellings} | {
        *("--help", "--version", "--editable", "--config", "--check-config", "--print-config")
    }
    known |= OTHERS
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z0-9_-]*", path.read_text(encoding="utf-8")))
    named -= {"--name", "--no-name"}  # placeholders in the page of options
    assert named <= known


def options_named(source: str) -> set[str]:
    """Return the options that the strings of *source* name, in messages and docstrings."""
    return {
        option
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        for option in re.findall(r"(?<![\w-])--[a-z][a-z0-9_-]*[a-z0-9](?![\w-])", node.value)
    }


def test_an_option_in_a_message_is_found() -> None:
    source = 'def f(x):\n    """See --port."""\n    raise E(f"--no-such {x}: --no-...") or "----a" or "--some_option=v"'
    assert options_named(source) == {"--port", "--no-such", "--some_option"}


def test_options_that_messages_name_exist() -> None:
    from bridge.config import SETTINGS

    known = {spelling for row in SETTINGS for spelling in row.spellings}
    known |= {"--help", "--version", "--config", "--check-config", "--print-config"} | OTHERS
    # Words of other servers, and placeholders in explanations.
    known |= {"--timeout", "--some_option", "--name", "--no-name", "--like-this", "--option", "--no-option"}
    named = {name for _, path in modules() for name in options_named(path.read_text(encoding="utf-8"))}
    assert named <= known


@pytest.mark.parametrize("path", [*ROOT.glob("*.md"), *sorted(DOCS.glob("*.md"))], ids=lambda path: path.name)
def test_links_between_texts_lead_somewhere(path: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8"))
    assert [link for link in links if not (path.parent / link).exists()] == []


def missing_files(text: str) -> list[str]:
    """Return the files and folders of the repository that *text* names and that are not there."""
    named = set(re.findall(r"`((?:bridge|tests|docs|examples|benchmarks)/[\w./-]*)`", text))
    return sorted(name for name in named if not (ROOT / name).exists())


@table("path", [*ROOT.glob("*.md"), *sorted(DOCS.rglob("*.md"))])
def test_files_that_texts_name_exist(path: Path) -> None:
    assert missing_files(path.read_text(encoding="utf-8")) == []


def test_the_tables_of_contents_have_each_page() -> None:
    listed = set((DOCS / "index.md").read_text(encoding="utf-8").splitlines())
    pages = {path.stem for path in DOCS.glob("*.md")} - {"index"}
    assert pages - listed == set(), "add the page to a toctree of docs/index.md"


def test_a_file_that_is_not_there_is_found() -> None:
    text = "`tests/test_project.py`, `docs/` and `tests/core/test_served.py`, but not `core/served.py`"
    assert missing_files(text) == ["tests/core/test_served.py"]


def settings_read(source: str) -> set[str]:
    """Return the settings that *source* reads: ``config.name`` anywhere, ``self.name`` in the methods of Config.

    ``Config._check`` only compares settings, so it does not count. Methods of that name in other classes do.
    """
    tree = ast.parse(source)
    ignored = {
        id(node)
        for owner in ast.walk(tree)
        if isinstance(owner, ast.ClassDef) and owner.name == "Config"
        for function in owner.body
        if isinstance(function, ast.FunctionDef) and function.name == "_check"
        for node in ast.walk(function)
    }
    owners = {"config"} | ({"self"} if "class Config(" in source else set())
    return {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and id(node) not in ignored
        and (node.value.id if isinstance(node.value, ast.Name) else getattr(node.value, "attr", "")) in owners
    }


def test_a_setting_that_is_read_is_found() -> None:
    assert settings_read("f(config.port)\ng(self.config.host)\nself.backlog") == {"port", "host"}
    config = "class Config(Base):\n def addresses(self): return self.uds\n"
    assert settings_read(config) == {"uds"}
    assert settings_read("class Watcher:\n def _check(self, config): return config.reload_delay\n") == {"reload_delay"}


def test_a_setting_that_is_only_checked_is_not_read() -> None:
    config = "class Config(Base):\n def _check(self):\n  if self.fd: raise ConfigError\n"
    assert settings_read(config) == set()


def test_the_settings_are_checked_where_the_guard_does_not_look() -> None:
    from bridge.config import Config

    assert "_check" in vars(Config)


def test_settings_that_nothing_reads_are_named_as_such() -> None:
    """An option that is accepted and does nothing is a promise; the page on deployment lists those there are."""
    from bridge.config import SETTINGS

    read = set().union(*(settings_read(path.read_text(encoding="utf-8")) for _, path in modules()))
    unread = {row.option for row in SETTINGS if row.name not in read}
    text = (DOCS / "deployment.md").read_text(encoding="utf-8")
    assert (
        set(re.findall(r"^\* `(--[a-z-]+)`$", text.partition("## Options that have no effect yet")[2], re.M)) == unread
    )


# --- the changelog ----------------------------------------------------------------------------------------------------

SECTIONS = ("Added", "Changed", "Deprecated", "Removed", "Fixed", "Security")


def faults_of_changelog(text: str, version: str) -> list[str]:
    """Return what is not in the form of keepachangelog.com, and what is said twice."""
    heads = re.findall(r"^## (.*)$", text, re.MULTILINE)
    faults = [] if heads[:1] == ["[Unreleased]"] else ["it does not begin with [Unreleased]"]
    faults += [head for head in heads[1:] if not re.fullmatch(r"\[\d+\.\d+\.\d+\] - \d{4}-\d\d-\d\d", head)]
    if "dev" not in version and f"[{version}]" not in [head.split()[0] for head in heads[1:2]]:
        faults.append(f"{version} is not the newest version")
    for release in re.split(r"^## .*$", text, flags=re.MULTILINE)[1:]:
        sections = re.findall(r"^### (.*)$", release, re.MULTILINE)
        if sections != [name for name in SECTIONS if name in sections]:
            faults.append(f"sections {sections}")
        entries = [
            " ".join(re.findall(r"\w+", entry.lower())) for entry in re.split(r"^\* ", release, flags=re.MULTILINE)
        ]
        faults += [entry for entry in set(entries[1:]) if entries.count(entry) > 1]
    return faults


def test_the_changelog_has_its_form() -> None:
    assert faults_of_changelog((ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), __version__) == []


@pytest.mark.parametrize(
    "text",
    [
        "## [0.1.0] - 2026-11-30\n",
        "## [Unreleased]\n\n## 0.1.0\n",
        "## [Unreleased]\n\n## [0.0.9] - 2026-11-30\n",
        "## [Unreleased]\n\n## [0.1.0] - 2026-11-30\n\n### Fixed\n\n* a\n\n### Added\n\n* b\n",
        "## [Unreleased]\n\n## [0.1.0] - 2026-11-30\n\n### Fixed\n\n* A b.\n* c\n* a\n  b\n",
    ],
)
def test_a_fault_of_the_changelog_is_found(text: str) -> None:
    assert faults_of_changelog(text, "0.1.0") != []
