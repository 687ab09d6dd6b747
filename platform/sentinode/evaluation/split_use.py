"""A test split is measured once: later measurements are refused unless asked for, and counted."""

from __future__ import annotations

import hashlib

from sentinode.config import Frozen, Record
from sentinode.errors import ConfigError, ObjectNotFoundError
from sentinode.evaluation.predictions import Predictions
from sentinode.storage import Store

TEST_USE_KEY = "test_use.json"


class SplitUse(Frozen):
    """How often one model was measured on one test split."""

    model_digest: str
    test_digest: str
    """SHA-256 over keys and labels of the split."""
    uses: int


class SplitUses(Record):
    """``test_use.json`` of a run, or of a folder of reports."""

    counts: tuple[SplitUse, ...] = ()

    def of(self, test: Predictions) -> int:
        """Measurements so far of this model on this split."""
        split = split_digest(test)
        return sum(
            c.uses for c in self.counts if (c.model_digest, c.test_digest) == (test.model_digest, split)
        )

    def counted(self, test: Predictions) -> SplitUses:
        """The same with one more."""
        split = split_digest(test)
        others = tuple(
            c for c in self.counts if (c.model_digest, c.test_digest) != (test.model_digest, split)
        )
        mine = SplitUse(model_digest=test.model_digest, test_digest=split, uses=self.of(test) + 1)
        return SplitUses(counts=(*others, mine))


def split_digest(test: Predictions) -> str:
    """SHA-256 of the split's patches and labels, in whatever order they stand."""
    rows = sorted(
        f"{key},{label}" for key, label in zip(test.keys.tolist(), test.labels.tolist(), strict=True)
    )
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()


def check_test_use(store: Store, test: Predictions, again: bool) -> SplitUses:
    """The count with this measurement in it, to be kept with ``keep_test_use`` before any figure is shown.

    Raises ConfigError where the split was measured before and ``again`` is not set.
    """
    try:
        found = SplitUses.from_json(store.get(TEST_USE_KEY), store.locate(TEST_USE_KEY))
    except ObjectNotFoundError:
        found = SplitUses()
    uses = found.of(test)
    if uses and not again:
        raise ConfigError(
            f"this model was measured on this test split before ({'once' if uses == 1 else f'{uses} times'}, "
            f"{store.locate(TEST_USE_KEY)})",
            "one measurement: choosing by test figures makes them flatter the model",
            "read its report.json, or give --again, which is counted in report and card",
        )
    return found.counted(test)


def keep_test_use(store: Store, uses: SplitUses) -> None:
    """Write the count. Raises StoreError."""
    store.put(TEST_USE_KEY, uses.to_json())
