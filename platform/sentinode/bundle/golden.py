"""Golden patches: a few images with the probabilities that the model must give for them, wherever it runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray
from safetensors import SafetensorError

from sentinode.errors import BundleError
from sentinode.evaluation.calibrator import Calibration
from sentinode.schema import PATCH_PX

GOLDEN_TOLERANCE: Final = 1e-5
"""Largest difference of a golden probability between sealing and any later run."""

_DTYPES: Final = {"images": np.uint8, "logits": np.float32, "probabilities": np.float64}


@dataclass(frozen=True, eq=False)
class Golden:
    """Golden patches and their outputs, computed offline when the bundle was sealed."""

    images_BHWC: NDArray[np.uint8]
    """[G, 96, 96, 3], RGB."""
    logits_B: NDArray[np.float32]
    """[G], before calibration."""
    probabilities_B: NDArray[np.float64]
    """[G], after calibration."""

    @classmethod
    def of(
        cls, images_BHWC: NDArray[np.uint8], logits_B: NDArray[np.floating], calibration: Calibration
    ) -> Golden:
        """Golden patches from images uint8 [G, 96, 96, 3] and the offline model's logits [G].

        Raises BundleError where shapes or dtypes do not fit or a logit is not finite.
        """
        logits = np.ascontiguousarray(logits_B, dtype=np.float32)
        golden = cls(np.ascontiguousarray(images_BHWC), logits, probabilities(logits, calibration))
        golden._check("the golden patches")
        return golden

    @classmethod
    def read(cls, path: Path) -> Golden:
        """Read ``golden.safetensors``. Raises BundleError where it is damaged or holds something else."""
        try:
            tensors = safetensors.numpy.load_file(path)
        except (SafetensorError, OSError) as error:
            raise BundleError(
                f"{path.name} cannot be read ({error})", "a safetensors file", "seal the bundle anew"
            ) from error
        if set(tensors) != set(_DTYPES):
            raise BundleError(
                f"{path.name} holds {', '.join(sorted(tensors)) or 'nothing'}",
                f"{', '.join(sorted(_DTYPES))}",
            )
        golden = cls(tensors["images"], tensors["logits"], tensors["probabilities"])
        golden._check(path.name)
        return golden

    def to_bytes(self) -> bytes:
        """The safetensors text; the same patches give the same bytes."""
        tensors = {"images": self.images_BHWC, "logits": self.logits_B, "probabilities": self.probabilities_B}
        return bytes(safetensors.numpy.save(tensors))

    def check_reproduced(self, probabilities_B: NDArray[np.float64], who: str) -> None:
        """Compare with what ``who`` computes now. Raises BundleError naming the patch that differs most."""
        difference = np.abs(probabilities_B - self.probabilities_B)
        worst = int(np.argmax(np.where(np.isnan(difference), np.inf, difference)))
        if not difference[worst] <= GOLDEN_TOLERANCE:
            raise BundleError(
                f"{who} gives golden patch {worst} the probability {probabilities_B[worst]:.7f}",
                f"{self.probabilities_B[worst]:.7f} to {GOLDEN_TOLERANCE:g}, as computed when it was sealed",
                "do not use this bundle here; compare runtime versions and devices, or export and seal anew",
            )

    def _check(self, where: str) -> None:
        count = len(self.images_BHWC)
        _check_array(where, "images", self.images_BHWC, (count, PATCH_PX, PATCH_PX, 3))
        _check_array(where, "logits", self.logits_B, (count,))
        _check_array(where, "probabilities", self.probabilities_B, (count,))
        if not (np.isfinite(self.logits_B).all() and np.isfinite(self.probabilities_B).all()):
            raise BundleError(f"{where}: an output is not finite", "finite logits and probabilities")


def probabilities(logits_B: NDArray[np.float32], calibration: Calibration) -> NDArray[np.float64]:
    """Calibrated probabilities float64 [B] of logits float32 [B], without overflow."""
    return calibration.probabilities(logits_B)


def _check_array(where: str, name: str, array: NDArray[Any], shape: tuple[int, ...]) -> None:
    if array.shape != shape or shape[0] == 0 or array.dtype != _DTYPES[name]:
        raise BundleError(
            f"{where}: {name} is {array.dtype} {list(array.shape)}",
            f"{np.dtype(_DTYPES[name])} {list(shape)} with at least one patch",
        )
