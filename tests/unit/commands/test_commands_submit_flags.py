"""Whose a flag of `sentinode submit` is: the job's, or the step's that it runs."""

from __future__ import annotations

import importlib
from typing import get_args

import pytest

from sentinode.cli import parse
from sentinode.commands.submit import FLAGS, Step, SubmitCommand, defaults


def parsed(*arguments: str) -> SubmitCommand:
    base, rest = defaults(arguments)
    return parse(FLAGS, "submit", rest, base)[0]


@pytest.mark.parametrize("flag", ["--name", "--job-name"])
def test_a_job_is_named(flag: str) -> None:
    config = parsed("train", "--data", "d", flag, "first")
    assert (config.job_name, config.arguments) == ("first", ("--data", "d"))


def test_the_name_on_the_card_is_promotes() -> None:
    config = parsed("promote", "--name", "MyModel", "--job-name", "first", "--run", "r")
    assert (config.job_name, config.arguments) == ("first", ("--name", "MyModel", "--run", "r"))


@pytest.mark.parametrize("step", get_args(Step))
def test_no_step_has_a_flag_that_submit_takes(step: str) -> None:
    theirs = set(importlib.import_module(f"sentinode.commands.{step}").FLAGS.model_fields)
    assert not theirs & (set(SubmitCommand.model_fields) - {"step", "arguments"})
    assert ("name" in theirs) == (step == "promote")
