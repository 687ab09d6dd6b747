"""A manifest for shards that others wrote, such as ``webdataset.ShardWriter``, so that the loader reads
them.
"""

from __future__ import annotations

import hashlib
import mmap
import tempfile
from collections.abc import Iterable
from pathlib import Path

from sentinode.data.decode import image_of, label_of
from sentinode.data.manifest import Dropped, Manifest, ShardRecord, SplitSummary
from sentinode.data.tar_index import scan_tar
from sentinode.errors import ManifestError
from sentinode.schema import Encoding, Split
from sentinode.storage import Store

_ENCODING_OF = {"jpg": Encoding.JPEG, "jpeg": Encoding.JPEG, "webp": Encoding.WEBP}


def foreign_manifest(
    store: Store, keys: Iterable[str], *, dataset: str = "foreign", split: Split = Split.TRAIN
) -> Manifest:
    """Read each tar in ``store`` once and describe it: samples, size, SHA-256, classes.

    A sample is an image member (npy uint8 [96, 96, 3], jpg, jpeg, webp, png, tif, tiff or bmp), a ``cls``
    member with 0 or 1 where it is labelled, and a ``json`` member where more is known. Images of lossless
    kinds are entered as npy without a layout; what decodes a sample is its member's suffix. Raises
    IntegrityError for a damaged or truncated tar, ManifestError where there is none.
    """
    records = [_describe(store, key, split) for key in keys]
    if not records:
        raise ManifestError(f"no shards in {store.url}", "the keys of at least one tar")
    counts = (sum(r.class_counts[0] for r in records), sum(r.class_counts[1] for r in records))
    samples = sum(r.samples for r in records)
    return Manifest(
        dataset=dataset,
        source="foreign shards",
        slides_known=False,
        split_seed=0,
        splits={split: SplitSummary(samples=samples, class_counts=counts, slides=None, origin="source")},
        dropped=Dropped(),
        shards=tuple(records),
    )


def _describe(store: Store, key: str, split: Split) -> ShardRecord:
    where = store.locate(key)
    with tempfile.TemporaryDirectory(prefix="sentinode-foreign-") as folder:
        path = Path(folder) / "shard.tar"
        store.download(key, path)
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            with mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped, memoryview(mapped) as tar:
                entries = scan_tar(tar, where)
                suffixes = [image_of(entry, where)[0] for entry in entries]
                labels = [label_of(tar, entry, where) for entry in entries]
        size_bytes = path.stat().st_size
    if not entries:
        raise ManifestError(f"{where} holds no sample", "at least one image")
    return ShardRecord(
        name=key,
        split=split,
        samples=len(entries),
        size_bytes=size_bytes,
        sha256=sha256,
        encoding=_ENCODING_OF.get(suffixes[0], Encoding.NPY),
        class_counts=(labels.count(0), labels.count(1)),
    )
