"""Sealing: a model's parts become an immutable bundle of the registry, named by the digest of its card."""

from __future__ import annotations

import hashlib
import logging
import tempfile
from pathlib import Path

import safetensors

from sentinode.bundle.bundle import (
    CARD_NAME,
    DENSE_NAME,
    GOLDEN_NAME,
    INT8_NAME,
    MODEL_CARD_NAME,
    ONNX_NAME,
    WEIGHTS_NAME,
    bundle_prefix,
    sha256_of,
)
from sentinode.bundle.card import Card, FileRecord
from sentinode.bundle.dense_model import DenseModel
from sentinode.bundle.golden import Golden, probabilities
from sentinode.bundle.onnx_model import OnnxModel
from sentinode.bundle.pins import pinned
from sentinode.bundle.verify import check_int8
from sentinode.errors import BundleError, IntegrityError, PreconditionFailedError
from sentinode.storage import Store

logger = logging.getLogger(__name__)


def seal(
    store: Store,
    card: Card,
    *,
    onnx_path: Path,
    safetensors_path: Path,
    golden: Golden,
    model_card: str,
    dense_path: Path | None = None,
    int8_path: Path | None = None,
) -> str:
    """Write a bundle into the registry ``store`` and return its digest; ``card.files`` is filled in here.

    ``model_card`` is the same in Markdown, for people. ``dense_path`` is the graph for tiles of slides that
    ``card.dense`` describes, ``int8_path`` the int8 graph whose cost ``card.int8`` states.

    Before anything is written, ONNX Runtime must load the graph and reproduce the golden probabilities to
    ``GOLDEN_TOLERANCE``, and the dense graph must score a tile as the patch graph scores its patches. Sealing the
    same content again changes nothing and returns the same digest; a run that was killed in between is completed, and
    a file that was damaged is replaced.

    Raises BundleError where a part is damaged or the parts do not fit together, StoreError where the store
    fails.
    """
    logits_B = OnnxModel(onnx_path).logits(golden.images_BHWC)
    golden.check_reproduced(probabilities(logits_B, card.calibration), "the exported ONNX graph")
    _check_safetensors(safetensors_path)
    paths = {ONNX_NAME: onnx_path, WEIGHTS_NAME: safetensors_path}
    if (dense_path is None) != (card.dense is None):
        raise BundleError("a card and a dense graph of which one is missing", "both or neither")
    if dense_path is not None and card.dense is not None:
        DenseModel(dense_path, card.dense).check_equals(OnnxModel(onnx_path), golden.images_BHWC)
        paths[DENSE_NAME] = dense_path
    if (int8_path is None) != (card.int8 is None):
        raise BundleError("a card and an int8 graph of which one is missing", "both or neither")
    if int8_path is not None and card.int8 is not None:
        check_int8(OnnxModel(int8_path), card.int8, golden, card.calibration)
        paths[INT8_NAME] = int8_path
    made = {GOLDEN_NAME: golden.to_bytes(), MODEL_CARD_NAME: model_card.encode()}
    files = {
        **{name: _file_record(path) for name, path in paths.items()},
        **{
            name: FileRecord(sha256=hashlib.sha256(data).hexdigest(), size_bytes=len(data))
            for name, data in made.items()
        },
    }
    card_bytes = card.model_copy(update={"files": files}).canonical_json()
    digest = hashlib.sha256(card_bytes).hexdigest()
    prefix = bundle_prefix(digest)
    with pinned(store, digest):
        for name, path in paths.items():
            if not _is_intact(store, prefix + name, files[name]):
                store.upload(path, prefix + name)
        for name, data in made.items():
            if not _is_intact(store, prefix + name, files[name]):
                store.put(prefix + name, data)
        _put_card(store, prefix + CARD_NAME, card_bytes)
    logger.info("sealed bundle %s (%s) in %s", digest, card.name, store.url)
    return digest


def _put_card(store: Store, key: str, card_bytes: bytes) -> None:
    try:
        store.put(key, card_bytes, if_none_match=True)
    except PreconditionFailedError:
        if store.get(key) != card_bytes:
            raise BundleError(
                f"{store.locate(key)} exists with other content",
                "the card that this digest names",
                "it was changed after sealing: remove that bundle and seal anew",
            ) from None


def _is_intact(store: Store, key: str, record: FileRecord) -> bool:
    """Whether the registry holds the file as the card says; one of the right size is read, for it may be damaged."""
    info = store.stat(key)
    if info is None or info.size_bytes != record.size_bytes:
        return False
    with tempfile.TemporaryDirectory(prefix="sentinode-seal-") as folder:
        try:
            store.download(key, Path(folder, "file"), sha256=record.sha256, size_bytes=record.size_bytes)
        except IntegrityError:
            return False
    return True


def _check_safetensors(path: Path) -> None:
    try:
        with safetensors.safe_open(path, framework="numpy") as tensors:
            names = tuple(tensors.keys())
    except (safetensors.SafetensorError, OSError) as error:
        raise BundleError(f"{path} cannot be read ({error})", "the weights as a safetensors file") from error
    if not names:
        raise BundleError(f"{path} holds no tensor", "the weights of the model")


def _file_record(path: Path) -> FileRecord:
    return FileRecord(sha256=sha256_of(path), size_bytes=path.stat().st_size)
