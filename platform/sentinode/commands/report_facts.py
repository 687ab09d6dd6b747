"""Run record and manifest in the words of model card and checklists."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from sentinode.data.manifest import Manifest
from sentinode.evaluation.cautions import percent
from sentinode.evaluation.model_facts import ModelFacts
from sentinode.experiment import RunRecord
from sentinode.models.families import build_model

_WEIGHTS: Final = {
    "none": "The weights",
    "ema": "The exponential moving average of the weights at the end",
    "swa": "The average of the weights of the last epochs, as it was at the end",
}


def facts_of(record: RunRecord, manifest: Manifest, run: str, licence: str = "") -> ModelFacts:
    """What is known of a run's model and data; ``run`` is its URL."""
    experiment, train = record.experiment, record.experiment.train
    augment = {name: value for name, value in experiment.augment.model_dump(mode="json").items() if value}
    mixed = _told({name: value for name, value in train.mix.model_dump(mode="json").items() if value})
    net = build_model(experiment.model, pretrained=False)
    parameters = sum(p.numel() for p in net.parameters() if p.requires_grad)
    preprocess = experiment.preprocess
    return ModelFacts(
        name=f"{experiment.name} on {manifest.dataset}",
        architecture=f"{experiment.model.family}, {parameters:,} trained parameters",
        input=f"RGB patches of {manifest.patch_px} x {manifest.patch_px} pixels at {manifest.mpp_um_px:g} microns a "
        f"pixel; {'resized' if preprocess.fit == 'resize' else 'cropped'} to {preprocess.input_px} pixels and "
        f"normalised by mean and deviation within the model."
        f"{' Averaged over eight symmetries.' if experiment.tta else ''}",
        training=f"{train.optimizer}, learning rate {train.lr:g} ({train.schedule}), up to {train.epochs} epochs, "
        f"batch {train.batch_size}, class weights {train.class_weights}, seed {train.seed}; augmentation: "
        f"{_told(augment) or 'none'}{mixed and f'; mixing: {mixed}'}.",
        selection=f"{_WEIGHTS[train.averaging.kind]} of the epoch that was best on validation, by {train.best_by}.",
        dataset=f"{manifest.dataset} (read as {manifest.source})",
        splits={name.value: _split(manifest, name.value) for name in manifest.splits},
        dropped=_dropped(manifest),
        reference=f"the reference labels of {manifest.dataset}",
        manifest_digest=record.manifest_digest,
        code=record.code_commit,
        versions=", ".join(f"{name} {version}" for name, version in record.versions.items()),
        run=run,
        licence=licence,
    )


def facts_of_file(url: str, reference: str | None, patches: Mapping[str, int]) -> ModelFacts:
    """What is known of a file of predictions: next to nothing of its model. ``patches`` counts by split."""
    name = url.rpartition("/")[2]
    return ModelFacts(
        name=f"Predictions of {name}",
        splits={split: f"{n} patches" for split, n in patches.items()},
        reference=f"the reference labels of {reference or name}",
        manifest_digest="unknown",
        run=url,
    )


def _told(settings: Mapping[str, object]) -> str:
    return ", ".join(f"{name} {value}" for name, value in settings.items())


def _split(manifest: Manifest, split: str) -> str:
    part = next(p for name, p in manifest.splits.items() if name.value == split)
    tumour = part.class_counts[1]
    labelled = sum(part.class_counts)
    share = f", {percent(tumour / labelled)} tumour" if labelled else ", unlabelled"
    slides = "slides unknown" if part.slides is None else f"{part.slides} slides"
    origin = "the source's own split" if part.origin == "source" else part.origin
    return f"{part.samples} patches{share}, {slides}, {origin}"


def _dropped(manifest: Manifest) -> str:
    found = {
        name.replace("_", " "): n
        for name, n in manifest.dropped.model_dump(exclude={"schema_version"}).items()
    }
    told = ", ".join(f"{n} {name}" for name, n in found.items() if n)
    return f"Left out at ingest: {told}." if told else "Nothing was left out at ingest."
