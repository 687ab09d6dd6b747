"""Spaces: every choice gives a recipe that can be trained, and records can be read back."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from search_parts import trial

from sentinode.errors import ConfigError
from sentinode.models.families import build_model
from sentinode.search.config import SearchConfig
from sentinode.search.records import TrialRecord, TrialState
from sentinode.search.sampler import Proposer, with_epochs
from sentinode.search.space import Choice, Choices, Space, every_choice, recipe_of
from sentinode.search.spaces import SPACES, space_called
from sentinode.training.config import Recipe, TrainConfig


def toy(choose: Choices) -> Recipe:
    """A space with a choice that depends on another."""
    if choose.one_of("optimizer", ("adam", "sgd")) == "sgd":
        return Recipe(train=TrainConfig(optimizer="sgd", lr=choose.one_of("sgd.lr", (0.1, 0.2, 0.3))))
    return Recipe(train=TrainConfig(batch_size=choose.integer("batch", 1, 2)))


TOY = Space("toy", toy)


@pytest.mark.parametrize("name", SPACES)
def test_each_draw_can_be_built_and_read_back(name: str) -> None:
    proposer = Proposer(space_called(name), SearchConfig(sampler="random", seed=1), 24)
    families = set()
    for number in range(25):
        proposed = proposer.propose(number)
        assert proposed is not None
        choices, recipe = proposed
        assert recipe_of(SPACES[name], choices) == recipe
        if number < 4:
            build_model(recipe.model, pretrained=False)
        families.add(recipe.model.family)
    assert len(families) >= 3 or name == "rates"


def test_the_first_trials_are_one_good_guess_of_each_family() -> None:
    proposer = Proposer(SPACES["two-core"], SearchConfig(), 24)
    drawn = [proposer.propose(number) for number in range(3)]
    assert [choices["family"] for choices, _ in filter(None, drawn)] == [
        "seed-cnn",
        "valid-cnn",
        "p4m-densenet",
    ]


def test_a_grid_holds_every_combination_once_and_then_ends() -> None:
    assert len(list(every_choice(TOY))) == 5
    proposer = Proposer(TOY, SearchConfig(sampler="grid", costs=()), 24)
    drawn = []
    while (proposed := proposer.propose(len(drawn))) is not None:
        drawn.append(tuple(sorted(proposed[0].items())))
    assert len(drawn) == len(set(drawn)) == 5
    assert {dict(row).get("sgd.lr") for row in drawn} == {None, 0.1, 0.2, 0.3}


def test_a_grid_of_numbers_has_no_end() -> None:
    with pytest.raises(ConfigError, match=r"asks for a number, adamw\.lr"):
        list(every_choice(SPACES["two-core"]))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, "'optimizer' is missing"),
        ({"optimizer": "lion"}, "optimizer is 'lion'"),
        ({"optimizer": "adam", "batch": 9}, "batch is 9"),
        ({"optimizer": "adam", "batch": 1, "depth": 3}, "does not ask for depth"),
    ],
)
def test_choices_that_do_not_fit_are_named(values: dict[str, str | int], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        recipe_of(TOY, values)


def test_an_unknown_space_is_named_with_those_there_are() -> None:
    with pytest.raises(ConfigError, match="two-core"):
        space_called("tow-core")


def flat(choose: Choices) -> Recipe:
    """A space without choices that depend on others."""
    train = TrainConfig(
        optimizer=choose.one_of("optimizer", ("adam", "sgd")), lr=choose.one_of("lr", (0.1, 0.2, 0.3))
    )
    return Recipe(train=train)


@pytest.mark.parametrize(
    ("sampler", "costs", "space"),
    [
        ("tpe", (), TOY),
        ("auto", ("latency",), TOY),
        ("nsga2", ("latency",), Space("flat", flat)),
    ],
)
def test_samplers_learn_from_what_they_are_told_also_of_a_former_process(
    sampler: str, costs: tuple[str, ...], space: Space
) -> None:
    """Where sgd at 0.3 is best, most of the later trials are sgd at 0.3."""
    config = SearchConfig.model_validate({"sampler": sampler, "costs": costs, "seed": 0})
    former = taught(Proposer(space, config, 24), 0, 60)
    resumed = Proposer(space, config, 24)
    for record in former:
        resumed.tell(record)
    drawn = taught(resumed, 60, 20)
    assert sum(is_best(record.choices) for record in drawn) > 6, "chance gives 3"


def is_best(choices: Mapping[str, Choice]) -> bool:
    return choices["optimizer"] == "sgd" and 0.3 in (choices.get("sgd.lr"), choices.get("lr"))


def taught(proposer: Proposer, first: int, count: int) -> list[TrialRecord]:
    """The next trials of ``proposer``, which is told of each before the next is drawn."""
    done = []
    for number in range(first, first + count):
        proposed = proposer.propose(number)
        assert proposed is not None
        choices, recipe = proposed
        auroc = 0.9 if is_best(choices) else 0.5
        done.append(trial(number, auroc, choices=choices, recipe=recipe))
        proposer.tell(done[-1])
    return done


def test_failed_trials_are_told_without_figures() -> None:
    proposer = Proposer(TOY, SearchConfig(), 24)
    proposed = proposer.propose(0)
    assert proposed is not None
    proposer.tell(trial(0, state=TrialState.FAILED, choices=proposed[0], recipe=proposed[1]))
    assert proposer.propose(1) is not None


def test_a_recipe_over_other_epochs_keeps_its_warm_up_in_proportion() -> None:
    recipe = Recipe(train=TrainConfig(epochs=10, warmup_epochs=2, early_stop_patience=8))
    train = with_epochs(recipe, 5).train
    assert (train.epochs, train.warmup_epochs, train.early_stop_patience) == (5, 1.0, 5)
