"""What a served model takes and gives, in the words of the protocol and of Triton's small extensions to it."""

from __future__ import annotations

from typing import Final

from sentinode import __version__
from sentinode.config import Frozen
from sentinode.errors import RequestError
from sentinode.schema import PATCH_PX
from sentinode.serving.catalogue import Catalogue, Model
from sentinode.serving.version import Version

IMAGES: Final = "images"
ENCODED: Final = "encoded_images"
_PLATFORM: Final = "onnxruntime_onnx"
_TRITON_TYPES: Final = {
    "UINT8": "TYPE_UINT8",
    "BYTES": "TYPE_STRING",
    "FP32": "TYPE_FP32",
    "BOOL": "TYPE_BOOL",
}


class TensorMetadata(Frozen):
    """A tensor; -1 is the number of patches."""

    name: str
    datatype: str
    shape: tuple[int, ...]


INPUTS: Final = (
    TensorMetadata(name=IMAGES, datatype="UINT8", shape=(-1, PATCH_PX, PATCH_PX, 3)),
    TensorMetadata(name=ENCODED, datatype="BYTES", shape=(-1,)),
)
"""One of them is sent: pixels (RGB), or JPEG, PNG and TIFF files."""
OUTPUTS: Final = tuple(
    TensorMetadata(name=name, datatype=datatype, shape=(-1,))
    for name, datatype in (
        ("probability", "FP32"),
        ("raw_probability", "FP32"),
        ("prevalence_adjusted_probability", "FP32"),
        ("verdict", "BYTES"),
        ("abstained", "BOOL"),
        ("flags", "BYTES"),
    )
)
"""As in ``PatchPrediction``: NaN where that is null; flags separated by commas."""
OUTPUT_NAMES: Final = tuple(output.name for output in OUTPUTS)


class ServerMetadata(Frozen):
    """The reply to ``GET /v2``."""

    name: str = "sentinode"
    version: str = __version__
    extensions: tuple[str, ...] = ("binary_tensor_data", "model_configuration", "model_repository(index)")


class ModelMetadata(Frozen):
    """The reply to ``GET /v2/models/{name}``."""

    name: str
    versions: tuple[str, ...]
    """Digests of the bundles that answer under this name; asked by digest, one answers alone."""
    platform: str = _PLATFORM
    inputs: tuple[TensorMetadata, ...] = INPUTS
    outputs: tuple[TensorMetadata, ...] = OUTPUTS


class ConfiguredInput(Frozen):
    """An input in Triton's model configuration."""

    name: str
    data_type: str
    dims: tuple[int, ...]
    optional: bool = True
    """One of the two is sent."""


class ConfiguredOutput(Frozen):
    """An output in Triton's model configuration."""

    name: str
    data_type: str
    dims: tuple[int, ...]


class ModelConfig(Frozen):
    """The reply to ``GET /v2/models/{name}/config``: the part of Triton's record that clients read."""

    name: str
    platform: str = _PLATFORM
    backend: str = "onnxruntime"
    max_batch_size: int = 0
    """0: the batch stands in ``dims``."""
    input: tuple[ConfiguredInput, ...] = tuple(
        ConfiguredInput(name=one.name, data_type=_TRITON_TYPES[one.datatype], dims=one.shape)
        for one in INPUTS
    )
    output: tuple[ConfiguredOutput, ...] = tuple(
        ConfiguredOutput(name=one.name, data_type=_TRITON_TYPES[one.datatype], dims=one.shape)
        for one in OUTPUTS
    )


class IndexEntry(Frozen):
    """One model in the reply to ``POST /v2/repository/index``."""

    name: str
    version: str
    state: str = "READY"
    reason: str = ""


def answering(model: Model) -> tuple[Version, ...]:
    """The versions whose answers are returned; a shadow's are not."""
    return tuple(version for version in (model.stable, model.canary) if version)


def found(catalogue: Catalogue, name: str, version: str = "") -> Model:
    """The model, of which ``version`` (a digest; ``""``: any) answers. Raises RequestError 404."""
    if not name:
        raise RequestError("the request names no model", ", ".join(catalogue.models), status=404)
    model = catalogue.find(name)
    pinned(model, version)
    return model


def chosen(catalogue: Catalogue, name: str, version: str, slide: bytes) -> tuple[Model, Version]:
    """The model and who of it answers. Raises RequestError 404."""
    model = found(catalogue, name, version)
    return model, pinned(model, version) or model.choose(slide)


def pinned(model: Model, version: str) -> Version | None:
    """The version with this digest; None for ``""``. Raises RequestError 404."""
    if not version:
        return None
    for one in answering(model):
        if one.bundle.digest == version:
            return one
    raise RequestError(
        "the model has no such version",
        ", ".join(one.bundle.digest for one in answering(model)),
        "versions are digests of bundles; name none, and the endpoint chooses",
        status=404,
    )


def metadata(model: Model, version: str = "") -> ModelMetadata:
    """What is said of a model, or of one of its versions."""
    one = pinned(model, version)
    every = (one,) if one else answering(model)
    return ModelMetadata(name=model.name, versions=tuple(v.bundle.digest for v in every))


def index(catalogue: Catalogue) -> list[IndexEntry]:
    """All models and versions that answer."""
    return [
        IndexEntry(name=model.name, version=version.bundle.digest)
        for model in catalogue.models.values()
        for version in answering(model)
    ]
