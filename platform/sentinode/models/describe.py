"""What a network costs and what it sees, measured on the network itself."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from sentinode.config import Frozen
from sentinode.models.families import ModelConfig, build_model, count_parameters, input_px
from sentinode.models.preprocess import PreprocessConfig
from sentinode.models.seed_cnn import SeedCNN
from sentinode.models.timm_backbone import TimmDetector
from sentinode.models.window import WindowNet
from sentinode.schema import PATCH_PX

_TRIES = 8


class ModelSummary(Frozen):
    """A network in figures."""

    name: str
    family: str
    parameters: int
    """All weights."""
    trained_parameters: int
    """Those that training changes."""
    macs_per_patch: int
    """Multiplications with addition for one patch, in convolutions, linear layers and attention."""
    input_px: int
    """Side of the network's input."""
    receptive_field_px: int
    """Side of the square of patch pixels that one position of the last feature map depends on, cut at the patch.
    Pooling over the map then sees all that its positions see."""
    dense_stride_px: int | None
    """Where one pass over a large tile equals patch-by-patch scoring: distance of the windows in pixels of the
    input; else none."""


def summarise_model(name: str, config: ModelConfig, preprocess: PreprocessConfig) -> ModelSummary:
    """Build the network of ``config``, with random weights, and measure it behind ``preprocess``.

    The receptive field is the support of the gradient of the last feature map's central position, over some
    random images. Raises ConfigError where the network cannot be built.
    """
    net = build_model(config, pretrained=False).eval()
    trained = count_parameters(net)
    px = input_px(config)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(torch.zeros(1, 3, px, px))
    scale = 1.0 if preprocess.fit == "crop" else PATCH_PX / px
    return ModelSummary(
        name=name,
        family=config.family,
        parameters=sum(weight.numel() for weight in net.parameters()),
        trained_parameters=trained,
        macs_per_patch=counter.get_total_flops() // 2,
        input_px=px,
        receptive_field_px=round(receptive_field_px(net, px) * scale),
        dense_stride_px=net.stride_px if isinstance(net, WindowNet) else None,
    )


def receptive_field_px(net: nn.Module, px: int) -> int:
    """Side, in pixels of the input of ``px``, of what the last feature map's central position depends on.

    Changes the weights of ``net``.
    """
    for weight in net.parameters():
        # Branches that start at zero would hide what they see.
        weight.requires_grad_(True)
        if not weight.any():
            nn.init.ones_(weight)
    noise = torch.Generator().manual_seed(0)
    images_BCHW = torch.randn(_TRIES, 3, px, px, generator=noise).requires_grad_()
    with torch.enable_grad():
        centre = _centre_of_last_map(net, images_BCHW)
        if centre is None:
            return px
        (gradient,) = torch.autograd.grad(centre.sum(), images_BCHW)
    seen_HW = gradient.abs().sum(dim=(0, 1)) > 0
    spans = [torch.nonzero(seen_HW.any(dim=axis)).flatten() for axis in (0, 1)]
    return max(int(span.max() - span.min()) + 1 for span in spans)


def _centre_of_last_map(net: nn.Module, images_BCHW: Tensor) -> Tensor | None:
    """Features at one position; none where every position sees all (attention between tokens)."""
    if isinstance(net, WindowNet | SeedCNN):
        maps: Tensor = net.features(images_BCHW)
    elif isinstance(net, TimmDetector):
        maps = net.backbone.forward_features(images_BCHW)  # type: ignore[operator]
        if maps.ndim == 4 and getattr(net.backbone, "output_fmt", "NCHW") == "NHWC":
            maps = maps.permute(0, 3, 1, 2)
    else:
        return None
    if maps.ndim != 4:
        return None
    centre: Tensor = maps[:, :, maps.shape[2] // 2, maps.shape[3] // 2]
    return centre
