"""timm's networks: frozen backbones, weights from files, and errors without a network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from sentinode.errors import ConfigError
from sentinode.models.families import TimmConfig, build_model, count_parameters, model_from_json
from sentinode.models.timm_backbone import TimmDetector
from sentinode.training.batch_norm import join_batch_norms


@pytest.fixture(autouse=True)
def nothing_is_cached(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The hub is told to be out of reach, so that no test waits for it or finds it."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    torch.manual_seed(0)


def tiny(**values: Any) -> TimmConfig:
    return TimmConfig.model_validate({"name": "resnet10t", "input_px": 64} | values)


def step(net: torch.nn.Module) -> None:
    optimizer = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], lr=0.5)
    net.train()
    net(torch.randn(4, 3, 64, 64)).square().mean().backward()
    optimizer.step()


def changed(before: dict[str, torch.Tensor], net: torch.nn.Module) -> set[str]:
    return {name for name, value in net.state_dict().items() if not torch.equal(value, before[name])}


def test_a_frozen_backbone_stays_as_it_was() -> None:
    net = build_model(tiny(mode="frozen"))
    assert count_parameters(net) == 2 * 512 + 2
    before = {name: value.clone() for name, value in net.state_dict().items()}
    step(net)
    assert changed(before, net) == {"head.weight", "head.bias"}


def test_fine_tuning_changes_weights_and_batch_statistics() -> None:
    net = build_model(tiny())
    before = {name: value.clone() for name, value in net.state_dict().items()}
    step(net)
    moved = changed(before, net)
    assert any(name.endswith("running_mean") for name in moved)
    assert {"backbone.conv1.0.weight", "head.weight"} <= moved


@pytest.mark.parametrize("name", ["resnet10t", "mobilenetv3_small_050"])
def test_joined_over_gpus_a_network_computes_what_it_did(name: str) -> None:
    """timm's norms of the second hold its activations."""
    net, images = build_model(tiny(name=name)), torch.randn(2, 3, 64, 64)
    step(net)
    before, names = net.eval()(images), set(net.state_dict())
    joined = join_batch_norms(net, torch.device("cuda"))
    norms = [
        module for module in joined.modules() if isinstance(module, torch.nn.modules.batchnorm._BatchNorm)
    ]
    assert norms
    assert all(isinstance(norm, torch.nn.SyncBatchNorm) and norm.training for norm in norms)
    assert torch.equal(joined.eval()(images), before)
    assert set(joined.state_dict()) == names


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_norms_of_a_frozen_backbone_need_no_other_ranks(device: str) -> None:
    net = build_model(tiny(mode="frozen"))
    kinds = [type(module) for module in net.modules()]
    assert [type(module) for module in join_batch_norms(net, torch.device(device)).modules()] == kinds


def test_weights_of_a_file_are_loaded_and_its_head_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = build_model(tiny())
    assert isinstance(source, TimmDetector)
    tensors = source.backbone.state_dict() | {"fc.weight": torch.zeros(1000, 512)}
    save_file(tensors, tmp_path / "w.safetensors")
    monkeypatch.chdir(tmp_path)
    config = tiny(pretrained="file", weights_file="w.safetensors", mode="frozen")
    monkeypatch.chdir("/")  # as workers do
    assert model_from_json(config.canonical_json()) == config
    net = build_model(config)
    assert isinstance(net, TimmDetector)
    for name, value in net.backbone.state_dict().items():
        assert torch.equal(value, source.backbone.state_dict()[name])
    (tmp_path / "w.safetensors").unlink()
    build_model(config, pretrained=False)


def test_a_vit_takes_position_embeddings_of_another_size(tmp_path: Path) -> None:
    config = TimmConfig(name="vit_tiny_patch16_224", input_px=96, timm_kwargs={"depth": 1})
    source = build_model(config.model_copy(update={"input_px": 224}))
    assert isinstance(source, TimmDetector)
    save_file(source.backbone.state_dict(), tmp_path / "vit.safetensors")
    update = {"pretrained": "file", "weights_file": tmp_path / "vit.safetensors"}
    net = build_model(config.model_copy(update=update))
    assert net(torch.randn(2, 3, 96, 96)).shape == (2, 2)


def test_the_layers_of_foundation_models_are_given_by_name() -> None:
    """What UNI2-h's card says, in small."""
    sizes = {"depth": 2, "embed_dim": 48, "num_heads": 3, "mlp_ratio": 2.66667 * 2, "reg_tokens": 8}
    rest = {"init_values": 1e-5, "no_embed_class": True, "dynamic_img_size": True, "act_layer": "silu"}
    kwargs = sizes | rest | {"mlp_layer": "SwiGLUPacked"}
    config = TimmConfig(name="vit_tiny_patch16_224", input_px=224, timm_kwargs=kwargs)
    net = build_model(model_from_json(config.canonical_json()))
    gated = [module for module in net.modules() if type(module).__name__ == "GluMlp"]
    assert [type(module.act) for module in gated] == [torch.nn.SiLU] * 2
    assert not any(module.gate_last for module in gated)
    assert net.eval()(torch.zeros(1, 3, 224, 224)).shape == (1, 2)


def test_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    save_file({"conv1.0.weight": torch.zeros(24, 3, 3, 3)}, tmp_path / "part.safetensors")
    with pytest.raises(ConfigError, match="tensors are missing"):
        build_model(tiny(pretrained="file", weights_file=tmp_path / "part.safetensors"))
    save_file({"conv1.0.weight": torch.zeros(7, 3, 3, 3)}, tmp_path / "shape.safetensors")
    with pytest.raises(ConfigError, match="do not fit"):
        build_model(tiny(pretrained="file", weights_file=tmp_path / "shape.safetensors"))
    (tmp_path / "no.safetensors").write_bytes(b"nothing of the kind")
    with pytest.raises(ConfigError, match="cannot be read"):
        build_model(tiny(pretrained="file", weights_file=tmp_path / "no.safetensors"))


@pytest.mark.parametrize("name", ["w.bin", "w.pt", "w.pth", "w"])
def test_pickles_are_refused_before_they_are_opened(name: str) -> None:
    with pytest.raises(ConfigError, match="convert it once"):
        tiny(pretrained="file", weights_file=name)


@pytest.mark.parametrize("values", [{"pretrained": "file"}, {"weights_file": "w.safetensors"}])
def test_a_file_and_the_wish_for_it_go_together(values: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="set both or neither"):
        tiny(**values)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"name": "resnet81"}, "resnet18"),
        ({"name": "resnet18.nope"}, "a1_in1k"),
        ({"pretrained": "hub"}, "hub cannot be reached"),
        ({"name": "hf-hub:MahmoodLab/UNI"}, "hub cannot be reached"),
        ({"name": "hf-hub:a/b/c"}, "owner/name"),
        ({"timm_kwargs": {"depht": 2}}, "timm_kwargs"),
        ({"timm_kwargs": {"mlp_layer": "ConvMlp"}}, "SwiGLUPacked"),
        ({"timm_kwargs": {"global_pool": ""}}, "one vector"),
        ({"name": "maxvit_tiny_rw_224", "input_px": 100}, "input_px"),
    ],
)
def test_what_cannot_be_built_is_told_plainly(values: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        build_model(tiny(**values))
