"""Replies as text. Written by hand, for a model's dump costs more than the inference; a test holds them to the
records of ``protocol``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from sentinode.serving.batching import Answer
from sentinode.serving.predictor import Scored
from sentinode.serving.protocol import ABSTAINED
from sentinode.serving.version import Version

_ABSTAINED = (
    '{"probability":null,"raw_probability":null,"prevalence_adjusted_probability":null,'
    f'"verdict":"{ABSTAINED}","abstained":true,"flags":'
)


@dataclass(frozen=True)
class Words:
    """What is the same in all replies of a version under one name."""

    threshold: float
    judged: tuple[str, str]
    """JSON of the verdict below and at or above the threshold."""
    verdicts: tuple[str, str]
    tail: str

    @classmethod
    def of(cls, model: str, version: Version) -> Words:
        """For answers of ``version`` under the name ``model``."""
        point, card = version.engine.operating_point, version.bundle.card
        fixed = {
            "model": model,
            "bundle": version.bundle.digest,
            "operating_point": point.name,
            "threshold": point.threshold,
            "notice": card.notice,
        }
        negative, tumour = (
            f'"verdict":{json.dumps(name)},"abstained":false,"flags":[]}}' for name in card.class_names
        )
        return cls(point.threshold, (negative, tumour), card.class_names, json.dumps(fixed)[1:-1])


def verdicts_of(words: Words, scored: Scored) -> list[str]:
    """The verdict on each patch."""
    return [
        ABSTAINED if flags else words.verdicts[probability >= words.threshold]
        for probability, flags in zip(scored.probabilities, scored.flags, strict=True)
    ]


def reply(words: Words, answer: Answer[Scored], single: bool) -> bytes:
    """The JSON text of a Prediction, or of Predictions."""
    scored = answer.result
    timing = (
        f'"timing_ms":{{"wait":{answer.wait_s * 1e3:.3f},"decode":{scored.decode_s * 1e3:.3f},'
        f'"gate":{scored.gate_s * 1e3:.3f},"inference":{scored.inference_s * 1e3:.3f}}}'
    )
    if single:
        return f"{_patch(words, scored, 0)[:-1]},{timing},{words.tail}}}".encode()
    patches = ",".join(_patch(words, scored, index) for index in range(len(scored.probabilities)))
    return f'{{"predictions":[{patches}],{timing},{words.tail}}}'.encode()


def _patch(words: Words, scored: Scored, index: int) -> str:
    probability, flags = scored.probabilities[index], scored.flags[index]
    if flags:
        return f"{_ABSTAINED}{json.dumps(flags)}}}"
    adjusted = scored.adjusted_probabilities
    said = words.judged[probability >= words.threshold]
    return (
        f'{{"probability":{probability:.9g},"raw_probability":{scored.raw_probabilities[index]:.9g},'
        f'"prevalence_adjusted_probability":{f"{adjusted[index]:.9g}" if adjusted else "null"},{said}'
    )
