"""The worklist as one self-contained HTML file: light, dark, fit for print."""

from __future__ import annotations

import base64
from collections.abc import Mapping

from sentinode.evaluation.report_html import environment
from sentinode.evaluation.worklist import Group, Worklist

GROUP_WORDS = {
    Group.READ: "The most suspicious first. Each reaches the threshold.",
    Group.NOT_JUDGED: "They failed, or a part of their tissue was not looked at: pen, blur, doubtful tissue. Read them "
    "as if there were no model.",
    Group.ASIDE: "Each stays below the threshold. Setting a slide aside is a decision of the laboratory, not of this "
    "list.",
}
"""What is said above each group."""


def render_worklist(worklist: Worklist, title: str, pictures: Mapping[str, bytes]) -> str:
    """The HTML text; ``pictures`` are small JPEG overviews by slide."""
    uris = {
        name: f"data:image/jpeg;base64,{base64.b64encode(data).decode()}" for name, data in pictures.items()
    }
    groups = [(group, GROUP_WORDS[group], worklist.of(group)) for group in Group]
    return (
        environment()
        .get_template("worklist.html.j2")
        .render(worklist=worklist, title=title, groups=groups, pictures=uris)
    )
