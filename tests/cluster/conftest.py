"""The cluster that SENTINODE_CLUSTER names; a site on it for the session, gone afterwards, or left to be looked at with
SENTINODE_CLUSTER_KEEP=1.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from cluster_site import CONTEXT, Site


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    if not CONTEXT:
        pytest.skip(
            "no cluster: set SENTINODE_CLUSTER to a context of your kubeconfig, see docs/kubernetes.md"
        )
    made = Site.make(tmp_path_factory.mktemp("site"))
    already = set(made.kubectl("get", "priorityclass", "-o", "name").split())
    theirs = "priorityclass.scheduling.k8s.io/sentinode-head" in already
    if theirs:
        # Somebody's Sentinode has them; they are the same in each.
        platform = made.folder / "k8s/base/platform/kustomization.yaml"
        platform.write_text(platform.read_text().replace("  - priorities.yaml\n", ""))
    yield made
    if os.environ.get("SENTINODE_CLUSTER_KEEP") == "1":
        return
    made.kubectl("delete", "namespace", made.namespace, "--ignore-not-found", "--timeout=10m", timeout_s=630)
    if not theirs:
        ours = [
            one["metadata"]["name"] for one in made.built("local/platform") if one["kind"] == "PriorityClass"
        ]
        made.kubectl("delete", "priorityclass", "--ignore-not-found", *ours)
