"""A MODEL, not a measurement: patches a second, slides a day and costs of the node types of infra/terraform.

    python benchmarks/capacity.py                         # the tables of docs/capacity.md
    python benchmarks/capacity.py --utilisation 0.3 --price g6.4xlarge=0.9 --tissue-share 0.3

Measured are the rates of one core (docs/results.md); of the GPUs only their makers' figures are known here.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, replace

MULTIPLY_ADDS = {"pcam-small": 115e6, "resnet18": 333e6}
"""Of one patch of 96x96 pixels, forwards. Backwards twice as many."""
CORE_TRAIN_PATCHES_S = 182.0
"""Measured: pcam-small, one core of the idle machine."""
CORE_DECODE_PATCHES_S = 9_470.0
"""Measured: JPEG by simplejpeg, one core."""
DENSE_MULTIPLY_ADDS = {"pcam-small": 45.1e6, "p4m-densenet": 108.9e6}
"""Of one cell of 32 x 32 pixels in a tile of 16 x 16 cells, scored densely; counted layer by layer."""
CORE_READ_CELLS_S = 44_800.0
"""Measured: such tiles read from a JPEG pyramid with a level of 1 um/px, one core."""
CORE_TISSUE_MM2_S = 164.0
"""Measured by CPU time on a slide of which a third is tissue: finding tissue, area of glass."""
FLOAT32_TERA_FLOPS = {"L4": 30.3, "L40S": 91.6, "H100": 66.9}
"""Makers' figures, no tensor cores: bundles are scored in float32 without TensorFloat-32, as golden patches want it."""
FILES_S = 5.0
"""Assumed: heat map, outlines and tables of a slide, one core."""
REPLICA_REQUESTS_S = 2_800.0
"""Measured, the client on the same cores: one JPEG a request, seed CNN, one replica of two CPUs behind HAProxy."""
PCAM_PATCHES, EPOCHS = 262_144, 50
CELL_UM = 31.1
"""Edge of a cell of the heat map: 32 pixels at 0.972 um."""
DAY_S = 86_400.0


@dataclass(frozen=True)
class Node:
    """A node type: cores (two vCPUs each), dense half-precision rate of its GPU (maker's figure), price an hour."""

    name: str
    cores: int
    gpu: str
    tera_flops: float
    usd_h: float


NODES = (
    Node("m7i.4xlarge", 8, "", 0.0, 0.81),
    Node("g6.2xlarge", 4, "L4", 121.0, 0.98),
    Node("g6.4xlarge", 8, "L4", 121.0, 1.32),
    Node("g6e.4xlarge", 8, "L40S", 362.0, 3.00),
    Node("p5.4xlarge", 8, "H100", 989.0, 6.88),
)
"""Prices are rounded list prices of on-demand nodes, as assumed in November 2026: put in your own."""


@dataclass(frozen=True)
class Assumed:
    """What is taken as given."""

    utilisation: float = 0.15
    """Share of a GPU's rate that networks this small reach."""
    float32_utilisation: float = 0.3
    """The same of its float32 rate, by dense scoring."""
    core_share: float = 0.8
    """Of the cores, what is left to decode by."""
    slide_mm: tuple[float, float] = (25.0, 50.0)
    tissue_share: float = 0.2

    @property
    def slide_patches(self) -> float:
        """Patches of a slide: one for each cell that holds tissue."""
        width_mm, height_mm = self.slide_mm
        return width_mm * height_mm * 1e6 / CELL_UM**2 * self.tissue_share


def computed(node: Node, network: str, passes: int, assumed: Assumed) -> float:
    """Patches/s that the arithmetic allows; three passes train, one scores."""
    work = MULTIPLY_ADDS[network] * 2 * passes
    if node.gpu:
        return node.tera_flops * 1e12 * assumed.utilisation / work
    core_flops = CORE_TRAIN_PATCHES_S * MULTIPLY_ADDS["pcam-small"] * 2 * 3
    return node.cores * core_flops / work


def scored(node: Node, network: str, assumed: Assumed) -> tuple[float, str]:
    """Patches/s of slides that are decoded on the way, and what bounds them."""
    rate = computed(node, network, 1, assumed)
    decoded = node.cores * assumed.core_share * CORE_DECODE_PATCHES_S
    return (rate, "arithmetic") if rate <= decoded else (decoded, "decoding")


def rows(nodes: tuple[Node, ...], network: str, assumed: Assumed) -> Iterator[str]:
    """The table of one network, in Markdown."""
    heads = ("node", "GPU", "trains, patches/s", "50 epochs of PCam", "cost", "scores, patches/s", "bound by",
             "slides a day", "1,000 slides")  # fmt: skip
    yield f"| {' | '.join(heads)} |"
    yield f"|{' --- |' * len(heads)}"
    for node in nodes:
        train = computed(node, network, 3, assumed)
        hours = PCAM_PATCHES * EPOCHS / train / 3600
        score, bound = scored(node, network, assumed)
        slides_day = score * DAY_S / assumed.slide_patches
        yield (
            f"| {node.name} | {node.gpu or '-'} | {train:,.0f} | {hours:.2f} h | {hours * node.usd_h:.2f} USD "
            f"| {score:,.0f} | {bound} | {slides_day:,.0f} | {node.usd_h * 24 / slides_day * 1000:.2f} USD |"
        )


def many_slides(
    nodes: tuple[Node, ...], assumed: Assumed, gpus: int = 8, slides: int = 1000
) -> Iterator[str]:
    """The table of ``slides`` scored densely on ``gpus`` nodes of one GPU, in Markdown.

    A GPU and the cores beside it work at the same time (two or three slides an actor): the slower of them counts.
    """
    yield "| node | network | GPU, s a slide | cores, s a slide | bound by | in all | cost |"
    yield f"|{' --- |' * 7}"
    area_mm2 = assumed.slide_mm[0] * assumed.slide_mm[1]
    for node in nodes:
        if not node.gpu:
            continue
        core_s = assumed.slide_patches / CORE_READ_CELLS_S + area_mm2 / CORE_TISSUE_MM2_S + FILES_S
        cores_s = core_s / (node.cores * assumed.core_share)
        for network, work in DENSE_MULTIPLY_ADDS.items():
            rate = FLOAT32_TERA_FLOPS[node.gpu] * 1e12 * assumed.float32_utilisation
            gpu_s = assumed.slide_patches * work * 2 / rate
            hours = max(gpu_s, cores_s) * slides / gpus / 3600
            yield (
                f"| {gpus} x {node.name} | {network} | {gpu_s:.2f} | {cores_s:.2f} "
                f"| {'GPU' if gpu_s > cores_s else 'cores'} | {hours * 60:.0f} min "
                f"| {hours * gpus * node.usd_h:.2f} USD |"
            )


def endpoint(nodes: tuple[Node, ...]) -> Iterator[str]:
    """What a CPU node answers."""
    for node in nodes:
        if not node.gpu:
            requests_s = node.cores * REPLICA_REQUESTS_S
            million = 1e6 / requests_s / 3600 * node.usd_h
            yield (
                f"{node.name}: {node.cores} replicas of two CPUs, {requests_s:,.0f} requests/s, "
                f"{million:.3f} USD for a million."
            )


def report(nodes: tuple[Node, ...] = NODES, assumed: Assumed = Assumed()) -> str:
    """All tables."""
    lines = [f"A slide has {assumed.slide_patches:,.0f} patches of tissue."]
    for network in MULTIPLY_ADDS:
        lines += ["", f"**{network}** ({MULTIPLY_ADDS[network] / 1e6:.0f} million multiply-adds a patch)", ""]
        lines += rows(nodes, network, assumed)
    lines += ["", "**1,000 slides of 100,000 x 200,000 pixels on 8 GPUs**, scored densely", ""]
    lines += many_slides(nodes, assumed)
    return "\n".join([*lines, "", *endpoint(nodes)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--utilisation", type=float, default=Assumed.utilisation)
    parser.add_argument("--tissue-share", type=float, default=Assumed.tissue_share)
    parser.add_argument("--price", action="append", default=[], metavar="NODE=USD_H")
    options = parser.parse_args()
    prices = dict(pair.split("=", 1) for pair in options.price)
    nodes = tuple(replace(node, usd_h=float(prices.get(node.name, node.usd_h))) for node in NODES)
    print(report(nodes, Assumed(options.utilisation, tissue_share=options.tissue_share)))


if __name__ == "__main__":
    main()
