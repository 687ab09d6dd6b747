"""What is wrong with the flags of a command, told as all errors are: what was found, what was expected, what to do."""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final

from pydantic import BaseModel, ValidationError
from tyro.conf import Positional

from sentinode.errors import ConfigError

KINDS: Final = {"INT": "a whole number", "FLOAT": "a number", "STR": "text", "{None}": "None"}
"""What tyro calls them."""
SHOWN_CHARACTERS: Final = 60
SHOWN_FAULTS: Final = 4


class WrongUsage:
    """Tells of the flags of ``command``, of which ``arguments`` were given."""

    def __init__(
        self, command: str, arguments: Sequence[str], flags: type[BaseModel], defaults: object
    ) -> None:
        self.command, self.arguments, self.flags, self.defaults = command, arguments, flags, defaults

    def told(self) -> AbstractContextManager[None]:
        """Within it, what tyro finds raises ConfigError; else tyro draws a box and ends the process."""
        try:
            # Not of its public part: another release may lack it, and then tells in its own way.
            from tyro._errors import on_parse_error
        except ImportError:
            return nullcontext()
        return on_parse_error(self._refuse)

    def invalid(self, error: ValidationError, within: str = "") -> ConfigError:
        """Of values that are out of bounds; ``within`` is the dotted name of their group of flags."""
        faults = [self._fault(fault, within) for fault in error.errors()[:SHOWN_FAULTS]]
        expected = [f"{name} {wanted}" if len(faults) > 1 else wanted for name, _, wanted in faults if wanted]
        return self._error("; ".join(found for _, found, _ in faults), "; ".join(expected))

    def _refuse(self, event: Any) -> None:
        """Raise what ``event`` of tyro amounts to; what is not known here stays tyro's."""
        argument: Any = getattr(event, "argument", None)
        match type(event).__name__:
            case "MissingArgs":
                raise self._missing(event)
            case "UnrecognizedArgs":
                raise self._error(*self._unknown(event.tokens))
            case "InvalidChoice":
                choices = ", ".join(event.choices)
                raise self._error(f"{argument.display_name()} is {event.value!r}", f"one of {choices}")
            case "BadValue" if event.offending_value is None:
                raise self._error(f"{argument.display_name()} has no value", _kind(argument))
            case "InstantiationFailure" if argument is not None:
                given = self._given(argument.lowered.name_or_flags)
                raise self._error(f"{argument.display_name()} is {given}", _kind(argument))
            case "InstantiationFailure":
                # Raised by tyro from what a nested model raised.
                failure = sys.exception()
                cause = getattr(failure, "__context__", None)
                if isinstance(cause, ValidationError):
                    raise self.invalid(cause, str(getattr(failure, "arg", ""))) from cause

    def _missing(self, event: Any) -> ConfigError:
        names = [found.arg.display_name() for found in event.missing_arguments]
        found = [f"{' and '.join(names)} {'is' if len(names) == 1 else 'are'} missing"]
        unknown, expected = self._unknown(event.unrecognized_tokens)
        return self._error("; ".join(found + [unknown] * bool(unknown)), expected)

    def _unknown(self, tokens: Sequence[str]) -> tuple[str, str]:
        names = [token.partition("=")[0] for token in tokens if token.startswith("-")]
        if not names:
            values = ", ".join(repr(token) for token in tokens)
            return (
                (f"{values}: no flag asks for it", "each value after its flag; switches take none")
                if tokens
                else ("", "")
            )
        known = list(_known(self.flags, self.defaults))
        close = {near: None for name in names for near in _close(name, known)}
        return f"there is no {' and no '.join(names)}", " or ".join(close)

    def _given(self, names: Sequence[str]) -> str:
        """What was written after the flag that goes by ``names``."""
        values: list[str] = []
        inside = False
        for argument in self.arguments:
            name, is_joined, value = argument.partition("=")
            if argument.startswith("--"):
                inside = name.replace("_", "-") in names
                values = ([value] if is_joined else []) if inside else values
            elif inside:
                values.append(argument)
        return _shown(" ".join(values))

    def _fault(self, fault: Any, within: str) -> tuple[str, str, str]:
        """Its flag, what was found and what is expected there."""
        name = self._name([*filter(None, within.split(".")), *map(str, fault["loc"])])
        message = fault["msg"].removeprefix("Value error, ")
        wanted = re.sub(r"^\w+ should (be |have |match )?", "", message)
        if wanted == message:
            return name, ": ".join(filter(None, [name, message])), ""
        if "actual_length" in fault.get("ctx", {}) and not isinstance(fault["input"], str):
            return name, f"{name} has {fault['ctx']['actual_length']} values", wanted.partition(" after ")[0]
        return name, f"{name} is {_shown(fault['input'])}", wanted

    def _name(self, loc: list[str]) -> str:
        """As it is written on the command line."""
        parts = [part.replace("_", "-") for part in loc if not part.isdigit()]
        field = self.flags.model_fields.get(loc[0]) if len(parts) == 1 else None
        is_positional = field is not None and any(mark in field.metadata for mark in _MARKS)
        return ("" if is_positional or not parts else "--") + ".".join(parts)

    def _error(self, found: str, expected: str) -> ConfigError:
        # Which flags there are may depend on the recipe.
        recipe = self._given(["--recipe"])
        chosen = f" --recipe {recipe[1:-1]}" if recipe != "''" else ""
        return ConfigError(found, expected, f"see sentinode {self.command}{chosen} --help")


_MARKS: Final = Positional[int].__metadata__  # type: ignore[attr-defined]


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 3] + "..."


def _kind(argument: Any) -> str:
    """Of the values that a flag takes, in words where there are any."""
    metavar = str(argument.lowered.metavar)
    several = re.fullmatch(r"\[(\S+) \[\1 \.\.\.\]\]", metavar)
    if several:
        return f"several values, each {_in_words(several[1])}"
    return " or ".join(map(_in_words, reversed(metavar.split("|"))))


def _in_words(metavar: str) -> str:
    if metavar.startswith("{") and metavar not in KINDS:
        return f"one of {metavar[1:-1].replace(',', ', ')}"
    return KINDS.get(metavar, metavar)


def _known(flags: type[BaseModel], defaults: object, prefix: str = "--") -> Iterator[str]:
    """All flags of ``flags``, with the groups that ``defaults`` has."""
    for field, info in flags.model_fields.items():
        value = getattr(defaults, field, info.default)
        named = next((mark.name for mark in info.metadata if getattr(mark, "name", None)), field)
        name = named.replace("_", "-")
        if isinstance(value, BaseModel):
            yield from _known(type(value), value, f"{prefix}{name}.")
        elif not any(mark in info.metadata for mark in _MARKS):
            # A switch that is on can only be turned off.
            yield f"{prefix}no-{name}" if value is True else prefix + name


def _close(name: str, known: Sequence[str]) -> list[str]:
    """Flags that may have been meant: within a group of that name, of the same last part, else of a similar name."""
    within = [flag for flag in known if flag.startswith(f"{name}.")]
    same = [flag for flag in known if _last(flag) == _last(name)]
    return within[:3] or same[:3] or difflib.get_close_matches(name, known, n=2, cutoff=0.75)


def _last(flag: str) -> str:
    return flag.replace("_", "-").rpartition(".")[2].lstrip("-").removeprefix("no-")
