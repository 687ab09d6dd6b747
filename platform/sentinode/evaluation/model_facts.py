"""What model card and checklists know beyond the figures: from run record and manifest, as plain text."""

from __future__ import annotations

from sentinode.config import Frozen


class ModelFacts(Frozen):
    """A model and its data in words; an empty text means not known."""

    name: str
    architecture: str = ""
    """Family and number of trained parameters."""
    input: str = ""
    """Size and scale of a patch, and what is done to it before the network."""
    training: str = ""
    """Optimiser, epochs, augmentation, seed."""
    selection: str = ""
    """How the final weights were chosen."""
    dataset: str = ""
    splits: dict[str, str]
    """Split to its patches, tumour share, slides and whose split it is."""
    dropped: str = ""
    """What was left out of the data set, and why."""
    reference: str
    """What the model is compared with."""
    manifest_digest: str
    code: str = ""
    """Commit."""
    versions: str = ""
    run: str
    """URL of the run, or of a file of predictions."""
    licence: str = ""
    """Of the weights."""
