"""Cards, histories and differences as tables for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.markup import escape
from rich.table import Table

from sentinode.bundle.card import Card
from sentinode.bundle.collect import StoredBundle
from sentinode.bundle.registry import Alias
from sentinode.config import canonical_json

_SHOWN = 12
_LONGEST = 60
_WHOLE = ("stain", "scores")
"""Parts of a card that are tables of numbers: a difference in them is told, not listed."""


def listing(
    stored: Sequence[StoredBundle], cards: Mapping[str, Card], names: Mapping[str, list[str]]
) -> Table:
    """One row a bundle, the youngest first."""
    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("bundle", "name", "aliases", "data set", "written (UTC)"):
        # Names are looked for and copied: none is broken over lines.
        shown.add_column(column, no_wrap=True)
    for column in ("valid AUROC", "MB"):
        shown.add_column(column, justify="right")
    for bundle in sorted(stored, key=lambda b: str(b.written_at), reverse=True):
        card = cards.get(bundle.digest)
        shown.add_row(
            bundle.digest[:_SHOWN],
            escape(card.name) if card else "never finished",
            ", ".join(names[bundle.digest]),
            escape(card.training.dataset) if card else "",
            f"{bundle.written_at:%Y-%m-%d %H:%M}" if bundle.written_at else "",
            _figure(card, "auroc").partition(" ")[0] if card else "",
            f"{bundle.size_bytes / 1e6:.1f}",
        )
    return shown


def card_facts(digest: str, card: Card, aliases: Sequence[str]) -> dict[str, str]:
    """What a reader of a bundle wants first, its lineage included."""
    training = card.training
    facts = {
        "Bundle": digest,
        "Name": card.name,
        "Aliases": ", ".join(aliases) or "none names it now",
        "Run": training.run_url,
        "Data set": f"{training.dataset}, manifest {training.manifest_digest}",
        "Code commit": training.code_commit,
        "Versions": ", ".join(f"{name} {version}" for name, version in training.versions.items()),
        "Licence": card.licence,
        "Valid AUROC": _figure(card, "auroc"),
        "Test uses": str(card.test_uses),
        "Calibration": card.calibration.kind,
        "Golden patches by": card.golden_computed_by,
    }
    for point in card.operating_points:
        default = " (default)" if point.name == card.default_operating_point else ""
        facts[f"Point {point.name}"] = (
            f"threshold {point.threshold:.4f}, sensitivity {point.sensitivity:.3f}, "
            f"specificity {point.specificity:.3f} on valid{default}"
        )
    if card.int8:
        facts["Int8"] = (
            f"{card.int8.method}, AUROC {card.int8.auroc:.4f} on {card.int8.patches} valid patches, "
            f"{-card.int8.auroc_loss:+.4f} against the float graph"
        )
    if card.stain:
        facts["Stain"] = f"statistics of {card.stain.patches} training patches"
    if card.scores:
        facts["Scores"] = (
            f"histogram of {sum(card.scores.negatives) + sum(card.scores.positives)} valid patches"
        )
    for name, record in card.files.items():
        facts[f"File {name}"] = f"{record.size_bytes} bytes, SHA-256 {record.sha256}"
    return facts


def pairs(facts: Mapping[str, str]) -> str:
    """Name and value, a line each; lines are left whole, so that digests can be copied."""
    width = max(map(len, facts)) + 2
    return "\n".join(f"{name:<{width}}{value}" for name, value in facts.items())


def history_table(alias: Alias, digest: str) -> Table:
    """An alias's moves, oldest first; those to ``digest`` are emphasised."""
    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=f"alias {alias.name}", title_justify="left")
    for column in ("when (UTC)", "move", "from", "to", "by", "reason"):
        shown.add_column(column, overflow="fold", no_wrap=column in ("when (UTC)", "from", "to"))
    for move in alias.history:
        shown.add_row(
            f"{move.moved_at:%Y-%m-%d %H:%M}",
            move.kind + (", forced" if move.forced else ""),
            (move.moved_from or "")[:_SHOWN],
            move.bundle[:_SHOWN],
            escape(move.by),
            escape(move.reason),
            style="bold" if move.bundle == digest else None,
        )
    return shown


def differences(digests: Sequence[str], a: Card, b: Card) -> Table:
    """The fields in which two cards differ, by their dotted names."""
    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("field", *(digest[:_SHOWN] for digest in digests)):
        shown.add_column(column, overflow="fold")
    left, right = _flat(a), _flat(b)
    for name in sorted(left | right):
        if left.get(name) != right.get(name):
            shown.add_row(name, *(escape(_short(side.get(name))) for side in (left, right)))
    if not shown.rows:
        shown.add_row("no difference", "", "")
    return shown


def _flat(card: Card) -> dict[str, Any]:
    raw = card.model_dump(mode="json")
    raw["operating_points"] = {point["name"]: point for point in raw["operating_points"]}
    out: dict[str, Any] = {}

    def walk(name: str, value: Any) -> None:
        if isinstance(value, dict) and name not in _WHOLE:
            for key, inner in value.items():
                walk(f"{name}.{key}" if name else key, inner)
        else:
            out[name] = value

    walk("", raw)
    return out


def _short(value: Any) -> str:
    if value is None:
        return "none"
    text = value if isinstance(value, str) else canonical_json(value).decode()
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}... ({len(text)} characters)"


def _figure(card: Card, measure: str) -> str:
    found = card.metrics.get("valid", {}).get(measure)
    if not isinstance(found, list) or len(found) != 3 or not isinstance(found[0], int | float):
        return f"{found:.3f}" if isinstance(found, int | float) else ""
    low, high = found[1], found[2]
    if not (isinstance(low, int | float) and isinstance(high, int | float)):
        return f"{found[0]:.3f}"
    return f"{found[0]:.3f} ({low:.3f} to {high:.3f})"
