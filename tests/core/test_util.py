from __future__ import annotations

import importlib.util
import math
import os.path
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bridge.core import util
from bridge.core.util import Configurable, import_object


class Shape(Configurable):
    """An interface with a choice of implementations."""

    @classmethod
    def configurable_base(cls) -> type[Configurable]:
        return Shape

    @classmethod
    def configurable_default(cls) -> type[Configurable]:
        return Round

    def initialize(self, *args: Any, **kwargs: Any) -> None:
        self.args = args
        self.kwargs = kwargs


class Round(Shape):
    pass


class Square(Shape):
    pass


class Outer(Configurable):
    """An interface whose default is an interface, too."""

    @classmethod
    def configurable_base(cls) -> type[Configurable]:
        return Outer

    @classmethod
    def configurable_default(cls) -> type[Configurable]:
        return Inner


class Inner(Outer):
    @classmethod
    def configurable_base(cls) -> type[Configurable]:
        return Inner

    @classmethod
    def configurable_default(cls) -> type[Configurable]:
        return Core


class Core(Inner):
    def initialize(self, **kwargs: Any) -> None:
        self.kwargs = kwargs


@pytest.fixture(autouse=True)
def _nothing_configured() -> Iterator[None]:
    saved = [(base, base._save_configuration()) for base in (Shape, Outer, Inner)]
    yield
    for base, configuration in saved:
        base._restore_configuration(configuration)


def test_the_default_is_built() -> None:
    shape = Shape(1, a=2)
    assert type(shape) is Round
    assert (shape.args, shape.kwargs) == ((1,), {"a": 2})
    assert Shape.configured_class() is Round


def test_the_configured_class_is_built() -> None:
    Shape.configure(Square)
    assert type(Shape()) is Square
    assert Shape.configured_class() is Square
    Shape.configure(None)
    assert type(Shape()) is Round


def test_a_dotted_path() -> None:
    Shape.configure(f"{__name__}.Square")
    assert type(Shape()) is Square


def test_configured_arguments_stand_under_the_callers() -> None:
    Shape.configure(Square, a=1, b=2)
    assert Shape(b=3, c=4).kwargs == {"a": 1, "b": 3, "c": 4}
    assert Square(b=3).kwargs == {"b": 3}
    Shape.configure(None, a=5)
    assert Shape().kwargs == {"a": 5}
    Shape.configure(None)
    assert Shape().kwargs == {}


def test_an_implementation_can_be_built_directly() -> None:
    Shape.configure(Square)
    assert type(Round(1)) is Round
    assert Round(1).args == (1,)


@pytest.mark.parametrize("impl", [int, "math.pi", "os.path", Outer, 3])
def test_what_is_no_implementation(impl: Any) -> None:
    with pytest.raises(ValueError, match="is not a subclass of Shape"):
        Shape.configure(impl)
    assert type(Shape()) is Round


def test_a_path_that_leads_nowhere() -> None:
    with pytest.raises(ImportError):
        Shape.configure("nowhere.at.all")


def test_interfaces_below_interfaces() -> None:
    Outer.configure(Inner, a=1)
    assert type(Outer(b=2)) is Core
    assert Outer(b=2).kwargs == {"a": 1, "b": 2}  # type: ignore[attr-defined]
    assert Inner(b=2).kwargs == {"b": 2}  # type: ignore[attr-defined]
    assert Outer.configured_class() is Inner
    assert Inner.configured_class() is Core


def test_a_choice_can_be_saved_and_restored() -> None:
    saved = Shape._save_configuration()
    Shape.configure(Square, a=1)
    Shape._restore_configuration(saved)
    assert type(Shape()) is Round
    assert Shape().kwargs == {}


def test_an_interface_must_say_what_it_is() -> None:
    with pytest.raises(NotImplementedError):
        Configurable()
    with pytest.raises(NotImplementedError):
        Configurable.configurable_default()


def test_a_configurable_needs_no_initialize() -> None:
    class Plain(Configurable):
        @classmethod
        def configurable_base(cls) -> type[Configurable]:
            return Plain

        @classmethod
        def configurable_default(cls) -> type[Configurable]:
            return Plain

    assert type(Plain()) is Plain


def test_import_object() -> None:
    assert import_object("math") is math
    assert import_object("math.pi") == math.pi
    assert import_object("os.path") is os.path
    with pytest.raises(ImportError, match="no 'nothing' in module 'math'"):
        import_object("math.nothing")


@pytest.mark.parametrize("has", [True, False], ids=["pread", "no pread"])
def test_reads_and_writes_leave_the_position(has: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not has:
        for name in ("pread", "pwrite"):
            monkeypatch.delattr(os, name)
    assert util.__spec__ is not None
    module = importlib.util.module_from_spec(util.__spec__)
    assert util.__spec__.loader is not None
    util.__spec__.loader.exec_module(module)
    with (tmp_path / "file").open("w+b", buffering=0) as file:
        file.write(b"0123456789")
        file.seek(3)
        assert module.write_at(file.fileno(), memoryview(b"abc"), 8) == 3
        assert module.read_at(file.fileno(), 100, 7) == b"7abc"
        assert module.read_at(file.fileno(), 100, 11) == b""
        assert file.read(2) == b"34"
    with pytest.raises(OSError):
        module.read_at(-1, 1, 0)
