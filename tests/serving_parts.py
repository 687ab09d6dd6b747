"""Small real parts for the tests of bundles and serving: an ONNX detector, a card, encoded images."""

from __future__ import annotations

import asyncio
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import safetensors.numpy
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from sentinode.bundle.card import Card, OperatingPoint, Provenance
from sentinode.bundle.golden import Golden
from sentinode.bundle.onnx_model import OnnxModel
from sentinode.bundle.seal import seal
from sentinode.evaluation.calibrator import Calibration
from sentinode.serving.args import ServeArgs
from sentinode.serving.asgi import Endpoint
from sentinode.serving.auth import ApiKeys
from sentinode.storage import Store, open_store


def random_patches(count: int, seed: int = 0) -> NDArray[np.uint8]:
    """Coloured patches uint8 [count, 96, 96, 3], grainy enough to be in focus."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (count, 12, 12, 3), dtype=np.uint8)
    smooth = [np.asarray(Image.fromarray(c).resize((96, 96), Image.Resampling.BICUBIC)) for c in coarse]
    grain = rng.normal(0, 16, (count, 96, 96, 3))
    return np.clip(np.array(smooth).reshape(grain.shape) + grain, 0, 255).astype(np.uint8)


def encode(patch_HWC: NDArray[np.uint8], kind: str, **options: object) -> bytes:
    """The patch as a file of Pillow's format ``kind``."""
    buffer = io.BytesIO()
    Image.fromarray(patch_HWC).save(buffer, kind, **options)
    return buffer.getvalue()


def write_onnx(path: Path, seed: int = 0) -> None:
    """A tiny convolutional detector: ``images`` uint8 [B, 96, 96, 3] to ``logit`` float32 [B]."""
    rng = np.random.default_rng(seed)
    constants = {
        "scale": np.float32(1 / 255),
        "kernel": rng.normal(0, 0.5, (4, 3, 3, 3)).astype(np.float32),
        "weight": rng.normal(0, 4, (4, 1)).astype(np.float32),
        "bias": np.array([-0.2], np.float32),
        "flat": np.array([-1], np.int64),
        "space": np.array([2, 3], np.int64),
    }
    nodes = [
        helper.make_node("Cast", ["images"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["pixels", "scale"], ["unit"]),
        helper.make_node("Transpose", ["unit"], ["chw"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["chw", "kernel"], ["edges"], strides=[2, 2]),
        helper.make_node("Relu", ["edges"], ["active"]),
        helper.make_node("ReduceMean", ["active", "space"], ["pooled"], keepdims=0),
        helper.make_node("Gemm", ["pooled", "weight", "bias"], ["column"]),
        helper.make_node("Reshape", ["column", "flat"], ["logit"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["B", 96, 96, 3])],
        [helper.make_tensor_value_info("logit", TensorProto.FLOAT, ["B"])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())


def make_card(**changes: object) -> Card:
    """A card without files; ``changes`` replace fields."""
    fields: dict[str, object] = {
        "name": "tiny",
        "operating_points": (
            OperatingPoint(
                name="balanced", threshold=0.5, chosen_by="Youden on valid", sensitivity=0.8, specificity=0.7
            ),
            OperatingPoint(
                name="sensitive", threshold=0.0, chosen_by="sensitivity 1", sensitivity=1.0, specificity=0.0
            ),
        ),
        "default_operating_point": "balanced",
        "training": Provenance(
            dataset="tiny", manifest_digest="a" * 64, run_name="r", run_url="runs/r", code_commit="unknown"
        ),
        "metrics": {"valid": {"auroc": 0.9, "auroc_interval": [0.8, 0.95]}},
        "licence": "Apache-2.0",
        "golden_computed_by": "ONNX Runtime (CPU)",
    }
    return Card.model_validate({**fields, **changes})


@dataclass(frozen=True, eq=False)
class Parts:
    """What ``seal`` takes."""

    card: Card
    onnx_path: Path
    safetensors_path: Path
    golden: Golden

    def seal(self, store: Store, card: Card | None = None) -> str:
        return seal(
            store,
            card or self.card,
            onnx_path=self.onnx_path,
            safetensors_path=self.safetensors_path,
            golden=self.golden,
            model_card="# Model card: tiny\n",
        )


def make_parts(folder: Path, seed: int = 0, images_BHWC: NDArray[np.uint8] | None = None) -> Parts:
    """Files of a tiny model in ``folder`` and golden patches that ONNX Runtime computed."""
    folder.mkdir(parents=True, exist_ok=True)
    onnx_path, safetensors_path = folder / "model.onnx", folder / "model.safetensors"
    write_onnx(onnx_path, seed)
    safetensors.numpy.save_file({"weight": np.arange(4, dtype=np.float32)}, safetensors_path)
    images = random_patches(6, seed) if images_BHWC is None else images_BHWC
    golden = Golden.of(images, OnnxModel(onnx_path).logits(images), Calibration())
    return Parts(make_card(), onnx_path, safetensors_path, golden)


def sealed_registry(folder: Path) -> tuple[Store, str, Parts]:
    """A local registry below ``folder`` with one bundle: store, digest and the parts it was made of."""
    store = open_store(str(folder / "registry"))
    parts = make_parts(folder / "parts")
    return store, parts.seal(store), parts


def started_endpoint(
    store: Store, digest: str, keys: ApiKeys | None = None, *, local_alone: bool = False, **settings: object
) -> Endpoint:
    """The ASGI application over one bundle, without Ray."""
    args = ServeArgs.model_validate({"registry": store.url, "bundle": digest, **settings})
    endpoint = Endpoint(args, keys or ApiKeys(), local_alone=local_alone)
    asyncio.run(endpoint.reconfigure(args.first_traffic.model_dump(mode="json")))
    return endpoint
