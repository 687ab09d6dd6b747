"""In which order to read scored slides, and which of them the ``screening`` point sets aside.

A slide may be set aside when none of its cells reaches the threshold of that point (or, by a slide model, when its
score stays below the threshold that validation slides chose), and nothing speaks against the reading: no pen, next
to no blur, no doubtful tissue. Slides that failed are never set aside.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Final, Literal

from sentinode.config import Frozen, Record
from sentinode.errors import EvaluationError
from sentinode.evaluation.slide_record import SlideScore
from sentinode.schema import RESEARCH_USE_ONLY

SCREENING: Final = "screening"
MOST_BLURRED: Final = 0.01
"""Share of the tissue that may be left out for its blur where a slide is set aside: a few cells at a slide's edge. The
flag ``blurred`` comes far later."""
ABOUT_PATCHES: Final = (
    "The threshold was chosen on patches, and so is what is promised of it. Whether slides that are set aside are free "
    "of metastases only slides with a diagnosis can show: sentinode evaluate --slides measures it."
)


class Group(StrEnum):
    """What is to be done with a slide; in this order."""

    READ = "read"
    NOT_JUDGED = "read, not judged"
    """It failed, or a part of its tissue was not looked at."""
    ASIDE = "may be set aside"


class ScreeningRule(Frozen):
    """When a slide may be set aside: its highest cell, or its score, is below the threshold."""

    name: str = SCREENING
    level: Literal["cell", "slide"] = "cell"
    """What the threshold is compared with. Cells: it was chosen on patches. Slide: on slides, by their score."""
    threshold: float
    promise: str
    """What is promised of the threshold, in words."""


class WorklistEntry(Frozen):
    """One slide of the list."""

    rank: int
    group: Group
    why: str
    highest: float | None
    """Highest probability of a cell; None where the slide was not scored."""
    score: SlideScore


class Worklist(Record):
    """All scored slides in the order in which to read them."""

    rule: ScreeningRule
    entries: tuple[WorklistEntry, ...]
    cautions: tuple[str, ...]
    notice: str = RESEARCH_USE_ONLY

    def of(self, group: Group) -> tuple[WorklistEntry, ...]:
        """The entries of one group, in order."""
        return tuple(entry for entry in self.entries if entry.group is group)

    def to_csv(self) -> bytes:
        """One row a slide, with column names."""
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow(["rank", "group", "highest_cell", *_COLUMNS, "why"])
        for entry in self.entries:
            values = entry.score.model_dump(mode="json") | {"flags": " ".join(entry.score.flags)}
            cells = [
                entry.rank,
                entry.group.value,
                entry.highest,
                *(values[name] for name in _COLUMNS),
                entry.why,
            ]
            writer.writerow(["" if cell is None else _plain(cell) for cell in cells])
        return buffer.getvalue().encode()


_COLUMNS: Final = (
    "slide", "status", "score", "node_class", "lesions", "macro", "micro", "itc", "largest_um", "tumour_mm2",
    "tissue_mm2", "flags", "url", "key",
)  # fmt: skip


def order_slides(scores: Sequence[SlideScore], highest: Mapping[str, float], rule: ScreeningRule) -> Worklist:
    """The worklist; ``highest`` is the highest probability of a cell by slide, for those that were scored.

    The most suspicious come first, by slide score and then by the largest lesion. Raises EvaluationError without a
    slide, where a slide comes twice, or where a scored one has no highest cell.
    """
    if not scores:
        raise EvaluationError("no scored slide", "what sentinode score wrote")
    names = [score.slide for score in scores]
    odd = sorted({n for n in names if names.count(n) > 1}) if len(set(names)) < len(names) else []
    odd = odd or [s.slide for s in scores if s.status == "done" and s.slide not in highest]
    if odd:
        raise EvaluationError(
            f"slide {odd[0]} comes twice or has no heat map", "each slide once, with its cells"
        )
    judged = [(score, *_judged(score, highest.get(score.slide), rule)) for score in scores]
    groups = list(Group)
    judged.sort(key=lambda row: (groups.index(row[1]), *_urgency(row[0])))
    entries = tuple(
        WorklistEntry(rank=rank, group=group, why=why, highest=highest.get(score.slide), score=score)
        for rank, (score, group, why) in enumerate(judged, 1)
    )
    return Worklist(rule=rule, entries=entries, cautions=_cautions(scores, rule))


def may_be_set_aside(score: SlideScore, highest: float | None, rule: ScreeningRule) -> bool:
    """Whether ``rule`` sets a slide aside."""
    return _judged(score, highest, rule)[0] is Group.ASIDE


def _judged(score: SlideScore, highest: float | None, rule: ScreeningRule) -> tuple[Group, str]:
    if score.status == "failed" or highest is None:
        return (
            Group.NOT_JUDGED,
            f"not scored: {score.reason.splitlines()[0] if score.reason else 'no heat map'}",
        )
    left_out = _left_out(score)
    unjudged = f"not all of it was judged: {', '.join(left_out)}"
    of_slide = rule.level == "slide"
    value = (score.score or 0.0) if of_slide else highest
    if value >= rule.threshold:
        what = "its score is" if of_slide else "a cell reaches"
        why = f"{what} {value:.3f}, the {rule.name} threshold is {rule.threshold:.3f}"
        return Group.READ, f"{why}; {unjudged}" if left_out else why
    if left_out:
        return Group.NOT_JUDGED, unjudged
    if of_slide:
        return (
            Group.ASIDE,
            f"its score {value:.3f} is below the {rule.name} threshold of {rule.threshold:.3f}",
        )
    return Group.ASIDE, f"no cell reaches the {rule.name} threshold of {rule.threshold:.3f}"


def _left_out(score: SlideScore) -> tuple[str, ...]:
    """Why a part of a slide was not judged, or its tissue is doubtful."""
    blurred = score.blurred_of_tissue or 0.0
    if blurred <= MOST_BLURRED:
        return score.flags
    told = f"blurred ({100 * blurred:.1f} % of the tissue)"
    return (*(flag for flag in score.flags if flag != "blurred"), told)


def _urgency(score: SlideScore) -> tuple[float, float, str]:
    return -(score.score or 0.0), -(score.largest_um or 0.0), score.slide


def _cautions(scores: Sequence[SlideScore], rule: ScreeningRule) -> tuple[str, ...]:
    found = [rule.promise, *([ABOUT_PATCHES] if rule.level == "cell" else [])]
    models = {score.bundle for score in scores}
    if len(models) > 1:
        found.append(
            f"The slides were scored by {len(models)} different models: their scores do not compare."
        )
    unknown = sum(score.status == "done" and score.blurred_of_tissue is None for score in scores)
    if unknown:
        found.append(
            f"{unknown} slides were scored by an earlier version, which did not record how much of their tissue "
            "was left out for its blur: only more than 20 % is flagged."
        )
    if any(score.um_px_given for score in scores):
        found.append("The pixel size of some slides was given by hand; if it is wrong, so is their score.")
    return tuple(found)


def _plain(cell: object) -> object:
    """Text that a spreadsheet would take for a formula gets an apostrophe before it."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(("=", "+", "-", "@", "\t", "\r")) else cell
