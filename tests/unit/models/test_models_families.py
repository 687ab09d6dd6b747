"""Families of networks: configurations, sizes, dense scoring, ONNX."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from pydantic import ValidationError
from test_models_symmetry import settle

from sentinode.errors import ConfigError
from sentinode.models.export import INPUT_NAME, OUTPUT_NAME, export_onnx
from sentinode.models.families import (
    ModelConfig,
    P4mDensenetConfig,
    SeedCnnConfig,
    TimmConfig,
    ValidCnnConfig,
    build_model,
    count_parameters,
    input_px,
    model_from_json,
    usual_preprocess,
)
from sentinode.models.preprocess import Detector, Preprocess
from sentinode.models.window import WindowNet

PLAIN = ValidCnnConfig(equivariant=False, widths=(8, 16, 16), norm="batch")
OWN: list[ModelConfig] = [
    SeedCnnConfig(dropout=0.1),
    P4mDensenetConfig(),
    ValidCnnConfig(),
    ValidCnnConfig(input_px=76, norm="batch", blocks=(1, 2, 0), second_kernel_px=1),
    PLAIN,
]
FAMILIES = [*OWN, TimmConfig(name="vit_tiny_patch16_224", timm_kwargs={"init_values": 1e-5, "depth": 2})]


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def label(config: ModelConfig) -> str:
    return f"{config.family}-{input_px(config)}"


@pytest.mark.parametrize("config", FAMILIES, ids=label)
def test_configurations_survive_their_json(config: ModelConfig) -> None:
    assert model_from_json(config.canonical_json()) == config


@pytest.mark.parametrize(
    "text", ['{"family": "alexnet"}', '{"dropout": 0.1}', '{"family": "timm", "depth": 3}']
)
def test_unknown_families_and_settings_are_refused(text: str) -> None:
    with pytest.raises(ValidationError):
        model_from_json(text)


@pytest.mark.parametrize("config", FAMILIES, ids=label)
def test_networks_map_images_to_two_logits(config: ModelConfig) -> None:
    px = input_px(config)
    net = build_model(config)
    logits = net(torch.randn(3, 3, px, px))
    assert logits.shape == (3, 2)
    logits.sum().backward()
    assert all(p.grad is not None for p in net.parameters())
    assert usual_preprocess(config).input_px == px


def test_the_same_seed_gives_the_same_network() -> None:
    for config in OWN:
        states = []
        for _ in range(2):
            torch.manual_seed(3)
            states.append(build_model(config).state_dict())
        assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_p4m_densenet_has_the_size_of_the_published_one() -> None:
    assert count_parameters(build_model(P4mDensenetConfig())) == pytest.approx(119_000, rel=0.01)


def test_equivariance_shares_weights() -> None:
    shared = build_model(ValidCnnConfig())
    plain = build_model(ValidCnnConfig(equivariant=False, widths=(32, 64, 128), tail_width=256))
    assert count_parameters(plain) > 7 * count_parameters(shared)


@pytest.mark.parametrize("config", [c for c in OWN if not isinstance(c, SeedCnnConfig)], ids=label)
@pytest.mark.parametrize(("rows", "columns"), [(3, 2), (1, 4)])
def test_one_pass_over_a_tile_equals_scoring_patch_by_patch(
    config: ModelConfig, rows: int, columns: int
) -> None:
    px = input_px(config)
    net = build_model(config)
    assert isinstance(net, WindowNet)
    settle(net, torch.randn(4, 3, px, px))
    step = net.stride_px
    tile = torch.randn(1, 3, px + (rows - 1) * step, px + (columns - 1) * step + step // 2)
    patches = torch.cat(
        [
            tile[:, :, i * step : i * step + px, j * step : j * step + px]
            for i in range(rows)
            for j in range(columns)
        ]
    )
    with torch.no_grad():
        dense = net.dense(tile)
        assert dense.shape == (1, 2, rows, columns)
        one_by_one = net(patches).T.reshape(1, 2, rows, columns)
    assert one_by_one.std() > 1e-3
    torch.testing.assert_close(dense, one_by_one, atol=1e-4, rtol=0)


@pytest.mark.parametrize("norm", ["weights", "batch"])
def test_activations_neither_vanish_nor_explode(norm: Any) -> None:
    config = ValidCnnConfig(blocks=(2, 2, 0), input_px=96, norm=norm)
    net = build_model(config).train()
    maps = net.features(torch.randn(8, 3, 96, 96))  # type: ignore[operator, union-attr]
    assert 0.2 < maps.std() < 5


def test_patches_do_not_depend_on_their_batch_with_standardised_weights() -> None:
    net = build_model(ValidCnnConfig(dropout=0.0)).train()
    images = torch.randn(6, 3, 64, 64)
    torch.testing.assert_close(net(images)[:2], net(images[:2]), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"input_px": 66}, "set model.input_px to 64 or 72"),
        ({"widths": (4, 8)}, "one of each"),
        ({"widths": (4, 0, 8)}, "positive widths"),
        ({"blocks": (99, 99, 99)}, "fewer or smaller layers"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(values: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        ValidCnnConfig.model_validate(values)


@pytest.mark.parametrize(
    ("config", "tta"),
    [*((config, False) for config in FAMILIES), (SeedCnnConfig(), True), (PLAIN, True)],
    ids=lambda value: str(value) if isinstance(value, bool) else label(value),
)
def test_onnx_equals_pytorch(config: ModelConfig, tta: bool, tmp_path: Path) -> None:
    px = input_px(config)
    net = settle(build_model(config), torch.randn(4, 3, px, px))
    detector = Detector(Preprocess(usual_preprocess(config)), net, tta=tta)
    export_onnx(detector, tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    for count in (1, 3):
        images = np.random.default_rng(count).integers(0, 256, (count, 96, 96, 3), dtype=np.uint8)
        (found,) = session.run([OUTPUT_NAME], {INPUT_NAME: images})
        with torch.no_grad():
            expected = detector(torch.from_numpy(images)).numpy()
        np.testing.assert_allclose(found, expected, atol=1e-4)
