"""Endless readers, each yielding how many patches it has just delivered in random order as batches of 256."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from data_sets import write_litdata, write_mosaicml
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from sentinode.data.augment import AugmentConfig, augment
from sentinode.data.cache import ShardCache
from sentinode.data.loader import LoaderConfig, PatchLoader
from sentinode.data.manifest import Manifest
from sentinode.schema import Split
from sentinode.storage import Store

BATCH = 256
_COPY_PATCHES = 16_384


def ours(manifest: Manifest, store: Store, cache: Path, config: LoaderConfig) -> Iterator[int]:
    """This project's loader."""
    with PatchLoader(
        manifest,
        store,
        Split.TRAIN,
        batch_size=BATCH,
        training=True,
        cache=ShardCache(store, cache),
        config=config,
    ) as loader:
        epoch = 0
        while True:
            for batch in loader.epoch(epoch):
                yield len(batch.labels_B)
            epoch += 1


def memory_copy() -> Iterator[int]:
    """The limit: batches copied from one end of memory to another, in order."""
    source = torch.randint(0, 256, (_COPY_PATCHES, 96, 96, 3), dtype=torch.uint8)
    batch = torch.empty((BATCH, 96, 96, 3), dtype=torch.uint8)
    while True:
        for start in range(0, _COPY_PATCHES, BATCH):
            batch.copy_(source[start : start + BATCH])
            yield BATCH


def webdataset_default(folder: Path, names: list[str], suffix: str) -> Iterator[int]:
    """The pipeline of webdataset's own examples: shuffle buffer, Pillow's decoders, tuples, batches."""
    import webdataset

    urls = [str(folder / name) for name in names]
    decoder = [] if suffix == "npy" else ["rgb8"]
    pipeline = (
        webdataset.WebDataset(urls, shardshuffle=len(urls))
        .shuffle(1000)
        .decode(*decoder)
        .to_tuple(suffix, "cls")
        .batched(BATCH, partial=False)
    )
    while True:
        for images, _ in pipeline:
            yield len(images)


class ImageFiles(Dataset[tuple[torch.Tensor, int]]):
    """One JPEG file a patch, by Pillow."""

    def __init__(self, paths: list[Path]) -> None:
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        path = self.paths[index]
        with Image.open(path) as image:
            return torch.from_numpy(np.array(image.convert("RGB"))), int(path.parent.name)


class Hdf5(Dataset[tuple[torch.Tensor, int]]):
    """PCam's HDF5, sample by sample."""

    def __init__(self, path: Path) -> None:
        import h5py

        self.file = h5py.File(path)

    def __len__(self) -> int:
        return len(self.file["x"])

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return torch.from_numpy(self.file["x"][index]), int(self.file["y"][index, 0, 0, 0])


def image_files(paths: list[Path]) -> Iterator[int]:
    """A torch DataLoader over JPEG files."""
    return _torch_loader(ImageFiles(paths))


def hdf5(path: Path) -> Iterator[int]:
    """A torch DataLoader over PCam's HDF5."""
    return _torch_loader(Hdf5(path))


def _torch_loader(dataset: Dataset[Any]) -> Iterator[int]:
    """In this process: all readers here have one core."""
    loader = DataLoader(dataset, batch_size=BATCH, shuffle=True, drop_last=True)
    while True:
        for images, _ in loader:
            yield len(images)


def litdata_jpeg(paths: list[Path], folder: Path) -> Iterator[int]:
    """litdata's streaming data set of these JPEG files (ImportError where it is not installed)."""
    import litdata

    write_litdata(paths, folder)
    dataset = litdata.StreamingDataset(str(folder), shuffle=True, drop_last=True)
    loader = litdata.StreamingDataLoader(dataset, batch_size=BATCH, num_workers=0, collate_fn=_collate)
    while True:
        for images_B in loader:
            yield len(images_B)


def mosaicml_jpeg(paths: list[Path], folder: Path) -> Iterator[int]:
    """mosaicml-streaming's data set of these JPEG files (ImportError where it is not installed)."""
    import streaming

    write_mosaicml(paths, folder)
    streaming.base.util.clean_stale_shared_memory()  # of runs that were killed, as the harness does
    dataset = streaming.StreamingDataset(local=str(folder), shuffle=True, batch_size=BATCH)
    loader = streaming.StreamingDataLoader(dataset, batch_size=BATCH, collate_fn=_collate)
    while True:
        for images_B in loader:
            yield len(images_B)


def decoding(library: str, paths: list[Path]) -> Iterator[int]:
    """JPEG decoding alone, patch by patch in one thread (ImportError where ``library`` is not installed)."""
    decode = _decoder(library)
    members = [path.read_bytes() for path in paths]
    while True:
        for start in range(0, len(members), BATCH):
            for member in members[start : start + BATCH]:
                image = decode(member)
                assert image.shape == (96, 96, 3)
            yield len(members[start : start + BATCH])


def _decoder(library: str) -> Callable[[bytes], Any]:
    """bytes -> RGB uint8 [96, 96, 3]."""
    if library == "simplejpeg":
        import simplejpeg

        return partial(simplejpeg.decode_jpeg, colorspace="RGB")
    if library == "imagecodecs":
        import imagecodecs

        return imagecodecs.jpeg8_decode
    if library == "opencv":
        import cv2

        return lambda data: cv2.cvtColor(
            cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB
        )
    return lambda data: np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def augmentation(config: AugmentConfig) -> Iterator[int]:
    """Batches of 96x96 patches augmented on the CPU."""
    images = torch.rand(BATCH, 3, 96, 96)
    ids = torch.arange(BATCH)
    epoch = 0
    while True:
        augment(images, config, 0, epoch, ids)
        epoch += 1
        yield BATCH


def _collate(samples: list[dict[str, Any]]) -> torch.Tensor:
    arrays = [np.asarray(sample["image"]) for sample in samples]
    images = torch.from_numpy(np.stack(arrays))
    return images if images.shape[-1] == 3 else images.permute(0, 2, 3, 1).contiguous()
