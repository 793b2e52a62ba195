"""Loading a target: what is found, and what is said when it is not."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from pathlib import Path

import pytest

from bridge.apps import loading
from bridge.apps.loading import TargetError, load_target
from bridge.errors import ConfigError

FILES = {
    "shop.py": """
        application = None
        app = 'the app'
        other = 'another'
        class db:
            session = 'a session'
            @property
            def broken(self):
                raise RuntimeError('no connection')
        instance = db()
        nothing = None
        def create_app():
            return 'made'
        def needs(config):
            return config
        async def late():
            return 'made'
        def fails():
            raise ValueError('no setting\\nsecond line')
        def exits():
            raise SystemExit(1)
        def gives_none():
            return None
    """,
    "only_factory.py": "def create_app():\n    return 'made by create_app'\n",
    "empty.py": "",
    "half.py": "import json\nprint(\n",
    "raising.py": "import deeper\n",
    "deeper.py": "def work():\n    raise KeyError('x' * 300)\nwork()\n",
    "wants_missing.py": "import not_installed_anywhere\n",
    "wants_name.py": "from shop import not_there\n",
    "chained.py": """
        try:
            1 / 0
        except ZeroDivisionError as exc:
            raise ExceptionGroup('several', [OSError('inner')]) from exc
    """,
    "leaves.py": "raise SystemExit('please configure')\n",
    "stops.py": "raise KeyboardInterrupt\n",
    "silent.py": "raise RuntimeError\n",
    "lazy.py": "def __getattr__(name):\n    raise RuntimeError('while looking for ' + name)\n",
    "project/__init__.py": "config = 'an attribute'\n",
    "project/wsgi.py": "from . import helpers\napplication = helpers.NAME\n",
    "project/helpers.py": "NAME = 'the project'\n",
    "project/inner/__init__.py": "wsgi = 'inner wsgi'\nfrom . import asgi\n",
    "project/inner/asgi.py": "app = 1\n",
    "tree/single.py": "import neighbour\napp = neighbour.app\n",
    "tree/neighbour.py": "app = 'from next door'\n",
    "tree/not-a-name.py": "app = 'odd name'\n",
    "tree/two.dots.py": "app = 1\n",
    "tree/json.py": "app = 1\n",
    "tree/sys.py": "app = 1\n",
}


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current directory, full of applications; what they change in sys.path and sys.modules is undone."""
    import textwrap

    for name, text in FILES.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(textwrap.dedent(text))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]


def load(target: str, *, factory: bool = False, app_dir: str | None = None) -> object:
    return load_target(target, factory=factory, app_dir=app_dir)


FOUND = [
    pytest.param("shop:other", "another", id="module and attribute"),
    pytest.param("shop:db.session", "a session", id="attribute of an attribute"),
    pytest.param("shop", "the app", id="module alone: the first that is not None"),
    pytest.param("project.wsgi", "the project", id="dotted module alone"),
    pytest.param("project.wsgi:application", "the project", id="dotted module"),
    pytest.param("project.inner", "inner wsgi", id="module alone: a submodule called asgi does not count"),
    pytest.param("shop:create_app()", "made", id="factory by parentheses"),
    pytest.param("tree/single.py:app", "from next door", id="file"),
    pytest.param("tree/single.py", "from next door", id="file alone"),
    pytest.param("tree/not-a-name.py:app", "odd name", id="file whose name is no identifier"),
    pytest.param("project/wsgi.py:application", "the project", id="file in a package"),
    pytest.param("project/__init__.py:config", "an attribute", id="file that is the package"),
    pytest.param("./shop.py:create_app()", "made", id="factory in a file"),
]


@pytest.mark.parametrize(("target", "expected"), FOUND)
def test_finds(directory: Path, target: str, expected: object) -> None:
    assert load(target) == expected


@pytest.mark.parametrize(
    ("target", "expected"),
    [("shop:create_app", "made"), ("shop:create_app()", "made"), ("only_factory", "made by create_app")],
)
def test_factory(directory: Path, target: str, expected: object) -> None:
    assert load(target, factory=True) == expected


def test_builtin_factory_without_a_signature_is_called(directory: Path) -> None:
    assert load("builtins:dict", factory=True) == {}


def test_app_dir_is_first_on_the_path(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    assert load("neighbour:app", app_dir=str(directory / "tree")) == "from next door"
    assert sys.path[0] == str(directory / "tree")
    load("neighbour:app", app_dir=str(directory / "tree"))
    assert sys.path.count(str(directory / "tree")) == 1


def test_file_puts_its_directory_on_the_path(directory: Path) -> None:
    load("tree/single.py")
    assert sys.path[:2] == [str(directory / "tree"), str(directory)]


def test_app_dir_that_is_no_directory(directory: Path) -> None:
    with pytest.raises(ConfigError, match=r"--app-dir: 'nowhere' is not a directory") as caught:
        load("shop", app_dir="nowhere")
    assert not isinstance(caught.value, TargetError)


NOT_THERE = [
    pytest.param("shp:app", r"there is no module 'shp' in \S+ or on the import path; did you mean 'shop'", id="module"),
    pytest.param("zzzzzz:app", r"no module 'zzzzzz' .* there is chained, deeper, .* \.\.\.$", id="nothing is near"),
    pytest.param("shp.wsgi:app", r"there is no module 'shp'", id="top of a dotted module"),
    pytest.param(
        "project.wsgj:app",
        r"no module 'project.wsgj' in package 'project' \(\S+\); did you mean 'project.wsgi'",
        id="submodule",
    ),
    pytest.param("shop.wsgi:app", r"'shop.wsgi': 'shop' is a module, not a package", id="submodule of a module"),
    pytest.param(
        "shop.app", r"'shop' has no module 'app' but an attribute; did you mean shop:app\?", id="dot for colon"
    ),
    pytest.param("shop.db.session", r"did you mean shop:db.session\?", id="dot for colon, deeper"),
    pytest.param(
        "shop:othr", r"module 'shop' \(\S+shop.py\) has no attribute 'othr'; did you mean 'other'\?", id="attribute"
    ),
    pytest.param("empty:app", r"module 'empty' \(\S+\) has no attribute 'app'$", id="attribute of an empty module"),
    pytest.param("sys:wsgi", r"module 'sys' \(built in\) has no attribute 'wsgi'", id="attribute of a builtin module"),
    pytest.param(
        "shop:db.sesion",
        r"'db', which is of type 'type', has no attribute 'sesion'; did you mean 'session'\?",
        id="attribute of an attribute",
    ),
    pytest.param("empty", r"'empty' has no attribute application, app, asgi or wsgi; a target is module:", id="bare"),
    pytest.param("deeper.py", r"importing module 'deeper' raised KeyError", id="file that raises"),
    pytest.param("tree/sngle.py:app", r"no file /\S+/tree/sngle.py; did you mean 'single.py' or", id="file"),
    pytest.param("nowhere/app.py:app", r"there is no file /\S+/nowhere/app.py$", id="file in no directory"),
    pytest.param("tree/single:app", r"'tree/single' is not a module; write a file as path/to/file.py", id="no suffix"),
    pytest.param("tree/two.dots.py", r"more than one dot in its name cannot be imported: two.dots.py", id="two dots"),
    pytest.param("tree/json.py:app", r"this file is taken by module 'json' from \S+json\S+; rename", id="taken name"),
    pytest.param("tree/sys.py:app", r"taken by module 'sys' from the interpreter; rename", id="taken by a builtin"),
    pytest.param(":app", r"'' is not a module; a target is module:attribute", id="no module"),
    pytest.param("", r"'' is not a module", id="empty"),
    pytest.param("..shop:app", r"'..shop' is not a module", id="relative"),
    pytest.param("shop:", r"'' is not attribute, attribute.attribute or factory\(\)", id="no attribute"),
    pytest.param("shop:app:app", r"'app:app' is not attribute", id="two colons"),
    pytest.param("shop:needs(x)", r"the arguments of a factory are texts, numbers", id="arguments"),
    pytest.param("shop:nothing", r"this is None, not an application", id="None"),
    pytest.param("shop:gives_none()", r"this is None, not an application", id="factory that returns None"),
    pytest.param(
        "shop:needs()", r"'needs' cannot be called without arguments: missing .*'config'", id="arguments needed"
    ),
    pytest.param("shop:app()", r"this is no factory: its type is 'str'", id="not callable"),
    pytest.param("shop:late()", r"factory 'late' is a coroutine function; it must be a plain", id="coroutine function"),
]


@pytest.mark.parametrize(("target", "message"), NOT_THERE)
def test_names_what_is_missing(directory: Path, target: str, message: str) -> None:
    with pytest.raises(TargetError, match=message) as caught:
        load(target)
    assert str(caught.value).startswith(f"{target}: ")
    assert "\n" not in str(caught.value)
    assert ("raised" in message) == bool(caught.value.app_traceback)


def test_bare_module_with_factory_names_the_factories_too(directory: Path) -> None:
    with pytest.raises(TargetError, match="has no attribute application, app, asgi, wsgi, create_app or make_app"):
        load("empty", factory=True)


RAISED = [
    pytest.param(
        "raising:app",
        r"importing module 'raising' raised KeyError: 'x{196}\.\.\.$",
        ["raising.py", "deeper.py", "in work"],
        id="deeper module",
    ),
    pytest.param("half:app", r"raised SyntaxError: .*half.py, line 2", ["half.py", "SyntaxError"], id="syntax error"),
    pytest.param(
        "wants_missing:app",
        r"importing module 'wants_missing' raised ModuleNotFoundError: No module named 'not_installed_anywhere'",
        ["wants_missing.py"],
        id="its own import is missing",
    ),
    pytest.param(
        "wants_name:app", r"raised ImportError: cannot import name 'not_there'", ["wants_name.py"], id="its own name"
    ),
    pytest.param(
        "chained:app", r"raised ExceptionGroup: several", ["ZeroDivisionError", "OSError: inner"], id="group and cause"
    ),
    pytest.param("leaves:app", r"raised SystemExit: please configure", ["leaves.py"], id="exit"),
    pytest.param("silent:app", r"raised RuntimeError$", ["silent.py"], id="without a message"),
    pytest.param(
        "lazy:app", r"reading attribute 'app' raised RuntimeError: while", ["in __getattr__"], id="__getattr__"
    ),
    pytest.param(
        "lazy", r"reading attribute 'application' raised", ["in __getattr__"], id="__getattr__ of a bare module"
    ),
    pytest.param("shop:instance.broken", r"reading attribute 'broken' raised", ["in broken"], id="property"),
    pytest.param("shop:fails()", r"calling factory 'fails' raised ValueError: no setting$", ["in fails"], id="factory"),
    pytest.param(
        "shop:exits()", r"calling factory 'exits' raised SystemExit: 1", ["in exits"], id="factory that exits"
    ),
]


@pytest.mark.parametrize(("target", "message", "parts"), RAISED)
def test_gives_the_applications_own_traceback(directory: Path, target: str, message: str, parts: list[str]) -> None:
    with pytest.raises(TargetError, match=message) as caught:
        load(target)
    text = caught.value.app_traceback
    assert "\n" not in str(caught.value)
    assert [part for part in parts if part not in text] == []
    assert text.endswith("\n")
    assert "importlib" not in text
    assert "bridge/adapters" not in text


def test_keyboard_interrupt_passes(directory: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        load("stops:app")


FACTORY = "def make(name='none', *, debug=False):\n    return lambda environ, start_response: [name, debug]\n"


@pytest.mark.parametrize(
    ("call", "made"),
    [
        ("make()", ["none", False]),
        ("make('a')", ["a", False]),
        ('make("a", debug=True)', ["a", True]),
        ("make( name = 3 )", [3, False]),
    ],
)
def test_a_factory_gets_literals(tmp_path: Path, call: str, made: list[object]) -> None:
    (tmp_path / "factory_of_literals.py").write_text(FACTORY)
    app = load_target(f"factory_of_literals:{call}", factory=False, app_dir=str(tmp_path))
    assert app(None, None) == made  # type: ignore[operator]


@pytest.mark.parametrize("call", ["make(x)", "make(1+f())", "make(*[1])", "make(**{})", "make(", "make('a', 'b')"])
def test_a_factory_gets_nothing_else(tmp_path: Path, call: str) -> None:
    (tmp_path / "factory_of_literals.py").write_text(FACTORY)
    with pytest.raises(TargetError):
        load_target(f"factory_of_literals:{call}", factory=False, app_dir=str(tmp_path))


@pytest.mark.parametrize(
    ("package", "module", "check"),
    [("gevent", "gevent.monkey", "is_module_patched"), ("eventlet", "eventlet.patcher", "is_monkey_patched")],
)
def test_refuses_an_application_that_replaces_what_the_server_runs_on(
    directory: Path, monkeypatch: pytest.MonkeyPatch, package: str, module: str, check: str
) -> None:
    patched: set[str] = set()
    monkeypatch.setitem(sys.modules, module, types.SimpleNamespace(**{check: lambda name: name in patched}))  # type: ignore[arg-type]  # as good as a module here
    (directory / "patching.py").write_text("app = object()\n", encoding="utf-8")
    load("patching:app")  # the package alone does no harm
    patched.add("socket")
    with pytest.raises(TargetError, match=f"has let {package} replace sockets and threads"):
        load("patching:app")


def test_a_current_directory_that_cannot_be_read_is_named(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = directory / "gone"
    monkeypatch.setattr(loading, "home", lambda: str(gone))
    with pytest.raises(TargetError, match=rf"no module 'other' in {gone}, which is not there or closed to this user"):
        load("other:app")
