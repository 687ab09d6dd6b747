"""Draws trials: Optuna behind the questions of a space."""

from __future__ import annotations

import random
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.study import StudyDirection
from optuna.trial import TrialState as OptunaState

from sentinode.errors import ConfigError
from sentinode.search.config import SearchConfig
from sentinode.search.records import TrialRecord
from sentinode.search.space import Choice, FirstChoices, FixedChoices, Space, T, every_choice, recipe_of
from sentinode.training.config import Recipe

FIRST_DRAWS = 0.3
"""Share of the trials drawn at random before TPE starts to learn."""
POPULATIONS = 3
"""Generations that NSGA-II gets: its population is the number of trials over this, at least 4."""


class Proposer:
    """Proposes trials of ``space``, and learns from those that it is told of.

    All that it knows it was told, so a search is resumed by telling a new one of the former trials.
    """

    def __init__(self, space: Space, config: SearchConfig, trials: int) -> None:
        self.space, self.config = space, config
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._study = optuna.create_study(
            directions=[StudyDirection.MAXIMIZE, *[StudyDirection.MINIMIZE] * len(config.costs)],
            sampler=build_sampler(config, trials),
            pruner=optuna.pruners.NopPruner(),
        )
        self._asked: dict[int, optuna.Trial] = {}
        self._first = [dict(start) for start in space.starts]
        if config.sampler == "grid":
            self._first = list(every_choice(space))
            random.Random(config.seed).shuffle(self._first)

    @property
    def longest(self) -> int:
        """Epochs of a trial that is not stopped: the search's, else those of the space's first choices."""
        return self.config.epochs or self.space.draw(FirstChoices()).train.epochs

    def propose(self, number: int) -> tuple[dict[str, Choice], Recipe] | None:
        """Choices and recipe of trial ``number``; None where the space holds no other.

        Raises ConfigError where the space asks wrongly or makes a recipe that cannot be.
        """
        if number < len(self._first):
            choices = self._first[number]
            return choices, self._for_epochs(recipe_of(self.space, choices))
        if self.config.sampler == "grid":
            return None
        trial = self._study.ask()
        self._asked[number] = trial
        drawn = _Drawn(trial)
        recipe = self.space.draw(drawn)
        return drawn.drawn, self._for_epochs(recipe)

    def tell(self, record: TrialRecord) -> None:
        """Learn from a trial that is over, drawn by this one, by a former process or by hand."""
        values = record.objectives(self.config)
        asked = self._asked.pop(record.number, None)
        if asked is None:
            self._add(record, values)
        elif values is None:
            self._study.tell(asked, state=OptunaState.FAIL)
        else:
            self._study.tell(asked, list(values))

    def _add(self, record: TrialRecord, values: Sequence[float] | None) -> None:
        # Drawn and given up: it is by drawing that NSGA-II counts its generations. Trials that Optuna calls
        # enqueued belong to none, and would never become parents.
        asked = self._study.ask()
        self.space.draw(_Drawn(asked))
        generation = self._study.trials[asked.number].system_attrs
        self._study.tell(asked, state=OptunaState.FAIL)
        if values is None:
            return
        known = _Known(record.choices)
        self.space.draw(known)
        self._study.add_trial(
            optuna.trial.create_trial(
                values=list(values),
                params=dict(record.choices),
                distributions=known.distributions,
                system_attrs=generation,
            )
        )

    def _for_epochs(self, recipe: Recipe) -> Recipe:
        return recipe if self.config.epochs is None else with_epochs(recipe, self.config.epochs)


def with_epochs(recipe: Recipe, epochs: int) -> Recipe:
    """``recipe`` over ``epochs``; its warm-up keeps its share."""
    train = recipe.train
    changed = {"epochs": epochs, "warmup_epochs": train.warmup_epochs * epochs / train.epochs}
    if train.early_stop_patience is not None:
        changed["early_stop_patience"] = min(train.early_stop_patience, epochs)
    return Recipe.model_validate(recipe.model_dump() | {"train": train.model_dump() | changed})


def build_sampler(config: SearchConfig, trials: int) -> BaseSampler:
    """Optuna's sampler for ``config`` and about so many trials."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        match config.sampler:
            case "auto" | "tpe":
                return TPESampler(
                    n_startup_trials=max(4, round(FIRST_DRAWS * trials)),
                    multivariate=True,
                    group=True,  # a choice that only some trials make is modelled among those
                    seed=config.seed,
                )
            case "nsga2":
                return NSGAIISampler(population_size=max(4, trials // POPULATIONS), seed=config.seed)
            case "random" | "grid":
                return RandomSampler(seed=config.seed)


class _Known(FixedChoices):
    """Answers from a record, and notes what could have been answered, as Optuna puts it."""

    def __init__(self, values: Mapping[str, Choice]) -> None:
        super().__init__(values)
        self.distributions: dict[str, BaseDistribution] = {}

    def one_of(self, name: str, options: tuple[T, ...]) -> T:
        self.distributions[name] = CategoricalDistribution(options)
        return super().one_of(name, options)

    def number(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        self.distributions[name] = FloatDistribution(low, high, log=log)
        return super().number(name, low, high, log=log)

    def integer(self, name: str, low: int, high: int) -> int:
        self.distributions[name] = IntDistribution(low, high)
        return super().integer(name, low, high)


class _Drawn:
    """Answers by an Optuna trial, and notes the answers."""

    def __init__(self, trial: optuna.Trial) -> None:
        self._trial = trial
        self.drawn: dict[str, Choice] = {}

    def one_of(self, name: str, options: tuple[T, ...]) -> T:
        answer: T = self._note(name, self._trial.suggest_categorical(name, options))
        return answer

    def number(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        value: float = self._note(name, self._trial.suggest_float(name, low, high, log=log))
        return value

    def integer(self, name: str, low: int, high: int) -> int:
        value: int = self._note(name, self._trial.suggest_int(name, low, high))
        return value

    def _note(self, name: str, value: Any) -> Any:
        if name in self.drawn:
            raise ConfigError(
                f"the space asks for {name!r} twice", "each name once", "give the second one another name"
            )
        self.drawn[name] = value
        return value
