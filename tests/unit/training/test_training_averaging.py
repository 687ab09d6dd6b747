"""EMA and SWA against their definitions, and batch statistics of an average."""

from __future__ import annotations

import torch
from torch import nn

from sentinode.models.families import TimmConfig, build_model
from sentinode.training.averaging import build_average, refresh_statistics, update_ema, update_swa
from sentinode.training.config import AveragingConfig, TrainConfig


def net_of(value: float) -> nn.Linear:
    net = nn.Linear(1, 1)
    with torch.no_grad():
        for weight in net.parameters():
            weight.fill_(value)
    return net


def test_ema_forgets_its_start_and_then_decays() -> None:
    config = AveragingConfig(kind="ema", ema_decay=0.5)
    net = net_of(0.0)
    average = build_average(config, net)
    assert average is not None
    expected = 0.0
    for step, value in enumerate([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0]):
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * value
        update_ema(average, net_of(value), config, step)
    assert abs(float(average.weight.detach()) - expected) < 1e-6


def test_swa_is_the_mean_of_the_last_epochs() -> None:
    config = TrainConfig(epochs=8, averaging=AveragingConfig(kind="swa", swa_from=0.5))
    average = build_average(config.averaging, net_of(0.0))
    assert average is not None
    began = [update_swa(average, net_of(float(epoch)), config, epoch) for epoch in range(8)]
    assert began == [False] * 4 + [True] * 4
    assert abs(float(average.weight.detach()) - (4 + 5 + 6 + 7) / 4) < 1e-6


def test_statistics_are_taken_anew() -> None:
    net = nn.Sequential(nn.BatchNorm2d(3))
    batches = [torch.randn(16, 3, 4, 4, generator=torch.Generator().manual_seed(i)) * 2 + i for i in range(5)]
    refresh_statistics(net, batches)
    torch.testing.assert_close(net[0].running_mean, torch.stack([b.mean((0, 2, 3)) for b in batches]).mean(0))
    assert not net.training
    assert net[0].momentum == 0.1


def test_statistics_of_a_frozen_backbone_stay() -> None:
    average = build_model(TimmConfig(name="resnet10t", input_px=32, mode="frozen"))
    for norm in average.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.running_mean.normal_()
    before = {name: value.clone() for name, value in average.state_dict().items()}
    refresh_statistics(average, [torch.randn(4, 3, 32, 32)])
    for name, value in average.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


def test_no_average_is_none_and_without_batch_norm_no_data_is_read() -> None:
    assert build_average(AveragingConfig(), net_of(1.0)) is None

    def never() -> torch.Tensor:
        raise AssertionError("read")
        yield

    refresh_statistics(net_of(1.0), never())
