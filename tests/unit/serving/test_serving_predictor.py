"""Of a batch, a job without a number is an error of its own, and the others get their answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from serving_parts import encode, random_patches, sealed_registry, started_endpoint
from starlette.testclient import TestClient

from sentinode.errors import RequestError
from sentinode.serving.asgi import Endpoint
from sentinode.serving.predictor import Job, Predictor, Scored

PATCHES = random_patches(5, seed=5)


@pytest.fixture
def endpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Endpoint:
    """Its model gives patches whose first pixel is 255 no number."""
    store, digest, _ = sealed_registry(tmp_path)
    endpoint = started_endpoint(store, digest)
    model = endpoint.fleet.catalogue.default.stable.engine._model
    logits = model.logits

    def faulty(images_BHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        numbers = images_BHWC[:, 0, 0, 0]
        found = np.where(numbers == 255, np.float32(np.nan), logits(images_BHWC))
        return np.where(numbers == 254, np.float32(np.inf), found)

    monkeypatch.setattr(model, "logits", faulty)
    return endpoint


def marked(patch_HWC: NDArray[np.uint8], value: int) -> NDArray[np.uint8]:
    marked_HWC = patch_HWC.copy()
    marked_HWC[0, 0] = value
    return marked_HWC


def test_no_number_is_an_error_of_its_job_alone(endpoint: Endpoint) -> None:
    version = endpoint.fleet.catalogue.default.stable
    predictor = Predictor(version.engine, version.trust.gate.check, version.trust.count)
    plain = [marked(patch, 0) for patch in PATCHES]
    jobs = [
        Job(pixels_BHWC=np.array([marked(PATCHES[0], 254)])),
        Job(pixels_BHWC=np.array(plain[:2])),
        Job(pixels_BHWC=np.array([plain[2], marked(PATCHES[2], 255)])),
        Job((b"no image",)),
        Job(pixels_BHWC=np.array(plain[3:])),
    ]
    bad, first, mixed, unread, second = predictor.conclude(predictor.compute(jobs))
    alone = version.engine.predict(np.array(plain)).probabilities_B.tolist()
    assert isinstance(first, Scored)
    assert isinstance(second, Scored)
    assert first.probabilities == pytest.approx(alone[:2], abs=1e-6)
    assert second.probabilities == pytest.approx(alone[3:], abs=1e-6)
    faults = [one for one in (bad, mixed, unread) if isinstance(one, RequestError)]
    assert [fault.status for fault in faults] == [500, 500, 415]


@pytest.mark.parametrize("path", ["predict", "explain"])
def test_no_number_is_never_a_verdict(
    endpoint: Endpoint, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    digest = endpoint.fleet.catalogue.default.stable.bundle.digest
    with TestClient(endpoint) as client:
        reply = client.post(f"/v1/{path}", content=encode(marked(PATCHES[0], 255), "PNG"))
        counted = client.get("/metrics").text
    assert (reply.status_code, "no number" in reply.json()["reason"]) == (500, True)
    assert f'sentinode_requests_total{{path="/v1/{path}",status="500"}} 1.0' in counted
    assert f"bundle {digest} gives a patch a score that is no number" in caplog.text
