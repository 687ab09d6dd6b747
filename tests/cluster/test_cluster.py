"""A cluster that somebody lends, from an empty namespace to a served verdict, rolled out, broken and mended, as
docs/kubernetes.md says and with its own commands. The tests are steps: each needs those before it.

    SENTINODE_CLUSTER=<context> make test-cluster
"""

from __future__ import annotations

import re
import time
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from cluster_endpoint import (
    PATCH,
    SERVE,
    active,
    asked,
    await_interactive,
    await_verdict,
    ready_workers,
    registry,
    rolled_out,
)
from cluster_site import BLOCKS, JOBS, Site, block_of
from serving_parts import Parts, make_parts

from sentinode.bundle.golden import Golden
from sentinode.bundle.onnx_model import OnnxModel
from sentinode.errors import RequestError
from sentinode.evaluation.calibrator import Calibration
from sentinode.serving.client import Client
from sentinode.storage import open_store

pytestmark = pytest.mark.timeout(2700)
OVERLAYS = ("production", "gpu", "local")
PROBE = "import socket; socket.create_connection(('{}', {}), 4)"


def put(parts: Parts) -> str:
    """The digest of a bundle that is in the cluster's registry now."""
    return parts.seal(open_store("s3://sentinode-data/registry"))


@pytest.mark.parametrize("first", BLOCKS.values(), ids=BLOCKS)
def test_the_document_has_the_commands(first: str) -> None:
    """Without any cluster."""
    assert block_of(first).startswith(first)


def test_the_operator_is_there(site: Site) -> None:
    served = site.kubectl("api-resources", "--api-group=ray.io", "-o", "name").split()
    wanted = {f"{kind}.ray.io" for kind in ("rayclusters", "rayjobs", "rayservices")}
    assert wanted <= set(served), "no KubeRay: install its operator as docs/kubernetes.md says"
    ours = ("-n", "kuberay-system", "get", "deployments", "-l", "app.kubernetes.io/name=kuberay-operator")
    ready = site.kubectl(*ours, "-o", "jsonpath={.items[*].status.readyReplicas}")
    assert ready, (
        "KubeRay's operator does not run in kuberay-system, from where alone the NetworkPolicies let it in"
    )


def test_the_platform_is_applied_as_documented(site: Site) -> None:
    said = site.documented("platform")
    key = re.search(r"snt_\S+", said)
    assert key is not None, said
    site.environment["SENTINODE_API_KEY"] = key[0]
    site.kubectl("rollout", "status", "deployment/store", "--timeout=10m", timeout_s=630)
    await_interactive(site)


def test_a_second_apply_changes_nothing(site: Site) -> None:
    site.kubectl("diff", "--server-side", "-k", "k8s/overlays/local/platform")
    site.kubectl("apply", "--server-side", "-k", "k8s/overlays/local/platform")


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_api_server_takes_every_manifest(site: Site, overlay: str) -> None:
    """Of the kinds that it has; the others are those of production's components, which docs/kubernetes.md lists."""
    for part in ("platform", "endpoint", "jobs"):
        given = yaml.safe_dump_all(site.built(f"{overlay}/{part}"))
        # Forced, for the overlays share names: what one has applied the next would take over.
        how = ["create"] if part == "jobs" else ["apply", "--server-side", "--force-conflicts"]
        site.kubectl(*how, "--dry-run=server", "--validate=strict", "-f", "-", given=given)


def test_ingest_and_train(site: Site) -> None:
    said = site.documented("jobs")
    assert "epoch 20 of 20" in said, said
    # The next ones need its place.
    site.kubectl("wait", "--for=delete", "raycluster", "-l", JOBS, "--timeout=5m", timeout_s=330)


def test_evaluate_promote_serve(site: Site) -> None:
    said = site.documented("promote")
    digests = re.findall(r"\b[0-9a-f]{64}\b", said)
    assert digests, said
    overlay = site.folder / "k8s/overlays/local/endpoint/kustomization.yaml"
    overlay.write_text(overlay.read_text().replace("0" * 64, digests[-1]))
    answer = site.documented("serve")
    assert digests[-1] in answer, answer
    site.kubectl("diff", "--server-side", "-k", "k8s/overlays/local/endpoint")
    site.kubectl("apply", "--server-side", "-k", "k8s/overlays/local/endpoint")


def test_score(site: Site) -> None:
    site.on_head("sentinode synthesize --out $SENTINODE_SLIDES --training 2 --testing 2")
    assert "slides scored: 4, failed: 0" in site.job("score", 1800)


def test_tune(site: Site) -> None:
    assert "report: s3://" in site.job("tune", 2400)


def test_pods_keep_to_restricted(site: Site) -> None:
    """The admission looks at the pods that run whenever the rule changes, and warns of what breaks it."""
    version = re.search(r'"gitVersion": "(v1\.\d+)', site.kubectl("get", "--raw", "/version"))
    assert version is not None
    label = ["label", "--dry-run=server", "--overwrite", "namespace", site.namespace]
    changed = [*label, f"pod-security.kubernetes.io/enforce-version={version[1]}"]
    told = site.tried("kubectl", *changed)
    assert told.returncode == 0, told.stderr
    assert "Warning" not in told.stderr, told.stderr
    refused = site.tried("kubectl", "run", "root", "--image=x", "--privileged", "--dry-run=server")
    assert "violates PodSecurity" in refused.stderr, (
        "a privileged pod is let in: PodSecurity is not enforced here"
    )


def test_who_has_no_business_is_kept_out(site: Site) -> None:
    with site.forward(SERVE, 8000) as url, pytest.raises(RequestError, match="key"), Client(url) as client:
        client.predict(PATCH)
    store = f"store.{site.namespace}"
    assert site.on_head(f'python -c "{PROBE.format(store, 9000)}" && echo open').strip() == "open"
    serve = f"{SERVE}.{site.namespace}"
    tried = site.on_head(f'python -c "{PROBE.format(serve, 8000)}" 2>&1 || true')
    assert "Error" in tried or "timed out" in tried, (
        "a batch cluster reaches the endpoint: NetworkPolicies are not enforced"
    )


def test_a_good_bundle_is_kept(site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with registry(site, monkeypatch):
        good = put(make_parts(tmp_path, seed=5))
        code, said = rolled_out(site, "--bundle", good)
    assert code == 0, said
    assert await_verdict(site) == good


def test_a_bad_bundle_is_taken_back(site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One whose golden patches the endpoint does not reproduce; `seal` would not let it pass."""
    monkeypatch.setattr(Golden, "check_reproduced", lambda *_: None)
    before = await_verdict(site)
    parts = make_parts(tmp_path, seed=7)
    images = parts.golden.images_BHWC
    wrong = Golden.of(images, OnnxModel(parts.onnx_path).logits(images) + 1.0, Calibration())
    with registry(site, monkeypatch), asked(site) as failed:
        code, said = rolled_out(site, "--bundle", put(replace(parts, golden=wrong)))
    assert code == 1, said
    assert "golden" in said
    assert await_verdict(site) == before
    assert not failed, failed[:3]


def test_while_an_image_cannot_be_pulled_the_old_one_serves(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, none = await_verdict(site), f"registry.invalid/sentinode/serve@sha256:{'1' * 64}"
    # Its place is needed: for some minutes there are three clusters.
    site.kubectl("delete", "raycluster", "interactive", "--timeout=5m", timeout_s=330)
    with registry(site, monkeypatch), asked(site) as failed:
        code, said = rolled_out(site, "--image", none, "--patience.step-s", "240")
    assert code == 1, said
    assert "ImagePull" in said, said
    assert await_verdict(site) == before
    assert not failed, failed[:3]
    # KubeRay deletes the two that do not serve after rayClusterDeletionDelaySeconds.
    left = set(site.kubectl("get", "rayclusters", "-o", "name").split()) - {
        f"raycluster.ray.io/{active(site)}"
    }
    site.kubectl("wait", "--for=delete", *left, "--timeout=10m", timeout_s=630)


@pytest.mark.parametrize("node", ["worker", "head"])
def test_a_pod_of_the_endpoint_is_deleted(site: Site, node: str) -> None:
    """A new one comes; without a store for heads (`local`) the workers start anew with their head."""
    before, bundle = ready_workers(site), await_verdict(site)
    pod = site.pods(f"ray.io/cluster={active(site)},ray.io/node-type={node}")[0]
    site.kubectl("delete", pod, "--timeout=5m", timeout_s=330)
    gone = set(before) if node == "head" else {pod.removeprefix("pod/")} & set(before)
    deadline_s = time.monotonic() + 900
    while len(now := ready_workers(site)) < len(before) or any(now.get(one) == before[one] for one in gone):
        assert time.monotonic() < deadline_s, f"not as before after 15 minutes\n{site.state()}"
        time.sleep(3)
    assert await_verdict(site) == bundle


def test_nothing_is_left(site: Site) -> None:
    site.kubectl("delete", "namespace", site.namespace, "--timeout=10m", timeout_s=630)
