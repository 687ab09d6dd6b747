"""Any network of timm as a backbone with a linear head: ResNet, ConvNeXt, ViT, and the pathology foundation models
that are published for timm.

Weights come from safetensors files only, a local one or the hub's: nothing is ever unpickled.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import torch
from pydantic import AfterValidator, Field, model_validator
from torch import Tensor, nn

from sentinode.config import Frozen
from sentinode.errors import ConfigError
from sentinode.models.dropout import SampleDropout
from sentinode.models.pretrained import HUB_PREFIX, fetch_hub_file, load_backbone, read_safetensors

TimmArgument = int | float | bool | str
MLP_LAYERS = ("Mlp", "GluMlp", "SwiGLU", "SwiGLUPacked")
"""Classes of timm.layers that ``mlp_layer`` may name; timm itself takes the class only."""
LocalFile = Annotated[Path, AfterValidator(lambda path: path.expanduser().absolute())]
"""A file of this machine, named so that processes with another working directory find it."""


class TimmConfig(Frozen):
    """A network of timm with a linear head of two classes."""

    family: Literal["timm"] = "timm"
    """The architecture's source."""
    name: str = "resnet18"
    """timm's name, a tag of its weights after a dot; or hf-hub:<owner>/<model>, whose description is fetched."""
    pretrained: Literal["no", "file", "hub"] = "no"
    """Weights to start from: random ones, those of weights_file, or those that the hub keeps for this name."""
    weights_file: LocalFile | None = None
    """A safetensors file with the backbone's weights under timm's names, which every machine that trains has at the
    same place; a head within it is left out."""
    mode: Literal["fine-tune", "frozen"] = "fine-tune"
    """fine-tune: all weights are trained. frozen: only the head; the backbone is as in evaluation throughout."""
    input_px: int = Field(default=96, ge=32, le=448)
    """Side of the input in pixels; foundation models expect 224."""
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Share of the backbone's features silenced in training, never in evaluation."""
    timm_kwargs: dict[str, TimmArgument] = Field(default_factory=dict)
    """Further arguments of timm's create_model, such as init_values or dynamic_img_size; where a model's card says
    mlp_layer=SwiGLUPacked, act_layer=SiLU, give "SwiGLUPacked" and "silu". Dropout within the
    backbone (drop_rate, drop_path_rate) is off unless asked for here; its noise is torch's, so that runs with it
    are not the same on another number of workers."""

    @model_validator(mode="after")
    def _check_weights(self) -> Self:
        if (self.pretrained == "file") != (self.weights_file is not None):
            raise ConfigError(
                f"pretrained is {self.pretrained} and weights_file is {self.weights_file or 'not given'}",
                "a weights_file with pretrained=file, and only then",
                "set both or neither",
            )
        if self.weights_file is not None and self.weights_file.suffix != ".safetensors":
            raise ConfigError(
                f"the weights file {self.weights_file}",
                "a .safetensors file; others are pickles, which can run code when they are read",
                "convert it once where it is trusted: torch.load(..., weights_only=True), then "
                "safetensors.torch.save_file",
            )
        return self


class TimmDetector(nn.Module):
    """Backbone, dropout and a linear layer: preprocessed float images_BCHW -> logits_BK [B, 2].

    A frozen backbone takes no gradients and stays in evaluation mode, batch statistics included, whatever
    ``train`` is told.
    """

    def __init__(self, backbone: nn.Module, fields: int, *, dropout: float, frozen: bool) -> None:
        super().__init__()
        self.backbone = backbone.requires_grad_(not frozen)
        self.dropout = SampleDropout(dropout, fields)
        self.head = nn.Linear(fields, 2)
        self.frozen = frozen
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        if self.frozen:
            self.backbone.eval()
        return self

    def forward(self, images_BCHW: Tensor) -> Tensor:
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            features_BC = self.backbone(images_BCHW)
        logits_BK: Tensor = self.head(self.dropout(features_BC))
        return logits_BK


def build_timm(config: TimmConfig, *, pretrained: bool = True) -> TimmDetector:
    """The network of ``config``, with the weights it asks to start from unless ``pretrained`` is False.

    Raises ConfigError where timm has no such network or not with these arguments, and where weights are
    missing, do not fit or cannot be fetched.
    """
    backbone = _create(config)
    if pretrained and config.weights_file is not None:
        load_backbone(backbone, read_safetensors(config.weights_file), str(config.weights_file))
    elif pretrained and config.pretrained == "hub":
        repository = _hub_repository(config, backbone)
        weights = fetch_hub_file(repository, "model.safetensors")
        load_backbone(backbone, read_safetensors(weights), f"{HUB_PREFIX}{repository}")
    fields = _feature_fields(backbone, config)
    return TimmDetector(backbone, fields, dropout=config.dropout, frozen=config.mode == "frozen")


def over_gpus(norm: nn.modules.batchnorm._BatchNorm) -> nn.Module:
    """``norm`` with the statistics of all GPUs' batches; weights and names stay.

    timm's norms have dropout and activation within, which torch's own conversion would leave out.
    """
    from timm.layers import convert_sync_batchnorm

    joined: nn.Module = convert_sync_batchnorm(norm)
    return joined


def hub_licence(name: str) -> str:
    """The licence of the published weights ``name`` as timm tells it, ``unknown`` where it does not."""
    import timm

    described = None if name.startswith(HUB_PREFIX) else timm.get_pretrained_cfg(name)
    return str(getattr(described, "license", None) or "unknown")


def _create(config: TimmConfig) -> nn.Module:
    # Here, for it takes seconds to import, and most runs and all servers do without.
    import timm

    name, arguments = config.name, _timm_arguments(config)
    if name.startswith(HUB_PREFIX):
        name = f"local-dir:{fetch_hub_file(name.removeprefix(HUB_PREFIX), 'config.json').parent}"
        fixed_size = "img_size" not in config.timm_kwargs
    else:
        _check_name(name)
        fixed_size = bool(timm.get_pretrained_cfg_value(name, "fixed_input_size"))
    sizes = ({"img_size": config.input_px}, {}) if fixed_size else ({},)
    for size in sizes:
        try:
            net: nn.Module = timm.create_model(name, pretrained=False, num_classes=0, **size, **arguments)
        except (TypeError, ValueError, AssertionError, RuntimeError) as error:
            fault = error
        else:
            return net
    raise ConfigError(
        f"timm cannot build {config.name} with {config.timm_kwargs or 'its own settings'} for images of "
        f"{config.input_px} pixels ({fault})",
        "arguments and an input size that the network takes",
        "change model.timm_kwargs or model.input_px",
    ) from fault


def _timm_arguments(config: TimmConfig) -> dict[str, Any]:
    from timm import layers

    arguments: dict[str, Any] = dict(config.timm_kwargs)
    mlp = arguments.get("mlp_layer")
    if mlp is None:
        return arguments
    if mlp not in MLP_LAYERS:
        raise ConfigError(
            f"the mlp_layer {mlp!r}", f"one of {', '.join(MLP_LAYERS)}", "change model.timm_kwargs"
        )
    return arguments | {"mlp_layer": getattr(layers, mlp)}


def _check_name(name: str) -> None:
    import timm

    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        close = difflib.get_close_matches(architecture, timm.list_models(), n=4)
        raise ConfigError(
            f"timm has no network {name!r}",
            f"one of timm's, such as {', '.join(close or ['resnet18', 'convnext_tiny'])}",
            "choose another model.name",
        )
    known = [n.partition(".")[2] for n in timm.list_pretrained(f"{architecture}.*")]
    if tag and tag not in known:
        raise ConfigError(
            f"timm has no weights {tag!r} for {architecture}",
            f"one of {', '.join(known) or 'none: the name without a tag'}",
            "choose another model.name",
        )


def _hub_repository(config: TimmConfig, backbone: nn.Module) -> str:
    if config.name.startswith(HUB_PREFIX):
        return config.name.removeprefix(HUB_PREFIX)
    described = getattr(backbone, "pretrained_cfg", {})
    repository = described.get("hf_hub_id")
    if not repository:
        raise ConfigError(
            f"the hub keeps no weights for {config.name}",
            "a network that was published with weights",
            "set model.pretrained to no, or give a model.weights_file",
        )
    return str(repository)


def _feature_fields(backbone: nn.Module, config: TimmConfig) -> int:
    """Number of features that the backbone gives for an image. Raises ConfigError where the image does not fit."""
    was_training = backbone.training
    try:
        with torch.no_grad():
            features = backbone.eval()(torch.zeros(1, 3, config.input_px, config.input_px))
    except (AssertionError, RuntimeError, ValueError) as error:
        raise ConfigError(
            f"{config.name} takes no images of {config.input_px} pixels ({error})",
            "the size that it was made for, 224 for most foundation models",
            "set model.input_px and preprocess.input_px",
        ) from error
    backbone.train(was_training)
    if not (isinstance(features, Tensor) and features.ndim == 2):
        raise ConfigError(
            f"{config.name} with {config.timm_kwargs or 'its own settings'} gives "
            f"{list(getattr(features, 'shape', ())) or type(features).__name__} for an image",
            "features pooled to one vector: [1, fields]",
            "change model.timm_kwargs, its global_pool say",
        )
    return int(features.shape[1])
