"""The classes to declare a table of settings with: a row describes one setting, a class is the table.

``bridge.config.settings`` declares the settings that exist, and ``bridge.config.sources`` reads their values.
"""

from __future__ import annotations

from typing import Any, ClassVar, TypeVar, dataclass_transform

from bridge.config.kinds import Kind

__all__ = ["Setting", "Settings", "setting", "show"]

T = TypeVar("T")


class Setting:
    """One row of the table of settings.

    Attributes:
        name: The attribute of `bridge.config.Config`. Option and environment names are derived from it.
        default: The value if no source gives one.
        group: Its heading in the help.
        kind: The kind of its value.
        help: One sentence without a full stop.
        short: A one-letter option such as ``-b``, or empty.
        aliases: Names that other servers use for it. They are accepted, but the help does not show them.
        foreign: Environment variables of other tools that are read too. ``BRIDGE_...`` wins over them.
        shown: The default in words, where the value alone would mislead; else empty.
        positional: It is the argument of the command, not an option.
        secret: Its value is never shown.
    """

    __slots__ = (
        "aliases", "default", "foreign", "group", "help", "kind", "name", "positional", "secret", "short", "shown",
    )  # fmt: skip

    def __init__(
        self,
        name: str,
        default: object,
        group: str,
        kind: Kind[object],
        help_text: str,
        short: str = "",
        aliases: tuple[str, ...] = (),
        foreign: tuple[str, ...] = (),
        shown: str = "",
        positional: bool = False,
        secret: bool = False,
    ) -> None:
        self.name = name
        self.default = default
        self.group = group
        self.kind = kind
        self.help = help_text
        self.short = short
        self.aliases = aliases
        self.foreign = foreign
        self.shown = shown
        self.positional = positional
        self.secret = secret

    @property
    def option(self) -> str:
        """The canonical option, ``--like-this``."""
        return "--" + self.name.replace("_", "-")

    @property
    def spellings(self) -> tuple[str, ...]:
        """Every option that names this setting, the canonical one first."""
        names = (self.option, *(f"--{alias}" for alias in self.aliases))
        negated = tuple("--no-" + name[2:] for name in names) if self.is_switch else ()
        return names + negated + ((self.short,) if self.short else ())

    @property
    def environment(self) -> tuple[str, ...]:
        """The environment variables that name this setting, the canonical one first. None sets other variables."""
        if self.kind.metavar == "VARIABLE":
            return ()
        return tuple("BRIDGE_" + name.upper().replace("-", "_") for name in (self.name, *self.aliases))

    @property
    def is_switch(self) -> bool:
        """Whether the option takes no value and has a ``--no-`` form."""
        return not self.kind.metavar


def setting(
    group: str,
    kind: Kind[T],
    default: T,
    help_text: str,
    *,
    short: str = "",
    aliases: tuple[str, ...] = (),
    foreign: tuple[str, ...] = (),
    shown: str = "",
    positional: bool = False,
    secret: bool = False,
) -> T:
    """Declare one attribute of a table of settings; the arguments are those of `Setting`."""
    row = Setting("", default, group, kind, help_text, short, aliases, foreign, shown, positional, secret)
    declared: Any = row  # an instance of the table has a value of the default's type here
    return declared  # type: ignore[no-any-return]  # see the line above


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(setting,))
class Settings:
    """A table of settings. The class has a row for each setting, an instance an immutable value for each.

    It is not a dataclass: making one with so many fields takes 9 ms of CPU, longer than all other imports of a start.

    Attributes:
        rows: The rows by name, those of base classes first.
    """

    rows: ClassVar[dict[str, Setting]] = {}

    def __init_subclass__(cls) -> None:
        cls.rows = dict(cls.rows)
        for name, row in list(vars(cls).items()):
            if isinstance(row, Setting):
                row.name = name
                cls.rows[name] = row
                setattr(cls, name, row.default)  # instances without a value of their own have this one

    def __init__(self, **values: object) -> None:
        unknown = values.keys() - self.rows.keys()
        if unknown:
            raise TypeError(f"there is no setting {min(unknown)!r}")
        vars(self).update(values)
        self._check()

    def _check(self) -> None:
        """Raise ConfigError for settings that contradict each other. Derived classes override this."""

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"settings do not change: {name}")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"settings do not change: {name}")

    def __repr__(self) -> str:
        shown = (f"{name}={getattr(self, name)!r}" for name, row in self.rows.items() if not row.secret)
        return f"{type(self).__name__}({', '.join(shown)})"

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in self.rows)

    def __hash__(self) -> int:
        return hash(tuple(getattr(self, name) for name in self.rows))


def show(row: Setting) -> str:
    """Return the default of *row* as a user would write it; empty if there is none."""
    value, unit = row.default, row.kind.unit
    if row.shown:
        return row.shown
    if value is None:
        return "off" if row.kind.can_be_off else ""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, int) and unit == "bytes":
        for size, suffix in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
            if value and value % size == 0:
                return f"{value // size} {suffix}"
    if isinstance(value, float) and unit == "seconds":
        return f"{value:g} s"
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
