"""Experiment tracking by Weights & Biases: the only owner of wandb."""

from __future__ import annotations

from sentinode.tracking.loggable import Artefact, Bars, Chart, ConfusionMatrix, Loggable, Picture, Table
from sentinode.tracking.mode import check_tracking, tracking_mode
from sentinode.tracking.record_log import last_step, whole_records
from sentinode.tracking.tracker import Tracker

__all__ = [
    "Artefact",
    "Bars",
    "Chart",
    "ConfusionMatrix",
    "Loggable",
    "Picture",
    "Table",
    "Tracker",
    "check_tracking",
    "last_step",
    "tracking_mode",
    "whole_records",
]
