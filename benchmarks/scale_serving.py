"""A simulation of serving under a step of load: replicas with queues, an autoscaler that looks back and waits.

Time goes on by hundredths of a second. Requests come at random (Poisson) and join the shorter of two queues drawn
at random, as Ray Serve's router does; a replica works off ``replica_req_s``; a full queue refuses with 503. The
autoscaler wants ``target`` requests under way for each replica, averaged over its look-back.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

STEP_S = 0.01


@dataclass(frozen=True)
class Endpoint:
    """Replicas and their autoscaler."""

    replica_req_s: float = 1500.0
    start_s: float = 5.0
    """From the decision to a replica that answers, where a pod has room."""
    node_start_s: float = 90.0
    """More where a node has to be started first."""
    warm_replicas: int = 8
    """Replicas for which nodes stand ready."""
    minimum: int = 2
    maximum: int = 64
    target: float = 16.0
    """Requests under way for each replica."""
    look_back_s: float = 2.0
    interval_s: float = 1.0
    queue: int = 256
    """Requests that a replica lets wait; more are refused."""


@dataclass(frozen=True)
class Trace:
    """By steps of time [T]."""

    replicas_T: NDArray[np.float64]
    refused_T: NDArray[np.float64]
    """Share of the arrivals of a step."""
    wait_ms_T: NDArray[np.float64]
    """The longest queue of a step, as time to work it off."""


def simulate(endpoint: Endpoint, load_req_s_T: NDArray[np.float64], seed: int = 0) -> Trace:
    """The endpoint under ``load_req_s_T``, a rate for each step of time."""
    rng = np.random.default_rng(seed)
    queues = np.zeros(endpoint.minimum)
    pending: list[float] = []
    under_way: list[float] = []
    traces = np.zeros((3, len(load_req_s_T)))
    for step, load in enumerate(load_req_s_T):
        now = step * STEP_S
        ready = sum(at <= now for at in pending)
        pending = [at for at in pending if at > now]
        queues = np.concatenate([queues, np.zeros(ready)])
        arrivals = int(rng.poisson(load * STEP_S))
        refused = 0
        pairs = rng.integers(0, len(queues), (arrivals, 2))
        for a, b in pairs:
            chosen = a if queues[a] <= queues[b] else b
            if queues[chosen] >= endpoint.queue:
                refused += 1
            else:
                queues[chosen] += 1
        longest = float(queues.max())
        # Requests under way are those that wait and those of the batch at work, half an interval's worth.
        under_way.append(float(queues.sum()))
        queues = np.maximum(queues - endpoint.replica_req_s * STEP_S, 0)
        traces[:, step] = len(queues), refused / max(arrivals, 1), longest / endpoint.replica_req_s * 1000
        if step % round(endpoint.interval_s / STEP_S) == 0 and step:
            recent = float(np.mean(under_way[-round(endpoint.look_back_s / STEP_S) :]))
            wanted = min(max(math.ceil(recent / endpoint.target), endpoint.minimum), endpoint.maximum)
            have = len(queues) + len(pending)
            for number in range(have, wanted):
                cold = number >= endpoint.warm_replicas
                pending.append(now + endpoint.start_s + (endpoint.node_start_s if cold else 0))
    return Trace(*traces)
