"""The judgement over counters, and pixels that survive the way to the gateway."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from sentinode.rollout.evidence import Counters, Limits, judge, patches_of
from sentinode.rollout.gateway import png_of

NEW, OLD = "b" * 64, "a" * 64
LIMITS = Limits(min_patches=10)


def sample(replica: str = "r1", **series: float) -> str:
    lines = [f'sentinode_bundle_info{{bundle="{OLD}",name="n",operating_point="o",replica="{replica}"}} 1.0']
    for status in ("200", "500"):
        count = series.get(f"s{status}", 0)
        lines.append(f'sentinode_requests_total{{path="/v1/predict",status="{status}"}} {count}')
    fast, slow = series.get("fast", 0), series.get("slow", 0)
    lines += [
        f'sentinode_request_seconds_bucket{{le="0.1",path="/v1/predict"}} {fast}',
        f'sentinode_request_seconds_bucket{{le="5.0",path="/v1/predict"}} {fast}',
        f'sentinode_request_seconds_bucket{{le="+Inf",path="/v1/predict"}} {fast + slow}',
    ]
    for bundle, name in ((OLD, "old"), (NEW, "new")):
        low, high = series.get(f"{name}_low", 0), series.get(f"{name}_high", 0)
        lines += [
            f'sentinode_score_bucket{{bundle="{bundle}",le="0.5"}} {low}',
            f'sentinode_score_bucket{{bundle="{bundle}",le="+Inf"}} {low + high}',
            f'sentinode_score_count{{bundle="{bundle}"}} {low + high}',
        ]
    for outcome in ("agreed", "disagreed"):
        count = series.get(outcome, 0)
        lines.append(f'sentinode_shadow_patches_total{{bundle="{NEW}",outcome="{outcome}"}} {count}')
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("after", "words"),
    [
        ({"s200": 100, "fast": 100, "old_low": 80, "new_low": 20}, ""),
        ({"s200": 90, "s500": 10}, "10 of 100 requests failed"),
        ({"s200": 100, "fast": 90, "slow": 10}, "95th percentile"),
        ({"old_low": 80, "old_high": 20, "new_low": 20, "new_high": 80}, "PSI"),
        ({"old_low": 8, "new_high": 9}, ""),
        ({"agreed": 15, "disagreed": 5}, "another on 5 of 20"),
        ({"agreed": 3, "disagreed": 5}, ""),
    ],
)
def test_judgement(after: dict[str, float], words: str) -> None:
    counters = Counters()
    counters.add(sample())
    counters.add(sample(**after))
    found = judge(counters, NEW, OLD, LIMITS)
    assert (words in found) if words else not found


def test_what_was_counted_before_does_not_count() -> None:
    counters = Counters()
    counters.add(sample(s500=50, new_low=7))
    counters.add(sample(s500=50, s200=10, new_low=9))
    assert judge(counters, NEW, OLD, LIMITS) == ""
    assert patches_of(counters, NEW) == 2


def test_replicas_are_kept_apart_and_a_restarted_one_begins_anew() -> None:
    counters = Counters()
    for text in (
        sample("r1", new_low=5),
        sample("r2", new_low=100),
        sample("r1", new_low=6),
        sample("r2", new_low=3),
    ):
        counters.add(text)
    assert patches_of(counters, NEW) == 1 + 3


def test_a_patch_keeps_each_pixel_as_png() -> None:
    patch_HWC = np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8)
    assert (np.asarray(Image.open(io.BytesIO(png_of(patch_HWC)))) == patch_HWC).all()
