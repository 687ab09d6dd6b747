"""What W&B leaves on disk, kept in the run's store and read again by a process that resumes the run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sentinode.distributed.repeating import repeating
from sentinode.storage import Store
from sentinode.tracking import Tracker, last_step, whole_records

KEEP_EVERY_S = 30.0
FOLDER = "wandb/"


@contextmanager
def kept_files(tracker: Tracker, folder: Path, store: Store) -> Iterator[None]:
    """Copy the tracker's files to ``store`` as they come, so that no kill costs more than a minute of them."""
    kept: dict[str, tuple[int, int]] = {}

    def keep() -> None:
        for path in tracker.files():
            key, stat = path.relative_to(folder).as_posix(), path.stat()
            version = (stat.st_size, stat.st_mtime_ns)
            if kept.get(key) != version:
                content = path.read_bytes()
                store.put(key, whole_records(content) if path.suffix == ".wandb" else content)
                kept[key] = version

    try:
        with repeating(lambda: tracker.attempt("keep its files", keep), KEEP_EVERY_S, "wandb-keeper"):
            yield
    finally:
        tracker.attempt("keep its files to the end", keep)


def last_epoch_told(tracker: Tracker, store: Store, run_id: str) -> int:
    """The last epoch of which the files kept of former processes of the run tell; 0 where there is none."""
    found = [0]

    def read() -> None:
        for kept in store.list(FOLDER):
            if kept.key.endswith(f"/run-{run_id}.wandb"):
                found.append(last_step(store.get(kept.key)))

    if tracker.active:
        tracker.attempt("read what it was told before", read)
    return max(found)
