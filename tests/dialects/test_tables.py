"""Each option of each installed server has exactly one row; the lists come from the servers' own parsers."""

from __future__ import annotations

import argparse
import importlib
import warnings
from collections.abc import Iterator
from typing import Any

import pytest

from bridge import cli
from bridge.config.settings import SETTINGS
from bridge.dialects import NAMES, dialect
from bridge.dialects.table import Fate, Row, Takes
from tests.support.table import table


def peer(module: str) -> Any:
    return pytest.importorskip(module, reason=f"{module} is not installed (extra dev)")


def of_gunicorn() -> Iterator[tuple[str, tuple[str, ...]]]:
    for setting in peer("gunicorn.config").KNOWN_SETTINGS:
        yield setting.name, tuple(setting.cli or ())


def of_click(command: Any) -> Iterator[tuple[str, tuple[str, ...]]]:
    for parameter in command.params:
        if parameter.param_type_name == "argument":
            yield parameter.name, (parameter.name,)
        else:
            yield parameter.name, (*parameter.opts, *parameter.secondary_opts)


def of_uvicorn() -> Iterator[tuple[str, tuple[str, ...]]]:
    peer("uvicorn")
    yield from of_click(importlib.import_module("uvicorn.main").main)


def of_granian() -> Iterator[tuple[str, tuple[str, ...]]]:
    yield from of_click(peer("granian.cli").cli)


def of_argparse(parser: argparse.ArgumentParser) -> Iterator[tuple[str, tuple[str, ...]]]:
    for action in parser._actions:
        if not isinstance(action, argparse._HelpAction):
            yield action.dest, tuple(action.option_strings) or (action.dest,)


def parser_of_hypercorn() -> argparse.ArgumentParser:
    main = peer("hypercorn.__main__")
    found: list[argparse.ArgumentParser] = []

    def keep(parser: argparse.ArgumentParser, *_: object) -> None:
        found.append(parser)
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", keep)
        with pytest.raises(KeyboardInterrupt):
            main.main([])
    return found[0]


def of_hypercorn() -> Iterator[tuple[str, tuple[str, ...]]]:
    yield from of_argparse(parser_of_hypercorn())


def parser_of_daphne() -> argparse.ArgumentParser:
    pytest.importorskip("daphne", reason="daphne is not installed (extra dev)")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Twisted's, of other packages
        return importlib.import_module("daphne.cli").CommandLineInterface().parser


def of_daphne() -> Iterator[tuple[str, tuple[str, ...]]]:
    yield from of_argparse(parser_of_daphne())


def of_waitress() -> Iterator[tuple[str, tuple[str, ...]]]:
    adjustments = peer("waitress.adjustments")
    yield "help", ("--help",)
    yield "call", ("--call",)
    for name, cast in adjustments.Adjustments._params:
        option = name.replace("_", "-")
        yield name, (f"--{option}", *([f"--no-{option}"] if cast is adjustments.asbool else []))


LISTS = {
    "gunicorn": of_gunicorn,
    "uvicorn": of_uvicorn,
    "granian": of_granian,
    "hypercorn": of_hypercorn,
    "daphne": of_daphne,
    "waitress-serve": of_waitress,
}


@pytest.mark.parametrize("name", LISTS)
def test_every_option_of_the_installed_server_has_one_row(name: str) -> None:
    rows = dialect(name).rows
    wanted = sorted(spelling for _, spellings in LISTS[name]() for spelling in spellings if spelling.startswith("-"))
    have = sorted(spelling for row in rows for spelling in (*row.spellings, *row.negative) if spelling.startswith("-"))
    assert have == wanted


def shapes_of_click(command: Any) -> Iterator[tuple[str, str]]:
    for parameter in command.params:
        if parameter.param_type_name == "argument":
            continue
        for spelling in (*parameter.opts, *parameter.secondary_opts):
            optional = getattr(parameter, "_flag_needs_value", False)
            yield spelling, "flag" if parameter.is_flag else "optional" if optional else "value"


def shapes_of_argparse(parser: argparse.ArgumentParser) -> Iterator[tuple[str, str]]:
    for action in parser._actions:
        for spelling in action.option_strings:
            yield spelling, {0: "flag", "?": "optional"}.get(action.nargs or (0 if action.nargs == 0 else ""), "value")


def parser_of_gunicorn() -> argparse.ArgumentParser:
    return peer("gunicorn.config").Config().parser()


SHAPES = {
    "gunicorn": lambda: shapes_of_argparse(parser_of_gunicorn()),
    "uvicorn": lambda: shapes_of_click(importlib.import_module("uvicorn.main").main),
    "granian": lambda: shapes_of_click(peer("granian.cli").cli),
    "hypercorn": lambda: shapes_of_argparse(parser_of_hypercorn()),
    "daphne": lambda: shapes_of_argparse(parser_of_daphne()),
}


def shape(row: Row) -> str:
    return {Takes.FLAG: "flag", Takes.OPTIONAL: "optional"}.get(row.takes, "value")


@pytest.mark.parametrize("name", SHAPES)
def test_what_follows_an_option_is_what_follows_it_there(name: str) -> None:
    peer(name)
    wanted = dict(SHAPES[name]())
    rows = dialect(name).rows
    have = {spelling: shape(row) for row in rows for spelling in (*row.spellings, *row.negative)}
    differing = {
        spelling: (have[spelling], wanted[spelling]) for spelling in have.keys() & wanted.keys()
        if have[spelling] != wanted[spelling]
    }  # fmt: skip
    assert differing == {}
    assert len(have.keys() & wanted.keys()) > 20


@pytest.mark.parametrize("name", ["gunicorn", "uvicorn", "granian", "waitress-serve"])
def test_the_names_are_those_of_the_installed_server(name: str) -> None:
    """They are keywords, names of files, and the ends of variables."""
    names = sorted({known for known, _ in LISTS[name]()})
    assert sorted({row.name for row in dialect(name).rows}) == names


def test_every_name_of_hypercorns_files_has_a_row() -> None:
    config = peer("hypercorn.config").Config
    names = {name for name in vars(config) if not name.startswith("_") and not callable(getattr(config, name))}
    names -= {"log", "ssl_enabled", "logger_class", "daemon", "debug"}  # made from others, or classes
    assert names - {row.name for row in dialect("hypercorn").rows} == set()


def test_the_command_knows_the_dialects() -> None:
    assert cli._DIALECTS == NAMES


ALL = [pytest.param(row, id=f"{name}-{row.name}") for name in NAMES for row in dialect(name).rows]


@table("row", ALL)
def test_a_row_is_complete(row: Row) -> None:
    """A fate that is not SAME has a sentence; what it becomes exists."""
    assert bool(row.remark) or row.fate is Fate.SAME
    assert not row.remark.endswith(".")
    known = {setting.name for setting in SETTINGS}
    assert set(row.becomes.split()) - known - {"hooks"} == set()
    if row.fate in {Fate.NO_EFFECT, Fate.REFUSED}:
        assert not row.becomes or row.convert is not None
    assert row.takes in Takes


@pytest.mark.parametrize("name", NAMES)
def test_no_spelling_and_no_name_has_two_rows(name: str) -> None:
    rows = dialect(name).rows
    spellings = [spelling for row in rows for spelling in (*row.spellings, *row.negative)]
    assert len(spellings) == len(set(spellings))
    names = [row.name for row in rows]
    assert len(names) == len(set(names))
