"""Experiment tracking by Weights & Biases: the only owner of wandb."""

from __future__ import annotations

from sentinode.tracking.record_log import last_step, whole_records
from sentinode.tracking.tracker import (
    Artefact,
    Chart,
    ConfusionMatrix,
    Loggable,
    Picture,
    Tracker,
    tracking_mode,
)

__all__ = [
    "Artefact",
    "Chart",
    "ConfusionMatrix",
    "Loggable",
    "Picture",
    "Tracker",
    "last_step",
    "tracking_mode",
    "whole_records",
]
