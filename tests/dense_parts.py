"""Bundles of real networks with a dense form, for tests of scoring slides."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from serving_parts import make_card, random_patches

from sentinode.bundle.golden import Golden
from sentinode.bundle.seal import seal
from sentinode.models.dense import export_dense_onnx
from sentinode.models.export import export_onnx
from sentinode.models.families import ModelConfig, ValidCnnConfig, build_model, usual_preprocess
from sentinode.models.preprocess import Detector, Preprocess
from sentinode.storage import Store

TINY = ValidCnnConfig(input_px=64, equivariant=False, widths=(4, 6), blocks=(1, 0), tail_width=8)


def detector(config: ModelConfig = TINY, *, tta: bool = False, seed: int = 0) -> Detector:
    """A detector of random weights whose logits spread widely enough to tell windows apart."""
    torch.manual_seed(seed)
    net = build_model(config, pretrained=False)
    for name, weight in net.named_parameters():
        if name.endswith("linear.weight"):
            torch.nn.init.normal_(weight, std=1.0)
    return Detector(Preprocess(usual_preprocess(config)), net, tta=tta).eval()


def seal_detector(store: Store, folder: Path, made: Detector, **card: object) -> str:
    """Seal ``made`` as promotion does, with the dense form where it has one; returns the digest."""
    folder.mkdir(parents=True, exist_ok=True)
    onnx, weights, dense = (folder / name for name in ("model.onnx", "model.safetensors", "dense.onnx"))
    export_onnx(made, onnx)
    geometry = export_dense_onnx(made, dense)
    save_file(made.net.state_dict(), weights)
    images: NDArray[np.uint8] = random_patches(6)
    with torch.inference_mode():
        logits = made(torch.from_numpy(images)).numpy()
    described = make_card(dense=geometry, **card)
    return seal(
        store,
        described,
        onnx_path=onnx,
        safetensors_path=weights,
        golden=Golden.of(images, logits, described.calibration),
        model_card="# Model card: tiny\n",
        dense_path=dense if geometry else None,
    )
