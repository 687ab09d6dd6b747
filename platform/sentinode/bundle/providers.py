"""On what ONNX Runtime computes: the execution providers to ask it for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Literal

from sentinode.errors import ConfigError

Provider = Literal["auto", "cpu", "cuda", "tensorrt"]
"""``auto``: CUDA where ONNX Runtime has it, else the CPU. TensorRT builds its engine for minutes at each start, so
it is for who asks.
"""
_CPU: Final = "CPUExecutionProvider"
_CUDA: Final = "CUDAExecutionProvider"
_TENSORRT: Final = "TensorrtExecutionProvider"
_NAMES: Final = {"cpu": _CPU, "cuda": _CUDA, "tensorrt": _TENSORRT}
_REMEDY: Final = "install onnxruntime-gpu in place of onnxruntime, and what it needs, or leave provider out"


def providers_for(
    available: Sequence[str], asked: Provider, input_name: str, shape_HWC: Sequence[int], max_batch: int
) -> list[tuple[str, dict[str, Any]]]:
    """Names and options in the order in which ONNX Runtime tries them; nodes that the first cannot run go to the next.

    ``available`` is what ``onnxruntime.get_available_providers`` says. TensorRT gets one profile for batches of 1 to
    ``max_batch`` of the input ``input_name`` uint8 [B, *shape_HWC], or it would build an engine for each size of
    batch. Options: https://onnxruntime.ai/docs/execution-providers/. Raises ConfigError where the one that was asked
    for is not there.
    """
    if asked != "auto" and _NAMES[asked] not in available:
        have = ", ".join(name for name, provider in _NAMES.items() if provider in available)
        raise ConfigError(f"this ONNX Runtime has no provider {asked!r}", f"one of: auto, {have}", _REMEDY)
    # TensorFloat-32 keeps ten bits of mantissa: golden patches would differ by more than their tolerance.
    cuda: tuple[str, dict[str, Any]] = (_CUDA, {"use_tf32": 0})
    chosen: list[tuple[str, dict[str, Any]]] = []
    if asked == "tensorrt":
        sizes = {"min": 1, "opt": max_batch, "max": max_batch}
        shape = "x".join(map(str, shape_HWC))
        profile = {f"trt_profile_{k}_shapes": f"{input_name}:{n}x{shape}" for k, n in sizes.items()}
        chosen.append((_TENSORRT, {"trt_fp16_enable": False, **profile}))
    if asked in ("auto", "cuda", "tensorrt") and _CUDA in available:
        chosen.append(cuda)
    return [*chosen, (_CPU, {})]


def check_in_use(in_use: Sequence[str], asked: Provider) -> None:
    """Raise ConfigError where ONNX Runtime quietly took another than the one that was asked for."""
    if asked != "auto" and in_use[0] != _NAMES[asked]:
        raise ConfigError(
            f"ONNX Runtime could not start its provider {asked!r} and took {in_use[0]}",
            "a GPU, its driver, and the libraries of the provider in the versions that onnxruntime-gpu wants",
            _REMEDY,
        )
