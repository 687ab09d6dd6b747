"""Annotation files for the tests of slides."""

from __future__ import annotations

from collections.abc import Sequence

Points = Sequence[tuple[float, float]]


def square(x: float, y: float, side: float) -> list[tuple[float, float]]:
    return [(x, y), (x + side, y), (x + side, y + side), (x, y + side)]


def asap_xml(*regions: tuple[str, Points], kind: str = "Polygon") -> bytes:
    """An ASAP file with one annotation for each (group, points)."""
    annotations = "".join(
        f'<Annotation Name="Annotation {i}" Type="{kind}" PartOfGroup="{group}" Color="#F4FA58"><Coordinates>'
        + "".join(f'<Coordinate Order="{o}" X="{x}" Y="{y}" />' for o, (x, y) in enumerate(points))
        + "</Coordinates></Annotation>"
        for i, (group, points) in enumerate(regions)
    )
    groups = '<AnnotationGroups><Group Name="_0" PartOfGroup="None"><Attributes /></Group></AnnotationGroups>'
    body = f"<Annotations>{annotations}</Annotations>{groups}"
    return f'<?xml version="1.0"?><ASAP_Annotations>{body}</ASAP_Annotations>'.encode()
