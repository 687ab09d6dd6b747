"""Which execution providers ONNX Runtime is asked for, wherever the test runs."""

from __future__ import annotations

from pathlib import Path

import pytest
from serving_parts import write_onnx

from sentinode.bundle.onnx_model import OnnxModel
from sentinode.bundle.providers import check_in_use, providers_for
from sentinode.errors import ConfigError

CPU, CUDA, TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"
EVERY = (TENSORRT, CUDA, CPU)
PATCH = ("images", (96, 96, 3), 64)


@pytest.mark.parametrize(
    ("available", "asked", "expected"),
    [
        ((CPU,), "auto", [CPU]),
        (("AzureExecutionProvider", CPU), "auto", [CPU]),
        ((CUDA, CPU), "auto", [CUDA, CPU]),
        (EVERY, "auto", [CUDA, CPU]),
        (EVERY, "cpu", [CPU]),
        (EVERY, "cuda", [CUDA, CPU]),
        (EVERY, "tensorrt", [TENSORRT, CUDA, CPU]),
        ((TENSORRT, CPU), "tensorrt", [TENSORRT, CPU]),
    ],
)
def test_order(available: tuple[str, ...], asked: str, expected: list[str]) -> None:
    chosen = providers_for(available, asked, *PATCH)  # type: ignore[arg-type]
    assert [name for name, _ in chosen] == expected
    assert dict(chosen).get(CUDA, {"use_tf32": 0}) == {"use_tf32": 0}


def test_tensorrt_builds_one_engine_for_all_batches_in_float32() -> None:
    options = dict(providers_for(EVERY, "tensorrt", *PATCH))[TENSORRT]
    assert options == {
        "trt_fp16_enable": False,
        "trt_profile_min_shapes": "images:1x96x96x3",
        "trt_profile_opt_shapes": "images:64x96x96x3",
        "trt_profile_max_shapes": "images:64x96x96x3",
    }


@pytest.mark.parametrize("asked", ["cuda", "tensorrt"])
def test_missing_provider_is_named(asked: str) -> None:
    with pytest.raises(ConfigError, match=rf"(?s)no provider '{asked}'.*auto, cpu.*onnxruntime-gpu"):
        providers_for((CPU,), asked, *PATCH)  # type: ignore[arg-type]


def test_provider_that_did_not_start_is_no_quiet_change() -> None:
    check_in_use([CUDA, CPU], "cuda")
    check_in_use([CPU], "auto")
    with pytest.raises(ConfigError, match="could not start its provider 'tensorrt' and took CUDA"):
        check_in_use([CUDA, CPU], "tensorrt")


def test_model_runs_on_what_was_asked_for(tmp_path: Path) -> None:
    write_onnx(tmp_path / "model.onnx")
    assert OnnxModel(tmp_path / "model.onnx", provider="cpu").providers == (CPU,)
