"""The model as a server sees it: patches in, probabilities and verdicts out. Knows nothing of HTTP or Ray."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from sentinode.bundle.bundle import Bundle
from sentinode.bundle.card import OperatingPoint
from sentinode.bundle.golden import probabilities
from sentinode.bundle.onnx_model import LARGEST_CALL, OnnxModel
from sentinode.bundle.providers import Provider
from sentinode.bundle.verify import check_int8
from sentinode.errors import ConfigError, RequestError

logger = logging.getLogger(__name__)

Precision = Literal["float", "int8"]
"""Which graph of the bundle answers."""
_CPU_CALL: Final = 32
"""Patches in one call of the model on a CPU: their activations stay in its caches, which those of 64 do not; of 16, a
large batch would have to wait for the interpreter lock twice as often."""


@dataclass(frozen=True, eq=False)
class Scores:
    """What the model says about B patches."""

    logits_B: NDArray[np.float32]
    probabilities_B: NDArray[np.float64]
    """Of class 1, after the bundle's calibration."""

    def are_numbers(self) -> bool:
        """Whether each patch got a score: a graph may overflow on patches that nobody has tried."""
        return bool(np.isfinite(self.logits_B).all())


class Engine:
    """ONNX Runtime over one bundle, with ``threads`` threads a call; safe to call from several threads.

    Starting it warms the session up and runs the golden patches, each alone and all at once: BundleError
    where a probability differs from the sealed one by more than ``GOLDEN_TOLERANCE``. With ``precision`` int8 the
    bundle's int8 graph answers, which may be as far off as ``card.int8`` says (``check_int8``): ConfigError where the
    bundle has none. Operating points and calibration stay those of the float graph. ``operating_point``
    names the threshold for verdicts (the card's default for None): ConfigError where the card has no such
    point. ``provider`` is what computes: ConfigError where ONNX Runtime does not have it.
    """

    def __init__(
        self,
        bundle: Bundle,
        threads: int = 1,
        operating_point: str | None = None,
        precision: Precision = "float",
        provider: Provider = "auto",
    ) -> None:
        point = bundle.card.operating_point(operating_point)
        if point is None:
            raise ConfigError(
                f"bundle {bundle.digest} has no operating point {operating_point!r}",
                "one of " + ", ".join(p.name for p in bundle.card.operating_points),
            )
        self.bundle = bundle
        self.operating_point: OperatingPoint = point
        self._precision = precision
        if precision == "int8":
            self._model = _int8_model(bundle, threads, provider)
        else:
            self._model = OnnxModel(bundle.onnx_path, threads, provider=provider)
        is_cpu = self._model.providers[0] == "CPUExecutionProvider"
        self._largest_call = _CPU_CALL if is_cpu else LARGEST_CALL
        if precision == "float":
            self._check_golden()

    def _check_golden(self) -> None:
        golden = self.bundle.golden
        one_by_one = [self.predict(image[None]).probabilities_B[0] for image in golden.images_BHWC]
        golden.check_reproduced(np.array(one_by_one), f"{self.runtime}, batch of one,")
        golden.check_reproduced(self.predict(golden.images_BHWC).probabilities_B, self.runtime)

    @property
    def runtime(self) -> str:
        """The execution provider that answers, for people."""
        return f"ONNX Runtime ({self._model.providers[0]}, {self._precision})"

    def predict(self, images_BHWC: NDArray[np.uint8]) -> Scores:
        """Score patches uint8 [B, 96, 96, 3], RGB; large batches go through the model in parts that fit its caches."""
        most = self._largest_call
        if len(images_BHWC) <= most:
            logits_B = self._model.logits(images_BHWC)
        else:
            starts = range(0, len(images_BHWC), most)
            logits_B = np.concatenate([self._model.logits(images_BHWC[s : s + most]) for s in starts])
        return Scores(logits_B, probabilities(logits_B, self.bundle.card.calibration))

    def fault(self) -> RequestError:
        """The error for patches to which the model gives no number: NaN would be read as a negative. It is logged."""
        logger.error("bundle %s gives a patch a score that is no number", self.bundle.digest)
        return RequestError(
            "the model gives a patch a score that is no number",
            remedy="tell the operator: the endpoint's log names the bundle",
            status=500,
        )

    def verdict(self, probability: float) -> str:
        """The class name for one probability at the engine's operating point."""
        return self.bundle.card.class_names[probability >= self.operating_point.threshold]


def _int8_model(bundle: Bundle, threads: int, provider: Provider) -> OnnxModel:
    facts, path = bundle.card.int8, bundle.int8_path
    if facts is None or path is None:
        raise ConfigError(
            f"bundle {bundle.digest} has no int8 graph",
            "a bundle sealed with --int8",
            "leave precision out, or promote the run anew with --int8",
        )
    model = OnnxModel(path, threads, provider=provider)
    check_int8(model, facts, bundle.golden, bundle.card.calibration)
    logger.info("int8: AUROC %.4f on validation, %+.4f against float", facts.auroc, -facts.auroc_loss)
    return model
