"""Reads a command line as another server's parser does: argparse, click, or getopt."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches

from bridge.dialects.table import Grammar, Option, Row, Takes, Usage

__all__ = ["from_variables", "last_of_each", "parse", "single"]

_NEGATIVE_NUMBER = re.compile(r"-\d+|-\d*\.\d+")
_YES = frozenset({"1", "true", "t", "yes", "y", "on"})
_NO = frozenset({"0", "false", "f", "no", "n", "off"})


def parse(rows: Sequence[Row], words: Sequence[str], grammar: Grammar) -> tuple[list[Option], list[str]]:
    """Return the options in *words*, in their order, and the arguments.

    Raises:
        Usage: An option is unknown or ambiguous, lacks its value, or its value is not allowed.
    """
    return _Parser(rows, grammar).parse(list(words))


def single(arguments: Sequence[str], grammar: Grammar, name: str = "") -> str | None:
    """Return the only argument; None if there is none.

    Args:
        arguments: The words that are not options.
        grammar: The parser, which decides the wording of messages.
        name: The argument's name in messages, if it is required.

    Raises:
        Usage: There is more than one, or a required one is missing.
    """
    more = " ".join(arguments[1:])
    if more:
        plural = "s" if len(arguments) > 2 else ""
        click = grammar is Grammar.CLICK
        raise Usage(f"Got unexpected extra argument{plural} ({more})" if click else f"unrecognized arguments: {more}")
    if not arguments and name:
        raise Usage(f"the following arguments are required: {name}")
    return arguments[0] if arguments else None


class _Parser:
    def __init__(self, rows: Sequence[Row], grammar: Grammar) -> None:
        self._grammar = grammar
        self._known = {spelling: (row, True) for row in rows if not row.positional for spelling in row.spellings}
        self._known |= {spelling: (row, False) for row in rows for spelling in row.negative}

    def parse(self, words: list[str]) -> tuple[list[Option], list[str]]:
        found: list[Option] = []
        arguments: list[str] = []
        while words:
            word = words.pop(0)
            if word == "--":
                arguments += words
                break
            if word == "-" or not word.startswith("-") or self._is_number(word):
                arguments.append(word)
                if self._grammar is Grammar.GETOPT:  # which stops at the first argument
                    arguments += words
                    break
            elif word.startswith("--"):
                found.append(self._long(word, words))
            else:
                found += self._short(word, words)
        return found, arguments

    def _is_number(self, word: str) -> bool:
        return self._grammar is Grammar.ARGPARSE and _NEGATIVE_NUMBER.fullmatch(word) is not None

    def _long(self, word: str, words: list[str]) -> Option:
        name, equals, text = word.partition("=")
        spelling = self._complete(name)
        row, positive = self._known[spelling]
        if row.takes is Takes.FLAG:
            if equals:
                raise Usage(self._message("takes no value", spelling, row, text))
            return Option(row, positive, spelling)
        return self._with_value(row, spelling, text if equals else self._next(row, spelling, words))

    def _complete(self, name: str) -> str:
        """Return the option named *name*, or the only one whose name begins with it."""
        if name in self._known:
            return name
        if self._grammar is not Grammar.CLICK:
            near = sorted(spelling for spelling in self._known if spelling.startswith(name) and len(name) > 2)
            rows = {self._known[spelling][0].name for spelling in near}
            if len(near) == 1 or (near and len(rows) == 1 and self._grammar is Grammar.ARGPARSE):
                return near[0]
            if near:
                if self._grammar is Grammar.GETOPT:
                    raise Usage(f"option {name} not a unique prefix")
                raise Usage(f"ambiguous option: {name} could match {', '.join(near)}")
        raise Usage(self._message("unknown", name))

    def _short(self, word: str, words: list[str]) -> list[Option]:
        """Return the options of ``-w4``, or of several flags such as ``-DR``."""
        found = []
        rest = word[1:]
        while rest:
            spelling, rest = "-" + rest[0], rest[1:]
            if spelling not in self._known:
                raise Usage(self._message("unknown", word if self._grammar is Grammar.ARGPARSE else spelling))
            row, positive = self._known[spelling]
            if row.takes is Takes.FLAG:
                found.append(Option(row, positive, spelling))
                continue
            if rest.startswith("=") and self._grammar is Grammar.ARGPARSE:
                rest = rest[1:]
            found.append(self._with_value(row, spelling, rest or self._next(row, spelling, words)))
            break
        return found

    def _next(self, row: Row, spelling: str, words: list[str]) -> str:
        if words:
            follows = words[0]
            is_option = len(follows) > 1 and follows.startswith("-") and not self._is_number(follows)
            if self._grammar is not Grammar.ARGPARSE or (not is_option or " " in follows):
                return words.pop(0)
        if row.takes is Takes.OPTIONAL:
            return "true"
        raise Usage(self._message("lacks its value", spelling, row))

    def _with_value(self, row: Row, spelling: str, text: str) -> Option:
        fault = ""
        value: object = text
        if row.takes is Takes.INT:
            try:
                value = int(text)
            except ValueError:
                fault = "no integer"
        elif row.takes is Takes.FLOAT:
            try:
                value = float(text)
            except ValueError:
                fault = "no float"
        elif row.takes is Takes.BOOL:
            if text.strip().lower() not in _YES | _NO:
                fault = "no boolean"
            value = text.strip().lower() in _YES
        elif row.choices:
            value = text.lower()
            fault = "" if value in row.choices else "no choice"
        if fault:
            unset = "; no shell has replaced this variable: write the command as one string" if "$" in text else ""
            raise Usage(self._message(fault, spelling, row, text) + unset)
        return Option(row, value, spelling)

    def _message(self, fault: str, spelling: str, row: Row | None = None, text: str = "") -> str:
        """Return the message of the server's own parser."""
        if self._grammar is Grammar.GETOPT:
            words = {
                "unknown": "not recognized",
                "lacks its value": "requires argument",
                "takes no value": "must not have an argument",
            }
            return f"option {spelling} {words[fault]}"
        both = "/".join(row.spellings) if row is not None else spelling
        if self._grammar is Grammar.ARGPARSE:
            return {
                "unknown": f"unrecognized arguments: {spelling}",
                "lacks its value": f"argument {both}: expected one argument",
                "takes no value": f"argument {both}: ignored explicit argument {text!r}",
                "no integer": f"argument {both}: invalid int value: {text!r}",
                "no float": f"argument {both}: invalid float value: {text!r}",
                "no choice": f"argument {both}: invalid choice: {text!r}",
            }[fault]
        if fault == "unknown":
            near = get_close_matches(spelling, self._known, n=1)
            return f"No such option: {spelling}" + (f" Did you mean {near[0]}?" if near else "")
        if fault == "lacks its value":
            return f"Option '{spelling}' requires an argument."
        if fault == "takes no value":
            return f"Option '{spelling}' does not take a value."
        choices = ", ".join(repr(choice) for choice in row.choices) if row is not None else ""
        what = {
            "no integer": f"{text!r} is not a valid integer",
            "no float": f"{text!r} is not a valid float",
            "no boolean": f"{text!r} is not a valid boolean",
            "no choice": f"{text!r} is not one of {choices}",
        }[fault]
        names = " / ".join(f"'{name}'" for name in both.split("/"))
        return f"Invalid value for {names}: {what}."


def from_variables(rows: Sequence[Row], prefix: str, environ: Mapping[str, str]) -> list[Option]:
    """Return the options that click takes from variables such as ``UVICORN_PORT``.

    Raises:
        Usage: A value is not allowed.
    """
    parser = _Parser(rows, Grammar.CLICK)
    found: list[Option] = []
    for row in rows:
        variable = f"{prefix}_{row.name.upper()}"
        text = environ.get(variable, "")
        if not text:
            continue
        if row.takes is Takes.FLAG:
            word = text.strip().lower()
            if word not in _YES | _NO:
                raise Usage(f"Invalid value for '{row.spellings[0]}': {text!r} is not a valid boolean.")
            found.append(Option(row, word in _YES, variable))
        elif row.positional:
            found.append(Option(row, text, variable))
        else:
            parts = text.split() if row.takes is Takes.LIST else [text]
            found += [parser._with_value(row, row.spellings[0], part)._replace(origin=variable) for part in parts]
    return found


def last_of_each(options: Sequence[Option]) -> list[Option]:
    """Return one option for each row: the last one given, or for a list, all its values joined.

    A list on the command line replaces one from elsewhere, so only options with equal origins are joined.
    """
    found: dict[str, Option] = {}
    for option in options:
        before = found.get(option.row.name)
        if option.row.takes is Takes.LIST:
            values = option.value if isinstance(option.value, list) else [option.value]
            if before is not None and _source(before.origin) == _source(option.origin):
                values = [*before.value, *values]
            option = option._replace(value=values)  # noqa: PLW2901 - the same option
        found.pop(option.row.name, None)
        found[option.row.name] = option
    return list(found.values())


def _source(origin: str) -> str:
    return "command line" if origin.startswith("-") else origin
