"""Experiment tracking by Weights & Biases: the only owner of wandb."""

from __future__ import annotations

from sentinode.tracking.loggable import Artefact, Bars, Chart, ConfusionMatrix, Loggable, Picture, Table
from sentinode.tracking.record_log import last_step, whole_records
from sentinode.tracking.tracker import Tracker, tracking_mode

__all__ = [
    "Artefact",
    "Bars",
    "Chart",
    "ConfusionMatrix",
    "Loggable",
    "Picture",
    "Table",
    "Tracker",
    "last_step",
    "tracking_mode",
    "whole_records",
]
