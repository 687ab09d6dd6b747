"""Group convolutions: golden against turning images by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from sentinode.models.convolution import Convolution, SymmetricBatchNorm, crop_to, fix_filters
from sentinode.models.families import P4mDensenetConfig, ValidCnnConfig, build_model, input_px
from sentinode.models.symmetry import SYMMETRIES, turn, turn_maps

EQUIVARIANT = [
    P4mDensenetConfig(),
    ValidCnnConfig(),
    ValidCnnConfig(norm="batch", pool="max"),
    ValidCnnConfig(input_px=80, blocks=(1, 1, 1), tail_kernel_px=2),
]


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def settle(net: nn.Module, images_BCHW: Tensor) -> nn.Module:
    """Batch norms take the statistics of ``images_BCHW``, and scales and shifts of their own: as after training."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.3)
    with torch.no_grad():
        net.train()(images_BCHW)
    return net.eval()


def test_the_eight_symmetries_are_those_of_the_square() -> None:
    square = torch.arange(9).view(3, 3)
    seen = {tuple(turn(square, code).flatten().tolist()) for code in range(SYMMETRIES)}
    by_hand = [square.rot90(times) for times in range(4)]
    assert seen == {tuple(s.flatten().tolist()) for s in (*by_hand, *(s.T for s in by_hand))}
    assert torch.equal(turn(square, 0), square)


@pytest.mark.parametrize("kernel_px", [1, 2, 3, 4])
@pytest.mark.parametrize("standardised", [False, True])
def test_lifting_is_a_convolution_with_each_turned_filter(kernel_px: int, standardised: bool) -> None:
    layer = Convolution("lift", 3, 5, kernel_px, standardised=standardised)
    plain = Convolution("plain", 3, 5, kernel_px, standardised=standardised)
    plain.load_state_dict(layer.state_dict())
    images = torch.randn(2, 3, 9, 9)
    for code in range(SYMMETRIES):
        expected = nn.functional.conv2d(images, turn(plain.filters(), code), plain.bias)
        found = layer(images).view(2, SYMMETRIES, 5, *expected.shape[2:])[:, code]
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("kernel_px", "stride_px"), [(1, 1), (2, 2), (3, 1), (3, 2), (4, 1)])
@pytest.mark.parametrize("code", range(SYMMETRIES))
def test_layers_turn_with_the_image(code: int, kernel_px: int, stride_px: int) -> None:
    lift = Convolution("lift", 3, 4, kernel_px=3)
    group = Convolution("group", 4, 6, kernel_px, stride_px, standardised=True)
    norm = SymmetricBatchNorm(6)
    px = 3 + kernel_px - 1 + 4 * stride_px
    images = torch.randn(2, 3, px, px)
    net = nn.Sequential(lift, nn.ReLU(), group, norm).train()
    maps = net(images)
    assert maps.abs().max() > 1
    torch.testing.assert_close(net(turn(images, code)), turn_maps(maps, code), atol=1e-5, rtol=0)


def test_norm_is_the_same_in_both_memory_orders_and_over_the_eight() -> None:
    maps = torch.randn(3, SYMMETRIES * 2, 5, 5) * 3 + 1
    norm = SymmetricBatchNorm(2)
    plain, last = norm(maps), norm(maps.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(plain, last)
    fields = plain.view(3, SYMMETRIES, 2, 5, 5)
    torch.testing.assert_close(fields.mean((0, 1, 3, 4)), torch.zeros(2), atol=1e-6, rtol=0)
    torch.testing.assert_close(fields.std((0, 1, 3, 4)), torch.ones(2), atol=1e-2, rtol=0)


def test_norm_in_evaluation_uses_what_it_saw() -> None:
    maps = torch.randn(4, SYMMETRIES * 3, 6, 6) * 2 - 1
    norm = SymmetricBatchNorm(3)
    norm.norm.momentum = 1.0
    trained = norm.train()(maps)
    torch.testing.assert_close(norm.eval()(maps), trained, atol=2e-3, rtol=0)


def test_crop_takes_the_centre() -> None:
    maps = torch.arange(49.0).view(1, 1, 7, 7)
    assert torch.equal(crop_to(maps, torch.empty(1, 1, 3, 3)), maps[:, :, 2:5, 2:5])


@pytest.mark.parametrize("config", EQUIVARIANT, ids=lambda c: f"{c.family}-{input_px(c)}")
def test_output_is_invariant_under_the_eight_symmetries(config: P4mDensenetConfig | ValidCnnConfig) -> None:
    images = torch.randn(4, 3, input_px(config), input_px(config))
    net = settle(build_model(config), images)
    with torch.no_grad():
        logits = net(images)
        assert logits.std(dim=0).min() > 1e-3, "the images must be told apart"
        for code in range(1, SYMMETRIES):
            torch.testing.assert_close(net(turn(images, code)), logits, atol=1e-5, rtol=0)


@pytest.mark.parametrize("config", EQUIVARIANT, ids=lambda c: f"{c.family}-{input_px(c)}")
def test_fixed_filters_give_the_same_output(config: P4mDensenetConfig | ValidCnnConfig) -> None:
    images = torch.randn(2, 3, input_px(config), input_px(config))
    net = settle(build_model(config), images)
    fixed = fix_filters(net)
    assert not any(isinstance(module, Convolution) for module in fixed.modules())
    assert any(isinstance(module, Convolution) for module in net.modules())
    with torch.no_grad():
        torch.testing.assert_close(fixed(images), net(images), atol=1e-6, rtol=1e-5)


def test_without_equivariance_the_output_changes() -> None:
    net = build_model(ValidCnnConfig(equivariant=False, widths=(8, 8, 8))).eval()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert (net(turn(images, 1)) - net(images)).abs().max() > 1e-4
