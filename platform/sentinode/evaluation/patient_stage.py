"""Camelyon17's patient stage from its five nodes, and agreement on stages by weighted kappa.

The contest's rules (Bandi et al. 2019, IEEE TMI 38:550, after the AJCC's 7th edition, simplified):

    pN0      no metastasis and no isolated tumour cells in any node
    pN0(i+)  isolated tumour cells only
    pN1mi    micro-metastases, no macro-metastasis
    pN1      metastases in one to three nodes, at least one of them macro
    pN2      metastases in four nodes or more, at least one of them macro

A node with isolated tumour cells only is not counted as one with metastases.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from sentinode.config import Record
from sentinode.errors import EvaluationError
from sentinode.evaluation.metrics import FloatArray, IntArray
from sentinode.evaluation.resampled import Resampled, ResamplingConfig, resampled
from sentinode.evaluation.slide_reference import Stage
from sentinode.schema import NodeClass

NODES: Final = 5
"""Nodes of each patient in Camelyon17."""
STAGES: Final = tuple(Stage)

NODE_NAME: Final = re.compile(r"(?P<patient>patient_\d{3})_node_\d")


class StageAgreement(Record):
    """Stages of a system beside the pathologists'."""

    config: ResamplingConfig
    patients: int
    kappa: Resampled
    """Quadratically weighted, interval by bootstrap over patients."""
    accuracy: Resampled
    """Share of patients with the very stage."""
    table: tuple[tuple[int, ...], ...]
    """Patients by reference stage (rows) and found stage (columns), in the order of the stages."""
    stages: tuple[Stage, ...] = STAGES


def stage_of(nodes: Sequence[NodeClass]) -> Stage:
    """The stage of a patient from its five nodes. Raises EvaluationError on another number of nodes."""
    if len(nodes) != NODES:
        raise EvaluationError(f"a patient with {len(nodes)} nodes", f"{NODES} nodes, as in Camelyon17")
    macro, micro = nodes.count(NodeClass.MACRO), nodes.count(NodeClass.MICRO)
    if macro:
        return Stage.PN2 if macro + micro >= 4 else Stage.PN1
    if micro:
        return Stage.PN1MI
    return Stage.PN0_ITC if NodeClass.ITC in nodes else Stage.PN0


def stages_of(nodes: Mapping[str, NodeClass]) -> dict[str, Stage]:
    """The stage of each patient from its slides, ``patient_000_node_0`` and on.

    Raises EvaluationError on another name, or a patient without five nodes.
    """
    by_patient: dict[str, list[NodeClass]] = {}
    for slide, node in nodes.items():
        match = NODE_NAME.fullmatch(slide)
        if match is None:
            raise EvaluationError(f"slide {slide}", "a name such as patient_000_node_0")
        by_patient.setdefault(match["patient"], []).append(node)
    short = [patient for patient, found in by_patient.items() if len(found) != NODES]
    if short:
        raise EvaluationError(
            f"{short[0]} has {len(by_patient[short[0]])} nodes",
            f"{NODES} nodes",
            "score the other slides too",
        )
    return {patient: stage_of(found) for patient, found in by_patient.items()}


def quadratic_kappa(table: FloatArray | IntArray) -> float:
    """Cohen's kappa with quadratic weights (Cohen 1968) of a square table of counts, rows against columns.

    NaN where chance alone agrees fully: all of both in one class.
    """
    counts = np.asarray(table, np.float64)
    classes = np.arange(len(counts))
    weights = (classes[:, None] - classes[None, :]) ** 2
    chance = np.sum(weights * np.outer(counts.sum(axis=1), counts.sum(axis=0)))
    return 1 - float(np.sum(weights * counts) * counts.sum() / chance) if chance else math.nan


def stage_agreement(
    reference: Mapping[str, Stage], found: Mapping[str, Stage], config: ResamplingConfig | None = None
) -> StageAgreement:
    """How well ``found`` agrees with ``reference``, each a stage by patient.

    Raises EvaluationError unless both name the same patients, at least one.
    """
    config = config or ResamplingConfig()
    odd = sorted(reference.keys() ^ found.keys())
    if odd or not reference:
        raise EvaluationError(
            f"{len(odd)} patients in one list only ({', '.join(odd[:3])})" if odd else "no patient",
            "a stage of the reference and one of the system for each patient",
        )
    patients = sorted(reference)
    rows_N = np.array([STAGES.index(reference[p]) for p in patients])
    columns_N = np.array([STAGES.index(found[p]) for p in patients])
    cells_N = rows_N * len(STAGES) + columns_N

    def table(weights_N: IntArray) -> FloatArray:
        counts = np.bincount(cells_N, weights_N, minlength=len(STAGES) ** 2)
        return np.asarray(counts.reshape(len(STAGES), -1), np.float64)

    def statistic(weights_N: IntArray) -> FloatArray:
        counts = table(weights_N)
        return np.array([quadratic_kappa(counts), np.trace(counts) / counts.sum()])

    kappa, accuracy = resampled(statistic, [None] * len(patients), config)
    counts = table(np.ones(len(patients), np.int64)).astype(int)
    return StageAgreement(
        config=config,
        patients=len(patients),
        kappa=kappa,
        accuracy=accuracy,
        table=tuple(tuple(row) for row in counts.tolist()),
    )
