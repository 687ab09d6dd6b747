"""The card of a bundle: what the model is, what it was made from, how to read its output, checksums."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Annotated, Final, Self

from pydantic import Field, JsonValue, StringConstraints, model_validator

from sentinode.bundle.int8 import Int8Facts
from sentinode.bundle.scores import ScoreReference
from sentinode.bundle.stain import StainStatistics
from sentinode.config import Frozen, Record
from sentinode.evaluation.calibrator import Calibration
from sentinode.evaluation.guarantee import Guarantee
from sentinode.models.dense_geometry import DenseGeometry
from sentinode.schema import CLASS_NAMES, PATCH_MPP_UM_PX, PATCH_PX, RESEARCH_USE_ONLY

PICKLE_SUFFIXES: Final = frozenset(
    {".pkl", ".pickle", ".pt", ".pth", ".ckpt", ".bin", ".joblib", ".dill", ".npy", ".npz"}
)
"""Formats that can carry pickled objects: loading one runs its author's code; no bundle holds them."""

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Probability = Annotated[float, Field(ge=0.0, le=1.0)]


class OperatingPoint(Frozen):
    """A threshold chosen on validation, and what it gave there."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")
    threshold: Probability
    """A probability (after calibration) at or above it is a positive verdict."""
    chosen_by: str
    """The rule in words, e.g. ``largest specificity at sensitivity >= 0.95 on valid``."""
    sensitivity: Probability
    """On the validation split."""
    specificity: Probability
    """On the validation split."""
    guarantee: Guarantee | None = None
    """What is promised of the sensitivity on new data; None for points that aim at none."""


class Provenance(Frozen):
    """What the weights were made from."""

    dataset: str
    manifest_digest: Sha256
    """Digest of the manifest of the training data."""
    run_name: str
    run_url: str
    """Folder of the training run: run.json, metrics, checkpoints, predictions."""
    code_commit: str
    """Git commit of the code that trained it; ``unknown`` outside a checkout."""
    versions: dict[str, str] = Field(default={})
    """Package name to version, at training time."""


class FileRecord(Frozen):
    """One file of a bundle."""

    sha256: Sha256
    size_bytes: int = Field(gt=0)


class Card(Record):
    """Everything a user or a server must know about a bundle.

    ``card.json`` is the canonical JSON of this record, so the bundle's digest is the SHA-256 of that file. It
    holds the checksums of all other files and no time or path of the machine that sealed it: same content,
    same digest.
    """

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_.-]{0,62}$")
    class_names: tuple[str, str] = CLASS_NAMES
    """Verdicts below and at or above the threshold."""
    patch_px: int = PATCH_PX
    """Input is RGB, uint8 [B, patch_px, patch_px, 3]; the graph preprocesses by itself."""
    mpp_um_px: float = Field(default=PATCH_MPP_UM_PX, gt=0.0)
    """Microns per pixel of the patches it was trained on."""
    preprocess: dict[str, JsonValue] = Field(default={})
    """Settings of the preprocessing inside the graph (input size, fit, mean, deviation), for readers."""
    operating_points: tuple[OperatingPoint, ...] = Field(min_length=1)
    default_operating_point: str
    calibration: Calibration = Calibration()
    training: Provenance
    metrics: dict[str, dict[str, JsonValue]] = Field(default={})
    """Split (valid, test) to measure to value or interval."""
    test_uses: int = Field(default=0, ge=0)
    """How often the model had been measured on its test split when the bundle was sealed: 1 is as it should be."""
    stain: StainStatistics | None = None
    """Colours of the training patches, to tell patches that are stained unlike them; None on old cards."""
    scores: ScoreReference | None = None
    """Probabilities on validation, to measure drift against; None on old cards."""
    dense: DenseGeometry | None = None
    """The windows of ``dense.onnx``, which scores whole tiles of slides; None where the network has no such form."""
    licence: str
    """Of the weights, e.g. ``Apache-2.0, trained on CC0 data``."""
    int8: Int8Facts | None = None
    """What ``model.int8.onnx`` costs; None where the bundle has no such file."""
    start_licence: str | None = None
    """Of the weights that training started from; None for random ones, and on old cards."""
    notice: str = RESEARCH_USE_ONLY
    golden_computed_by: str
    """The program whose probabilities the golden patches carry, e.g. ``PyTorch 2.10 (CPU)``."""
    files: dict[str, FileRecord] = Field(default={})
    """File name to checksum and size; filled by ``seal``."""

    @model_validator(mode="after")
    def _contradiction_free(self) -> Self:
        names = [point.name for point in self.operating_points]
        if len(set(names)) < len(names):
            raise ValueError(f"operating points share a name: {', '.join(names)}")
        if self.default_operating_point not in names:
            raise ValueError(
                f"default_operating_point {self.default_operating_point!r} is none of {', '.join(names)}"
            )
        for name in self.files:
            if PurePosixPath(name).name != name or name.startswith("."):
                raise ValueError(f"{name!r} is not a plain file name")
            if PurePosixPath(name).suffix.lower() in PICKLE_SUFFIXES:
                raise ValueError(f"{name} may hold pickled code; a bundle holds ONNX and safetensors")
        return self

    def operating_point(self, name: str | None = None) -> OperatingPoint | None:
        """The operating point called ``name`` (the default one for None), or None where there is none."""
        wanted = self.default_operating_point if name is None else name
        return next((point for point in self.operating_points if point.name == wanted), None)
