"""Networks in figures, and the command that lists them."""

from __future__ import annotations

import json

import pytest
from torch import nn

from sentinode import cli
from sentinode.commands.models import listed
from sentinode.models.describe import receptive_field_px, summarise_model
from sentinode.models.families import (
    P4mDensenetConfig,
    SeedCnnConfig,
    TimmConfig,
    ValidCnnConfig,
    usual_preprocess,
)
from sentinode.models.window import WindowHead, WindowNet
from sentinode.recipes import RECIPES


def test_seed_cnn_by_hand() -> None:
    summary = summarise_model("seed", SeedCnnConfig(), usual_preprocess(SeedCnnConfig()))
    convolutions = 44**2 * 3 * 8 + 20**2 * 8 * 16 + 8**2 * 16 * 32 + 2**2 * 32 * 64
    assert summary.macs_per_patch == 9 * convolutions + 64 * 100 + 100 * 2
    assert (summary.parameters, summary.trained_parameters) == (31_230, 31_230)
    assert (summary.receptive_field_px, summary.dense_stride_px) == (96, None)


def test_valid_cnn_by_hand() -> None:
    config = ValidCnnConfig(widths=(2, 3), blocks=(1, 0), stem_kernel_px=4, tail_kernel_px=3, input_px=64)
    summary = summarise_model("valid", config, usual_preprocess(config))
    # 64 -> stem 31 -> block 29, 27 -> down 13 -> tail 11
    assert summary.receptive_field_px == 4 + 2 * (2 + 2 + 2) + 4 * 2
    assert summary.dense_stride_px == 4
    assert config.last_px == 11
    lifted = 31**2 * 16 * 3 * 16
    grouped = 16**2 * 9 * (29**2 + 27**2) + 16 * 24 * 9 * 13**2 + 24 * 256 * 9 * 11**2
    assert summary.macs_per_patch == lifted + grouped + 32 * 2


def test_p4m_densenet_sees_and_steps_as_its_layers_do() -> None:
    summary = summarise_model("p4m", P4mDensenetConfig(), usual_preprocess(P4mDensenetConfig()))
    assert (summary.receptive_field_px, summary.dense_stride_px) == (80, 16)


def test_a_frozen_timm_network_trains_its_head_and_sees_the_whole_patch() -> None:
    config = TimmConfig(name="resnet10t", mode="frozen")
    summary = summarise_model("probe", config, usual_preprocess(config))
    assert summary.trained_parameters == 2 * 512 + 2 < summary.parameters
    assert summary.receptive_field_px == 96


def test_a_branch_that_starts_at_zero_is_seen() -> None:
    convolution = nn.Conv2d(3, 4, 5)
    nn.init.zeros_(convolution.weight)
    head = WindowHead(4, 1, symmetric=False, pool="mean", dropout=0.0)
    assert receptive_field_px(WindowNet(convolution, head, input_px=9, stride_px=1), 9) == 5


def test_command_lists_families_and_recipes_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert {"seed-cnn", "p4m-densenet", "valid-cnn", "timm:resnet18", *RECIPES} == set(listed())
    assert cli.run_step("models", ["seed-cnn", "valid-cnn", "timm:resnet10t", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in shown] == ["seed-cnn", "valid-cnn", "timm:resnet10t"]
    assert [row["dense_stride_px"] for row in shown] == [None, 8, None]


def test_command_prints_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run_step("models", ["seed-cnn", "valid-cnn"]) == 0
    shown = capsys.readouterr().out
    assert "31,230" in shown
    assert "valid-cnn" in shown


@pytest.mark.parametrize(("name", "reason"), [("alexnet", "p4m-densenet"), ("timm:resnet81", "resnet18")])
def test_unknown_names_are_told_plainly(name: str, reason: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run_step("models", [name]) == 2
    assert reason in capsys.readouterr().err
