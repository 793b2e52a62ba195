"""Configurable: a class whose constructor builds an implementation that was chosen elsewhere.

This module knows nothing of HTTP.
"""

from __future__ import annotations

import importlib
from typing import Any, Self

__all__ = ["Configurable", "import_object"]


def import_object(name: str) -> Any:
    """Return what a dotted path names: a module, or an attribute of one.

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

    Calling the interface class builds an instance of the configured implementation. Instances are set up in
    :meth:`initialize`, not in ``__init__``. A subclass states :meth:`configurable_base` and
    :meth:`configurable_default`.
    """

    __impl_class: type[Configurable] | None = None
    __impl_kwargs: dict[str, Any] | None = None

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Build the implementation: the configured one if *cls* is the interface itself, else *cls*."""
        base = cls.configurable_base()
        implementation: type[Configurable] = cls
        if cls is base:
            implementation = cls.configured_class()
            kwargs = {**(base.__dict__.get("_Configurable__impl_kwargs") or {}), **kwargs}
        if implementation.configurable_base() is not base:
            # The implementation is an interface too, with a choice of its own.
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
        """Set up the instance; takes what the constructor was given."""

    @classmethod
    def configure(cls, impl: str | type[Configurable] | None, **kwargs: Any) -> None:
        """Choose the class that calling the interface builds from now on.

        Args:
            impl: A subclass of the interface, or its dotted path; None for the default.
            **kwargs: Keyword arguments for every instance, under those of the caller.

        Raises:
            ValueError: *impl* is not a subclass of the interface.
            ImportError: The dotted path leads nowhere.
        """
        base = cls.configurable_base()
        chosen = import_object(impl) if isinstance(impl, str) else impl
        if chosen is not None and not (isinstance(chosen, type) and issubclass(chosen, cls)):
            raise ValueError(f"{chosen!r} is not a subclass of {cls.__name__}")
        base.__impl_class = chosen
        base.__impl_kwargs = kwargs

    @classmethod
    def configured_class(cls) -> type[Configurable]:
        """Return the class that calling the interface builds."""
        base = cls.configurable_base()
        # Not inherited: an interface below another interface has its own choice.
        if base.__dict__.get("_Configurable__impl_class") is None:
            base.__impl_class = cls.configurable_default()
        assert base.__impl_class is not None
        return base.__impl_class

    @classmethod
    def _save_configuration(cls) -> tuple[type[Configurable] | None, dict[str, Any] | None]:
        base = cls.configurable_base()
        return base.__impl_class, base.__impl_kwargs

    @classmethod
    def _restore_configuration(cls, saved: tuple[type[Configurable] | None, dict[str, Any] | None]) -> None:
        base = cls.configurable_base()
        base.__impl_class, base.__impl_kwargs = saved
