"""The endpoint behind its gateway, asked as any client asks it."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import quote, urlsplit

import numpy as np
import urllib3
from numpy.typing import NDArray
from PIL import Image

from sentinode.errors import ConfigError, RolloutError
from sentinode.rollout.outcome import GoldenDiffersError, StepFailedError

KEY_VARIABLE: Final = "SENTINODE_API_KEY"
GOLDEN_TOLERANCE: Final = 1e-4
"""Largest difference of a golden probability between sealing and the answer through the gateway."""
_ROUNDS: Final = 3


class Gateway:
    """``url`` is the endpoint's base, with http or https; the API key comes from SENTINODE_API_KEY.

    Replies are read tolerantly: the endpoint may be of another version than the rollout.
    """

    def __init__(self, url: str, timeout_s: float = 10.0) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"{url!r} is no endpoint", "--gateway https://host", "see docs/rollout.md")
        key = os.environ.get(KEY_VARIABLE, "")
        self._url = url.rstrip("/")
        self._headers = {"connection": "close"} | ({"authorization": f"Bearer {key}"} if key else {})
        self._timeout_s = timeout_s

    def predict(self, png: bytes, model: str = "") -> dict[str, Any]:
        """The reply on one patch. Raises GatewayError where there is none."""
        return self._json("POST", "/v1/predict" + (f"?model={quote(model)}" if model else ""), png)

    def models(self) -> dict[str, Any]:
        """What one replica serves, and why it does not serve what it was told last."""
        return self._json("GET", "/v1/models")

    def refusal(self) -> str:
        """Why the replica that answers does not serve what it was told last; empty where it does, or is silent."""
        try:
            return str(self.models().get("failure") or "")
        except GatewayError:
            return ""

    def metrics(self) -> str:
        """Counters of one replica, as Prometheus text. The key needs the scope ``metrics``."""
        return self._ask("GET", "/metrics").decode("utf-8", "replace")

    def _json(self, method: str, path: str, body: bytes | None = None) -> dict[str, Any]:
        data = self._ask(method, path, body)
        try:
            return dict(json.loads(data))
        except (ValueError, TypeError) as error:
            raise GatewayError(f"{self._url}{path} answers no JSON", "the endpoint") from error

    def _ask(self, method: str, path: str, body: bytes | None = None) -> bytes:
        # Through a bare Service a kept connection leads to one replica, after the switch to a new cluster to one of the
        # old, and evidence would be of that one alone. One pool for all would keep the connection until it learns of
        # its end, and fail the next question with it.
        try:
            with urllib3.PoolManager(headers=self._headers, timeout=self._timeout_s, retries=False) as http:
                reply = http.request(method, self._url + path, body=body)
        except urllib3.exceptions.HTTPError as error:
            raise GatewayError(f"{self._url} does not answer ({error})", "the endpoint") from error
        if reply.status != 200:
            said = reply.data[:300].decode("utf-8", "replace")
            remedy = f"set {KEY_VARIABLE}" if reply.status in (401, 403) else ""
            raise GatewayError(f"{self._url}{path} answers {reply.status}: {said}", "200", remedy)
        return bytes(reply.data)


class GatewayError(RolloutError):
    """The endpoint does not answer as it should."""


def png_of(patch_HWC: NDArray[np.uint8]) -> bytes:
    """A patch uint8 [96, 96, 3] as PNG, which keeps each pixel."""
    buffer = io.BytesIO()
    Image.fromarray(patch_HWC).save(buffer, "PNG")
    return buffer.getvalue()


def check_golden(
    gateway: Gateway,
    model: str,
    bundle: str,
    golden: tuple[NDArray[np.uint8], NDArray[np.float64]],
    may_go_on: Callable[[str], bool],
    canary: str = "",
) -> float:
    """Ask for all golden patches (images uint8 [G, 96, 96, 3], probabilities [G]), three times over, and compare.

    Every answer must be of ``bundle``, or of the ``canary`` that answers its share, which promises nothing here: until
    all replicas have it, ``may_go_on(why)`` is asked whether to try again. Returns the largest difference. Raises
    GoldenDiffersError where a probability differs by more than 1e-4, StepFailedError where it does not come to answers
    of ``bundle``.
    """
    images_BHWC, expected_B = golden
    pngs = [png_of(patch_HWC) for patch_HWC in images_BHWC]
    worst, rounds = 0.0, 0
    while rounds < _ROUNDS:
        try:
            found = [gateway.predict(png, model) for png in pngs]
            other = next((reply for reply in found if reply.get("bundle") not in (bundle, canary)), None)
            why = f"bundle {str(other.get('bundle'))[:12]} answers, not {bundle[:12]}" if other else ""
        except GatewayError as error:
            why = error.found
        if why:
            rounds = 0
            if not may_go_on(why):
                raise StepFailedError(f"the golden patches were not answered: {why}")
            continue
        for index, (reply, expected) in enumerate(zip(found, expected_B, strict=True)):
            if reply["bundle"] != bundle:
                continue
            given = reply.get("probability")
            difference = abs(given - expected) if isinstance(given, int | float) else float("inf")
            if not difference <= GOLDEN_TOLERANCE:
                raise GoldenDiffersError(
                    f"golden patch {index} has probability {given} through the gateway",
                    f"{expected:.6f} to {GOLDEN_TOLERANCE:g}, as the bundle promises",
                )
            worst = max(worst, difference)
        rounds += 1
    return worst
