"""A real Ray of several nodes on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import ray
from ray.cluster_utils import Cluster

from sentinode.distributed.cluster import ray_session


@contextmanager
def two_nodes() -> Iterator[Cluster]:
    """A head without CPUs and two nodes of one each, joined by this process."""
    found = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    try:
        for _ in range(2):
            found.add_node(num_cpus=1)
        found.wait_for_nodes()
        with ray_session(found.address):
            yield found
    finally:
        ray.shutdown()
        found.shutdown()
