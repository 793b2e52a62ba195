"""The classes for a table of another server's options. Each row says what an option becomes in bridge."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from bridge.config.layers import Given, Layer
from bridge.dialects.files import in_words, shown
from bridge.errors import ConfigError

__all__ = ["Dialect", "Fate", "Grammar", "Option", "Outcome", "Refusal", "Row", "Takes", "Translation", "Usage", "row"]


class Fate(enum.StrEnum):
    """What becomes of an option."""

    SAME = "same"
    """It means the same in bridge."""

    NEAR = "near"
    """It means nearly the same; the remark says what differs."""

    NO_EFFECT = "no effect"
    """It changes nothing in bridge; the remark says why, or what to use."""

    REFUSED = "refused"
    """The server does not start with it; the remark says why, and what to use."""


class Takes(enum.StrEnum):
    """What follows an option on the command line."""

    TEXT = "text"
    INT = "int"
    FLOAT = "float"
    LIST = "list"
    """Text; the option may be repeated."""

    FLAG = "flag"
    """Nothing; the option means yes."""

    BOOL = "bool"
    """A word for yes or no."""

    OPTIONAL = "optional text"
    """Text, or nothing: then the value is yes."""

    FILE_ONLY = "file only"
    """It is only a name in a configuration file, not an option."""


class Grammar(enum.Enum):
    """The parser that a server's command line is read with."""

    ARGPARSE = enum.auto()
    CLICK = enum.auto()
    GETOPT = enum.auto()


class Usage(Exception):
    """A command line that the other server would refuse too.

    Args:
        text: The message in the words of that server's parser, without the usage line.
    """


class Refusal(ConfigError):
    """Options that cannot be carried over."""


Convert = Callable[[Any, "Translation"], "tuple[Fate, str] | None"]


class Row(NamedTuple):
    """One option of another server.

    Attributes:
        name: What the server calls it in its own configuration.
        spellings: How the command line spells it; empty for names of configuration files.
        takes: What follows it.
        fate: What usually becomes of it.
        becomes: The settings of bridge that it becomes, with spaces between them; empty for none.
        remark: One sentence, unless the fate is SAME.
        convert: Puts it into a Translation; returns another fate and remark if the value makes a difference. None:
            its text is that of the one setting it becomes.
        negative: The spellings that switch it off.
        choices: The values that the command line takes; empty for any.
        positional: It is an argument, not an option.
    """

    name: str
    spellings: tuple[str, ...]
    takes: Takes
    fate: Fate
    becomes: str
    remark: str
    convert: Convert | None
    negative: tuple[str, ...]
    choices: tuple[str, ...]
    positional: bool


def row(
    spelling: str,
    fate: Fate,
    becomes: str = "",
    remark: str = "",
    *,
    name: str = "",
    takes: Takes = Takes.TEXT,
    convert: Convert | None = None,
    negative: str = "",
    choices: str = "",
) -> Row:
    """Return a row; *spelling*, *negative* and *choices* have spaces between several.

    A spelling without dashes is an argument, or with Takes.FILE_ONLY a name of a configuration file.
    """
    words = tuple(spelling.split())
    own = next((word for word in words if word.startswith("--")), words[0]).lstrip("-").replace("-", "_")
    positional = not words[0].startswith("-")
    return Row(
        name or own,
        () if takes is Takes.FILE_ONLY else words,
        takes,
        fate,
        becomes,
        remark,
        convert,
        tuple(negative.split()),
        tuple(choices.split()),
        positional and takes is not Takes.FILE_ONLY,
    )


class Option(NamedTuple):
    """An option that was given.

    Attributes:
        row: Its row.
        value: Its value, as the file or the command line has it.
        origin: How it was written: an option, a variable, a name in a file.
    """

    row: Row
    value: Any
    origin: str


class Outcome(NamedTuple):
    """What became of one option.

    Attributes:
        option: How it was written.
        value: Its value as text.
        fate: What became of it.
        becomes: What it is here, as options of ``bridge run``; empty for nothing.
        remark: One sentence; empty if it means the same.
    """

    option: str
    value: str
    fate: Fate
    becomes: str
    remark: str


@dataclass(slots=True)
class Translation:
    """A command line of another server in bridge's settings.

    Attributes:
        defaults: Settings that differ between the servers unless somebody gives them.
        layer: The settings that were given, as text.
        objects: Settings whose values are no text.
        given: The options by the names of their rows.
        outcomes: What became of each option.
        paths: Directories for the front of ``sys.path``.
        detach: The process leaves its terminal.
        check_only: The settings are checked, and nothing is served.
        print_only: The settings are printed, and nothing is served.
        hooks: Functions by the names of the points at which they are called.
        notes: Lines for the log.
        origin: How the option that is being converted was written.
        dialect: The dialect's own facts, kept between options.
    """

    defaults: Layer = field(default_factory=dict)
    layer: Layer = field(default_factory=dict)
    objects: dict[str, Any] = field(default_factory=dict)
    given: dict[str, Option] = field(default_factory=dict)
    outcomes: list[Outcome] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    detach: bool = False
    check_only: bool = False
    print_only: bool = False
    hooks: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    origin: str = ""
    dialect: dict[str, Any] = field(default_factory=dict)

    def set(self, name: str, value: object) -> None:
        """Set one of bridge's settings to *value*: text, a number, or a boolean."""
        text = ("on" if value else "off") if isinstance(value, bool) else str(value)
        self.layer[name] = Given(text, self.origin)

    def add(self, name: str, value: object, separator: str = ",") -> None:
        """Add *value* to one of bridge's lists."""
        before = self.layer.get(name)
        self.set(name, value if before is None else f"{before.text}{separator}{value}")

    def default(self, name: str, text: str, origin: str) -> None:
        """Set a default of one of bridge's settings. Given values and earlier defaults win over it."""
        self.defaults.setdefault(name, Given(text, origin))

    def settle(self, option: str, name: str, value: object) -> None:
        """Set a setting that depends on several options, on behalf of *option*; as a default if that was not given."""
        if option in self.given:
            self.origin = self.given[option].origin
            self.set(name, value)
        else:
            self.default(name, str(value), "")

    def take(self, option: Option) -> None:
        """Convert one option, and note what became of it.

        Raises:
            ConfigError: The option does not accept the value, which may come from a file or a program.
        """
        one = option.row
        self.origin = option.origin
        self.given[one.name] = option
        changed = None
        try:
            if one.convert is not None:
                changed = one.convert(option.value, self)
            elif one.fate in {Fate.SAME, Fate.NEAR} and one.becomes and " " not in one.becomes:
                self.set(one.becomes, option.value)
            value = _shown(option.value)
        except (ConfigError, Usage):
            raise
        except Exception as exc:  # from the value itself, too: its class may be the program's own
            text = f"{option.origin}: {shown(option.value)} cannot be used: {in_words(exc)}"
            raise ConfigError(text) from exc
        fate, remark = changed or (one.fate, one.remark)
        self.outcomes.append(Outcome(option.origin, value, fate, "", "" if fate is Fate.SAME else remark))

    def note(self, option: str, value: str, fate: Fate, remark: str) -> None:
        """Note what became of something that has no row, such as a default."""
        self.outcomes.append(Outcome(option, value, fate, "", remark))

    def correct(self, option: str, fate: Fate, remark: str) -> None:
        """Change the noted outcome of *option*, which :meth:`take` has converted."""
        origin = self.given[option].origin
        self.outcomes = [
            one._replace(fate=fate, remark=remark) if one.option == origin else one for one in self.outcomes
        ]

    def complete(self) -> None:
        """Write into each outcome the settings that it became. Called when all options are settled."""
        rows = {option.origin: option.row for option in self.given.values()}
        for number, outcome in enumerate(self.outcomes):
            names = [name for name, given in self.layer.items() if given.origin == outcome.option]
            if outcome.fate in {Fate.SAME, Fate.NEAR} and outcome.option in rows:
                names += [
                    name
                    for name in rows[outcome.option].becomes.split()
                    if name in self.layer and self.layer[name].origin not in rows  # settled together with other options
                ]
            becomes = " ".join(f"{name}={self.layer[name].text}" for name in names)
            self.outcomes[number] = outcome._replace(becomes=becomes)

    @property
    def status(self) -> int:
        """0 if all is the same or near, 1 if something has no effect, 2 if something is refused."""
        fates = {outcome.fate for outcome in self.outcomes}
        return 2 if Fate.REFUSED in fates else 1 if Fate.NO_EFFECT in fates else 0


def _shown(value: object) -> str:
    if value is True:
        return "on"
    if value is False:
        return "off"
    if value is None:
        return "None"
    if isinstance(value, list | tuple):
        return " ".join(map(str, value))
    if callable(value):
        return getattr(value, "__qualname__", None) or type(value).__name__
    return str(value)


@dataclass(frozen=True, slots=True)
class Dialect:
    """The command line of another server.

    Attributes:
        name: Its command.
        version: The version whose options the table has.
        usage: Its usage line.
        grammar: Its parser.
        rows: Its options.
        options: Returns what was given, of the words of the command line, the environment and the files these name.
            Raises Usage and ConfigError.
        finish: Called last; sets what depends on more than one option.
        status: The exit status for a wrong command line.
    """

    name: str
    version: str
    usage: str
    grammar: Grammar
    rows: tuple[Row, ...]
    options: Callable[[list[str], Mapping[str, str]], list[Option]]
    finish: Callable[[Translation], None]
    status: int = 2

    def translate(self, words: list[str], environ: Mapping[str, str]) -> Translation:
        """Return *words* in bridge's settings.

        Raises:
            Usage: The server would refuse the command line too.
            ConfigError: A file cannot be read.
        """
        translation = Translation()
        for option in self.options(words, environ):
            translation.take(option)
        translation.origin = self.name
        self.finish(translation)
        translation.complete()
        return translation

    def complaint(self, problem: Usage) -> str:
        """Return the message for *problem* in the server's own style."""
        if self.grammar is Grammar.CLICK:
            text = f"Usage: {self.usage}\nTry '{self.name} --help' for help.\n\nError: {problem}\n"
        elif self.grammar is Grammar.GETOPT:
            text = f"Error: {problem}\n\nUsage:\n    {self.usage}\n"
        else:
            text = f"usage: {self.usage}\n{self.name}: error: {problem}\n"
        return f"{text}bridge: these are the options of {self.name} {self.version}, in docs/dialects.md\n"
