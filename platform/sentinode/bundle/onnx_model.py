"""A detector as ONNX Runtime runs it: uint8 patches in, tumour logits out."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, cast

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from sentinode.bundle.onnx_scan import check_graph
from sentinode.bundle.providers import Provider, check_in_use, providers_for
from sentinode.errors import BundleError
from sentinode.schema import PATCH_PX

INPUT_NAME: Final = "images"
OUTPUT_NAME: Final = "logit"
LARGEST_CALL: Final = 64
"""Patches in one call of the model that fit its caches; TensorRT takes no more."""


class OnnxModel:
    """One ONNX Runtime session over ``path``; safe to call from several threads.

    The graph takes ``images`` uint8 [B, 96, 96, 3] and gives ``logit`` float32 [B]. ``threads`` is the number
    of threads of one call; ``sizes_vary`` and ``provider`` as for ``load_session``. Raises BundleError where the file
    is no such graph, ConfigError where the provider is not there.
    """

    def __init__(
        self, path: Path, threads: int = 1, *, sizes_vary: bool = False, provider: Provider = "auto"
    ) -> None:
        self._session = load_session(path, threads, sizes_vary=sizes_vary, provider=provider)
        _check_signature(self._session, path.name)

    @property
    def providers(self) -> tuple[str, ...]:
        """The execution providers in use, e.g. ``CPUExecutionProvider``."""
        return tuple(self._session.get_providers())

    def logits(self, images_BHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Tumour logits float32 [B] of patches uint8 [B, 96, 96, 3]."""
        (logits_B,) = self._session.run([OUTPUT_NAME], {INPUT_NAME: images_BHWC})
        return cast("NDArray[np.float32]", logits_B)


def load_session(path: Path, threads: int, *, sizes_vary: bool = False, provider: Provider = "auto") -> Any:
    """An ONNX Runtime session over ``path``, on the GPU where there is one. Raises BundleError.

    ``sizes_vary``: for inputs of many sizes, each of which would otherwise keep a block of memory of its own.
    ``provider``: what must compute; ConfigError where it is not there. TensorRT takes patches alone.
    """
    providers = providers_for(
        onnxruntime.get_available_providers(), provider, INPUT_NAME, (PATCH_PX, PATCH_PX, 3), LARGEST_CALL
    )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.enable_mem_pattern = not sizes_vary
    # Spinning threads would take the cores that decode the next batch.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    data = path.read_bytes()
    check_graph(data, path.name)
    try:
        # From bytes, not by path: what was checked is what is loaded.
        session = onnxruntime.InferenceSession(data, options, providers=providers)
    except Exception as error:
        raise BundleError(
            f"ONNX Runtime {onnxruntime.__version__} cannot load {path.name} ({_first_line(error)})",
            "one self-contained ONNX file without external data",
            "export it anew (torch.onnx.export(..., external_data=False))",
        ) from error
    check_in_use(session.get_providers(), provider)
    return session


def _check_signature(session: Any, name: str) -> None:
    inputs = [(i.name, i.type, len(i.shape), i.shape[1:]) for i in session.get_inputs()]
    outputs = [(o.name, o.type, len(o.shape)) for o in session.get_outputs()]
    if inputs != [(INPUT_NAME, "tensor(uint8)", 4, [PATCH_PX, PATCH_PX, 3])]:
        raise BundleError(
            f"{name} takes {inputs}", f"one input {INPUT_NAME}: uint8 [B, {PATCH_PX}, {PATCH_PX}, 3]"
        )
    if outputs != [(OUTPUT_NAME, "tensor(float)", 1)]:
        raise BundleError(f"{name} gives {outputs}", f"one output {OUTPUT_NAME}: float32 [B]")


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
