"""Opening a bundle of the registry, verified; ``bundle/seal.py`` writes one.

A bundle is ``bundles/<digest>/`` with ``model.onnx``, ``model.safetensors``, ``golden.safetensors``,
``model_card.md`` for people and ``card.json`` for programs, and for some networks ``dense.onnx``, which scores
whole tiles of slides, or ``model.int8.onnx``, which is smaller and less exact. The card is written last, so a bundle
without one does not exist. The digest is the SHA-256 of ``card.json``.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sentinode.bundle.card import PICKLE_SUFFIXES, Card, FileRecord
from sentinode.bundle.golden import Golden
from sentinode.bundle.onnx_scan import check_graph
from sentinode.errors import (
    BundleError,
    IntegrityError,
    ManifestError,
    ObjectNotFoundError,
)
from sentinode.storage import Store

CARD_NAME: Final = "card.json"
ONNX_NAME: Final = "model.onnx"
WEIGHTS_NAME: Final = "model.safetensors"
GOLDEN_NAME: Final = "golden.safetensors"
MODEL_CARD_NAME: Final = "model_card.md"
FILE_NAMES: Final = (ONNX_NAME, WEIGHTS_NAME, GOLDEN_NAME, MODEL_CARD_NAME)
DENSE_NAME: Final = "dense.onnx"
INT8_NAME: Final = "model.int8.onnx"
OPTIONAL_NAMES: Final = (DENSE_NAME, INT8_NAME)

_MOST_BYTES: Final = {
    CARD_NAME: 4 << 20,
    MODEL_CARD_NAME: 4 << 20,
    GOLDEN_NAME: 64 << 20,
    ONNX_NAME: 2 << 30,
    DENSE_NAME: 2 << 30,
    INT8_NAME: 2 << 30,
    WEIGHTS_NAME: 16 << 30,
}
"""Larger files are refused before they are fetched; ONNX, being a protocol buffer, ends at 2 GiB."""

_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, eq=False)
class Bundle:
    """A verified bundle on the local disk."""

    digest: str
    card: Card
    golden: Golden
    folder: Path

    @property
    def onnx_path(self) -> Path:
        """The graph: ``images`` uint8 [B, 96, 96, 3] to ``logit`` float32 [B]."""
        return self.folder / ONNX_NAME

    @property
    def dense_path(self) -> Path | None:
        """The graph for tiles of slides, described by ``card.dense``; None where the network has no such form."""
        return self.folder / DENSE_NAME if DENSE_NAME in self.card.files else None

    @property
    def int8_path(self) -> Path | None:
        """The same as int8, at the loss of AUROC that ``card.int8`` states; None where it was not made."""
        return self.folder / INT8_NAME if INT8_NAME in self.card.files else None

    @property
    def safetensors_path(self) -> Path:
        """The weights, for PyTorch."""
        return self.folder / WEIGHTS_NAME


def is_digest(text: str) -> bool:
    """Whether ``text`` has the form of a bundle digest (64 lower-case hex digits)."""
    return _DIGEST.fullmatch(text) is not None


def bundle_prefix(digest: str) -> str:
    """The key below which the registry keeps a bundle. Raises BundleError where ``digest`` is none."""
    if not is_digest(digest):
        raise BundleError(f"{digest!r} is no bundle digest", "64 lower-case hex digits (SHA-256 of the card)")
    return f"bundles/{digest}/"


def read_card(store: Store, digest: str) -> Card:
    """The card of a bundle, checked against its digest, without the other files.

    Raises BundleError where the registry has no such bundle or the card is not the one that was sealed.
    """
    key = bundle_prefix(digest) + CARD_NAME
    return Card.from_json(_card_bytes(store, key, digest), store.locate(key))


def open_bundle(store: Store, digest: str, folder: Path) -> Bundle:
    """Download bundle ``digest`` into ``folder/<digest>`` and verify it: card, file list, sizes, SHA-256 of
    each file, and that its graphs need nothing but themselves (``onnx_scan``).

    Files that are there already and intact are not fetched again. The golden patches are read here and *run*
    by the engine, on the machine that will answer; ``open_verified`` runs them at once.

    Raises BundleError naming what differs, StoreError where the store fails.
    """
    prefix = bundle_prefix(digest)
    key = prefix + CARD_NAME
    card_bytes = _card_bytes(store, key, digest)
    try:
        card = Card.from_json(card_bytes, store.locate(key))
    except ManifestError as error:
        raise BundleError(error.found, error.expected, error.remedy) from error
    _check_names(store, prefix, card)
    target = folder / digest
    target.mkdir(parents=True, exist_ok=True)
    for name, record in card.files.items():
        _fetch(store, prefix + name, target / name, record)
        if name.endswith(".onnx"):
            check_graph((target / name).read_bytes(), name)
    (target / CARD_NAME).write_bytes(card_bytes)
    return Bundle(digest, card, Golden.read(target / GOLDEN_NAME), target)


def _card_bytes(store: Store, key: str, digest: str) -> bytes:
    info = store.stat(key)
    if info is None:
        raise BundleError(
            f"there is no bundle {digest} in {store.url}",
            f"{store.locate(key)}",
            "check digest and registry; a seal that was killed before the card was written must be repeated",
        )
    _check_size(store.locate(key), CARD_NAME, info.size_bytes)
    data = store.get(key)
    found = hashlib.sha256(data).hexdigest()
    if found != digest:
        raise BundleError(
            f"{store.locate(key)} has SHA-256 {found}",
            digest,
            "the card was changed after sealing: do not use it; seal the bundle anew",
        )
    return data


def _check_names(store: Store, prefix: str, card: Card) -> None:
    if set(card.files) - set(OPTIONAL_NAMES) != set(FILE_NAMES):
        raise BundleError(
            f"the card lists {', '.join(sorted(card.files)) or 'no files'}",
            f"{', '.join(FILE_NAMES)}, and of {', '.join(OPTIONAL_NAMES)} any",
        )
    for name, record in card.files.items():
        _check_size(store.locate(prefix + name), name, record.size_bytes)
    present = {info.key.removeprefix(prefix) for info in store.list(prefix)}
    for name in sorted(present - {*card.files, CARD_NAME}):
        kind = (
            "may hold pickled code and" if Path(name).suffix.lower() in PICKLE_SUFFIXES else "is a file that"
        )
        raise BundleError(
            f"{store.locate(prefix + name)} {kind} is not on the card",
            f"{', '.join(card.files)} and {CARD_NAME}, nothing else",
            "find out who put it there; remove it or seal the bundle anew",
        )


def _check_size(where: str, name: str, size_bytes: int) -> None:
    if size_bytes > _MOST_BYTES[name]:
        raise BundleError(
            f"{where} has {size_bytes} bytes",
            f"at most {_MOST_BYTES[name]} for {name}",
            "find out who made this bundle; do not use it",
        )


def _fetch(store: Store, key: str, path: Path, record: FileRecord) -> None:
    if path.is_file() and path.stat().st_size == record.size_bytes and sha256_of(path) == record.sha256:
        return
    try:
        store.download(key, path, sha256=record.sha256, size_bytes=record.size_bytes)
    except ObjectNotFoundError as error:
        raise BundleError(f"{store.locate(key)} is missing", "the file that the card lists") from error
    except IntegrityError as error:
        raise BundleError(
            error.found,
            f"{record.size_bytes} bytes with SHA-256 {record.sha256}, as the card promises",
            "the file was damaged or changed after sealing: do not use it; seal the bundle anew",
        ) from error


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
