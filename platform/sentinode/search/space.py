"""A search space is a typed Python function: it asks for its choices by name and returns a recipe.

    def small(choose: Choices) -> Recipe:
        width = choose.one_of("width", (4, 8))
        ...

Whoever answers (a sampler, a record of former answers) decides what is drawn, so one function serves search, resume and
tests. A choice may depend on earlier ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeVar

from sentinode.errors import ConfigError
from sentinode.training.config import Recipe

Choice = int | float | str | bool
"""A value that was drawn."""

T = TypeVar("T", bound=int | float | str | bool)


class Choices(Protocol):
    """Answers the questions of a space. A name is asked once, and always with the same options."""

    def one_of(self, name: str, options: tuple[T, ...]) -> T:
        """One of ``options``."""
        ...

    def number(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        """A number from ``low`` to ``high``, evenly over its logarithm where ``log``."""
        ...

    def integer(self, name: str, low: int, high: int) -> int:
        """A whole number from ``low`` to ``high``, both included."""
        ...


@dataclass(frozen=True)
class Space:
    """A named search space."""

    name: str
    draw: Callable[[Choices], Recipe]
    starts: tuple[Mapping[str, Choice], ...] = ()
    """Choices to try first: one good guess of each family, so that none is judged by a bad draw alone."""

    @property
    def summary(self) -> str:
        """The first line of the function's docstring."""
        return (self.draw.__doc__ or "").strip().partition("\n")[0]


class FixedChoices:
    """Answers from ``values``; ``asked`` notes what was asked for."""

    def __init__(self, values: Mapping[str, Choice]) -> None:
        self.values = values
        self.asked: set[str] = set()

    def one_of(self, name: str, options: tuple[T, ...]) -> T:
        value = self._answer(name)
        if value not in options:
            raise _unfit(name, value, f"one of {', '.join(map(str, options))}")
        return options[options.index(value)]

    def number(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        value = self._answer(name)
        if isinstance(value, str | bool) or not low <= value <= high:
            raise _unfit(name, value, f"a number from {low:g} to {high:g}")
        return float(value)

    def integer(self, name: str, low: int, high: int) -> int:
        value = self._answer(name)
        if not isinstance(value, int) or not low <= value <= high:
            raise _unfit(name, value, f"a whole number from {low} to {high}")
        return value

    def _answer(self, name: str) -> Choice:
        self.asked.add(name)
        if name not in self.values:
            raise ConfigError(
                f"the choice {name!r} is missing", f"a value besides {', '.join(sorted(self.values))}"
            )
        return self.values[name]


class FirstChoices:
    """Answers with the first option, and the lowest number."""

    def one_of(self, name: str, options: tuple[T, ...]) -> T:
        return options[0]

    def number(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        return low

    def integer(self, name: str, low: int, high: int) -> int:
        return low


def recipe_of(space: Space, values: Mapping[str, Choice]) -> Recipe:
    """The recipe of ``space`` for ``values``. Raises ConfigError where a choice is missing, unknown or unfit."""
    choices = FixedChoices(values)
    recipe = space.draw(choices)
    unknown = sorted(values.keys() - choices.asked)
    if unknown:
        raise ConfigError(
            f"the space {space.name} does not ask for {', '.join(unknown)}",
            f"only {', '.join(sorted(choices.asked))}",
        )
    return recipe


def every_choice(space: Space) -> Iterator[dict[str, Choice]]:
    """Every combination of choices that ``space`` knows. Raises ConfigError where it asks for a number, of which there
    is no end.
    """
    path: list[int] | None = []
    while path is not None:
        walk = _Walk(path)
        space.draw(walk)
        yield walk.drawn
        path = walk.next_path()


class _Walk:
    """Answers along a path of positions among the options; past its end with the first option."""

    def __init__(self, path: list[int]) -> None:
        self._path, self._sizes = list(path), list[int]()
        self.drawn: dict[str, Choice] = {}

    def one_of(self, name: str, options: tuple[T, ...]) -> T:
        if len(self._sizes) == len(self._path):
            self._path.append(0)
        answer = options[self._path[len(self._sizes)]]
        self._sizes.append(len(options))
        self.drawn[name] = answer
        return answer

    def number(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        raise ConfigError(
            f"the space asks for a number, {name}",
            "options and whole numbers, for a grid",
            "choose another sampler",
        )

    def integer(self, name: str, low: int, high: int) -> int:
        return self.one_of(name, tuple(range(low, high + 1)))

    def next_path(self) -> list[int] | None:
        """The path after this one, None after the last."""
        for depth in reversed(range(len(self._path))):
            if self._path[depth] + 1 < self._sizes[depth]:
                return [*self._path[:depth], self._path[depth] + 1]
        return None


def _unfit(name: str, value: Choice, expected: str) -> ConfigError:
    return ConfigError(f"the choice {name} is {value!r}", expected)
