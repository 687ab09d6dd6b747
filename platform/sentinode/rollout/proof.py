"""What the endpoint itself is asked, through its gateway: a RayService that is RUNNING does not say what answers."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sentinode.errors import RolloutError, SentinodeError
from sentinode.rollout.gateway import Gateway, check_golden
from sentinode.rollout.outcome import GoldenDiffersError, StepFailedError
from sentinode.rollout.record import Step
from sentinode.rollout.serve_config import CANDIDATE, ServeConfig
from sentinode.rollout.watch import Settings, watch

log = logging.getLogger(__name__)
_PAUSE_S: Final = 1.0

Golden = tuple[NDArray[np.uint8], NDArray[np.float64]]


class Proof:
    """``golden`` gives a bundle's golden images and probabilities by digest, or raises what keeps it from being had."""

    def __init__(self, gateway: Gateway, golden: Callable[[str], Golden], settings: Settings) -> None:
        self._gateway = gateway
        self._golden = golden
        self._settings = settings

    def prepare(self, before: Step, steps: tuple[Step, ...]) -> None:
        """Before anything is changed: the endpoint answers, and all bundles can be had, also the one to go back to.

        Raises GatewayError, or RolloutError where there would be no way back.
        """
        self._gateway.models()
        old = ServeConfig(before.config).bundle
        try:
            self._golden(old)
        except SentinodeError as error:
            raise RolloutError(
                f"there is no way back to the bundle that serves: {error.found}",
                "a registry that holds it, for a replica that starts needs it as well",
                "bring it back first (docs/runbook.md), or apply the overlay with the new digest",
            ) from error
        for digest in {step.bundle for step in steps}:
            self._golden(digest)

    def step(self, step: Step, old: str, check: Callable[[], object]) -> None:
        """Return when the endpoint does what the step wants. ``check`` is called before each look.

        Raises StepFailedError, or GatewayError where the endpoint is silent.
        """
        if step.golden is not None:
            model = CANDIDATE if step.golden == "candidate" else ""
            worst = self._ask(model, step.bundle, step.config, check)
            log.info("golden patches of %s reproduced to %.1e", step.bundle[:12], worst)
        if step.hold_s:
            watch(step, old, self._gateway, self._settings, check)

    def restored(self, before: Step, check: Callable[[], object]) -> str:
        """Return when the bundle of ``before`` answers: what is nevertheless not as it promises, in words.

        Its golden patches may differ now as they did before, by a gateway that spoils images, say: nobody asked then.
        Raises StepFailedError where it does not answer, BundleError or StoreError where it cannot be had.
        """
        bundle = ServeConfig(before.config).bundle
        try:
            worst = self._ask("", bundle, before.config, check)
        except GoldenDiffersError as error:
            return f"the bundle from before answers, but not as it promises either: {error.found}"
        log.info("%s answers again, golden patches reproduced to %.1e", bundle[:12], worst)
        return ""

    def _ask(self, model: str, bundle: str, config: str, check: Callable[[], object]) -> float:
        deadline_s = time.monotonic() + self._settings.patience.step_s
        said = ""

        def may_go_on(why: str) -> bool:
            nonlocal said
            check()
            refused = self._gateway.refusal()
            if refused:
                raise StepFailedError(f"the endpoint keeps its former traffic: {refused}")
            if why != said:
                said = why
                log.info("golden patches: %s", why)
            time.sleep(_PAUSE_S)
            return time.monotonic() < deadline_s

        canary = "" if model else ServeConfig(config).canary
        return check_golden(self._gateway, model, bundle, self._golden(bundle), may_go_on, canary)
