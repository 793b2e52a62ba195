"""Configurable: the base of classes whose constructor makes an instance of a configured subclass (Tornado's name).

Also two functions that the standard library lacks on some systems. This module knows nothing of HTTP.
"""

from __future__ import annotations

import importlib
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer as Buffer

__all__ = ["Configurable", "import_object", "read_at", "write_at"]

_moving = threading.Lock()  # a descriptor has one position for all threads


def _read_at(descriptor: int, size: int, offset: int, /) -> bytes:
    with _at(descriptor, offset):
        return os.read(descriptor, size)


def _write_at(descriptor: int, data: Buffer, offset: int, /) -> int:
    with _at(descriptor, offset):
        return os.write(descriptor, data)


@contextmanager
def _at(descriptor: int, offset: int) -> Iterator[None]:
    with _moving:
        before = os.lseek(descriptor, 0, os.SEEK_CUR)
        try:
            os.lseek(descriptor, offset, os.SEEK_SET)
            yield
        finally:
            os.lseek(descriptor, before, os.SEEK_SET)


#: Read from a descriptor at an offset, or write there, without a change of its position. Windows has no pread.
read_at: Callable[[int, int, int], bytes] = getattr(os, "pread", _read_at)
write_at: Callable[[int, Buffer, int], int] = getattr(os, "pwrite", _write_at)


def import_object(name: str) -> Any:
    """Return the module, or the attribute of a module, that a dotted path names.

    Raises:
        ImportError: The module does not exist, or has no such attribute.
    """
    module_name, dot, attribute = name.rpartition(".")
    if not dot:
        return importlib.import_module(name)
    module = importlib.import_module(module_name)
    try:
        return getattr(module, attribute)
    except AttributeError:
        raise ImportError(f"no {attribute!r} in module {module_name!r}") from None


class Configurable:
    """The base of an interface whose implementation is chosen at run time, for the whole process.

    Calling the interface class makes an instance of the configured implementation. :meth:`initialize` sets instances
    up, in place of ``__init__``. Subclasses override :meth:`configurable_base` and :meth:`configurable_default`.
    """

    __impl_class: type[Configurable] | None = None
    __impl_kwargs: dict[str, Any] | None = None

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Return an instance of the configured implementation if *cls* is the interface itself; otherwise of *cls*."""
        base = cls.configurable_base()
        implementation: type[Configurable] = cls
        if cls is base:
            implementation = cls.configured_class()
            kwargs = {**(base.__dict__.get("_Configurable__impl_kwargs") or {}), **kwargs}
        if implementation.configurable_base() is not base:
            # The implementation is itself an interface, with a configured implementation of its own.
            return implementation(*args, **kwargs)  # type: ignore[return-value]  # a subclass, checked by configure
        instance = super().__new__(implementation)
        instance.initialize(*args, **kwargs)
        return instance  # type: ignore[return-value]  # the same

    @classmethod
    def configurable_base(cls) -> type[Configurable]:
        """Return the interface class, usually the class that defines this method."""
        raise NotImplementedError

    @classmethod
    def configurable_default(cls) -> type[Configurable]:
        """Return the implementation that is used while none is configured."""
        raise NotImplementedError

    def initialize(self, *args: Any, **kwargs: Any) -> None:
        """Set up the instance. The arguments are those of the constructor."""

    @classmethod
    def configure(cls, impl: str | type[Configurable] | None, **kwargs: Any) -> None:
        """Choose the implementation for all instances from now on.

        Args:
            impl: A subclass of the interface, or its dotted path; None for the default.
            **kwargs: Keyword arguments for every instance. Those of the constructor's call take precedence.

        Raises:
            ValueError: *impl* is not a subclass of the interface.
            ImportError: The dotted path names nothing.
        """
        base = cls.configurable_base()
        chosen = import_object(impl) if isinstance(impl, str) else impl
        if chosen is not None and not (isinstance(chosen, type) and issubclass(chosen, cls)):
            raise ValueError(f"{chosen!r} is not a subclass of {cls.__name__}")
        base.__impl_class = chosen
        base.__impl_kwargs = kwargs

    @classmethod
    def configured_class(cls) -> type[Configurable]:
        """Return the configured implementation."""
        base = cls.configurable_base()
        # Not by attribute access, which inherits: an interface that derives from another one is configured by itself.
        if base.__dict__.get("_Configurable__impl_class") is None:
            base.__impl_class = cls.configurable_default()
        assert base.__impl_class is not None
        return base.__impl_class

    # Tornado's names for tests that configure an interface and restore it.

    @classmethod
    def _save_configuration(cls) -> tuple[type[Configurable] | None, dict[str, Any] | None]:
        base = cls.configurable_base()
        return base.__impl_class, base.__impl_kwargs

    @classmethod
    def _restore_configuration(cls, saved: tuple[type[Configurable] | None, dict[str, Any] | None]) -> None:
        base = cls.configurable_base()
        base.__impl_class, base.__impl_kwargs = saved
