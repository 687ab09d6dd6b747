"""A real Ray Serve behind HAProxy under load: swapped, updated, killed, overloaded, scaled, asked for long."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from load_parts import HEADER_TIMEOUT_S, KEY, PATIENCE_S, Load, ServeCluster, memory_mib, until
from serving_parts import Parts, encode, make_card, random_patches, sealed_registry

import sentinode
from sentinode.serving.protocol import Refusal
from sentinode.storage import Store

PATCH = encode(random_patches(1, seed=2)[0], "JPEG")
BODY_TIMEOUT_S = 2.0
SOAK_S = float(os.environ.get("SENTINODE_SOAK_S", "9"))
GROWTH_MIB = 48.0
"""Of two replicas, after a third of the time; the allocator's own ups and downs are about 20."""


@dataclass(frozen=True)
class Service:
    """The cluster, and the registry that its endpoints read."""

    cluster: ServeCluster
    store: Store
    parts: Parts
    first: str
    second: str
    """The same model under another card."""

    def args(self, **changes: Any) -> dict[str, Any]:
        small = {"registry": self.store.url, "bundle": self.first, "cpus_per_replica": 0.2}
        return {**small, "trust": {"body_timeout_s": BODY_TIMEOUT_S}, **changes}

    def load(self, name: str, connections: int = 4) -> Load:
        return Load(self.cluster.url(name), PATCH, connections)

    def user_config(self, digest: str) -> dict[str, Any]:
        return {"models": {"main": {"bundle": digest}}, "default": "main"}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("load")
    store, first, parts = sealed_registry(folder)
    second = parts.seal(store, make_card(licence="CC0"))
    with ServeCluster(folder) as cluster:
        service = Service(cluster, store, parts, first, second)
        cluster.deploy("pair", service.args(num_replicas=2))
        narrow = {"max_ongoing_requests": 2, "max_queued_requests": 2, "batch_wait_ms": 100}
        cluster.deploy("narrow", service.args(**narrow))
        step = {"min_replicas": 1, "max_replicas": 2, "target_ongoing_requests": 2}
        cluster.deploy("step", service.args(autoscaling=step))
        for name in ("pair", "narrow", "step"):
            cluster.wait_running(name)
        yield service


def test_swap_by_user_config_loses_no_request(service: Service) -> None:
    cluster, load = service.cluster, service.load("pair")
    before = set(cluster.replicas("pair"))
    with load.running():
        load.after(50)
        cluster.deploy("pair", service.args(num_replicas=2), service.user_config(service.second))
        until("all answers are the new bundle's", lambda: _last_bundles(load) == {service.second})
        load.after(50)
    assert set(load.statuses) == {200}
    assert load.replies[0].bundle == service.first
    assert set(cluster.replicas("pair")) == before, "the processes are the same"


def test_tampered_bundle_leaves_the_old_one_answering(service: Service) -> None:
    cluster, load = service.cluster, service.load("pair")
    bad = service.parts.seal(service.store, make_card(licence="tampered"))
    path = Path(service.store.url) / "bundles" / bad / "model.onnx"
    path.write_bytes(path.read_bytes()[:-1] + b"\x00")
    old = _last_bundle(service)
    with load.running():
        cluster.deploy("pair", service.args(num_replicas=2), service.user_config(bad))
        until("a replica says why", lambda: b"model.onnx" in cluster.get("pair", "/v1/models")[1])
        load.after(50)
        cluster.deploy("pair", service.args(num_replicas=2), service.user_config(old))
        until("the failure is over", lambda: _is_well(cluster))
    assert set(load.statuses) == {200}
    assert {reply.bundle for reply in load.replies} == {old}


def test_killed_replica_costs_no_client_its_answer(service: Service) -> None:
    cluster = service.cluster
    before = set(cluster.replicas("pair"))
    victim = min(before)
    with sentinode.Client(cluster.url("pair"), KEY, timeout_s=PATIENCE_S, connections=4) as client:
        replies = client.predict_many([PATCH] * 2000)
        first = [next(replies) for _ in range(200)]
        os.kill(victim, signal.SIGKILL)
        assert len(first) + sum(1 for _ in replies) == 2000
    until("another replica is there", lambda: len(set(cluster.replicas("pair")) - {victim}) == 2)


def test_update_to_a_missing_bundle_is_rolled_back_without_a_lost_request(service: Service) -> None:
    # One connection: replicas that start need the cores.
    cluster, load = service.cluster, service.load("pair", connections=1)
    with load.running():
        cluster.deploy("pair", service.args(num_replicas=2, bundle="0" * 64))
        until("it failed", lambda: cluster.application("pair")["status"] == "DEPLOY_FAILED")
        (deployment,) = cluster.application("pair")["deployments"].values()
        assert f"there is no bundle {'0' * 64}" in deployment["message"]
        load.after(50)
        cluster.deploy("pair", service.args(num_replicas=2, bundle=service.second))
        until("all answers are the second bundle's", lambda: _last_bundles(load) == {service.second})
        load.after(50)
    assert set(load.statuses) == {200}


def test_overload_is_refused_at_once_and_the_admitted_are_answered(service: Service) -> None:
    """Two may be under way and two wait; ten clients ask without a pause. A batch waits 0.1 s for company."""
    calm, load = service.load("narrow", connections=2), service.load("narrow", connections=10)
    with calm.running():
        calm.after(10)
    with load.running():
        until("some were answered", lambda: load.statuses[200] >= 20)
        until("some were refused", lambda: load.statuses[503] >= 100)
    assert set(load.statuses) == {200, 503}
    refused = [reply for reply in load.replies if reply.status == 503]
    assert len(load.replies) > 5 * load.statuses[200], "that is no overload"
    assert {reply.retry_after for reply in refused} == {"1"}
    assert {Refusal.model_validate_json(reply.body).status for reply in refused} == {503}
    calm_s, admitted_s = (median(r.took_s for r in one.replies if r.status == 200) for one in (calm, load))
    refused_s = median(reply.took_s for reply in refused)
    print(f"{calm_s * 1e3:.0f} ms calm, {admitted_s * 1e3:.0f} ms admitted, {refused_s * 1e3:.1f} ms refused, "
          f"{max(reply.took_s for reply in refused) * 1e3:.0f} ms at most")  # fmt: skip
    assert refused_s < 0.1, "a refusal does not wait for a batch"
    assert admitted_s < 5 * calm_s, "an admitted request waits for those before it, and for no others"


def test_deadline_that_passes_is_told_in_json(service: Service) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", service.cluster.port, timeout=PATIENCE_S)
    headers = {"X-API-Key": KEY, "X-Request-Timeout-Seconds": "0.02"}
    connection.request("POST", "/narrow/v1/predict", PATCH, headers)
    response = connection.getresponse()
    assert (response.status, Refusal.model_validate_json(response.read()).status) == (408, 408)
    connection.close()


def test_slow_clients_are_cut_off_and_disturb_nobody(service: Service) -> None:
    load = service.load("pair")
    head = f"POST /pair/v1/predict HTTP/1.1\r\nHost: a\r\nX-API-Key: {KEY}\r\nContent-Length: 1000\r\n"
    with ThreadPoolExecutor(40) as pool, load.running():
        bodies = [pool.submit(_trickle, service, f"{head}\r\n".encode()) for _ in range(20)]
        headers = [pool.submit(_trickle, service, head.encode()) for _ in range(20)]
        load.after(100)
        assert {reply[9:12] for reply in (one.result(PATIENCE_S) for one in bodies)} == {b"408"}
        assert {reply[9:12] for reply in (one.result(PATIENCE_S) for one in headers)} == {b"408"}
    assert set(load.statuses) == {200}


def test_step_of_load_gets_its_second_replica(service: Service) -> None:
    cluster, load = service.cluster, service.load("step", connections=16)
    assert len(cluster.replicas("step")) == 1
    began_s = time.monotonic()
    with load.running():
        until("two replicas", lambda: len(cluster.replicas("step")) == 2)
        print(f"second replica after {time.monotonic() - began_s:.1f} s")
        load.after(100)
    assert set(load.statuses) == {200}


def test_idle_endpoint_goes_and_comes_back(service: Service) -> None:
    cluster = service.cluster
    zero = {"min_replicas": 0, "max_replicas": 1, "downscale_delay_s": 1.0}
    cluster.deploy("step", service.args(autoscaling=zero))
    until("no replica is left", lambda: cluster.application("step")["status"] == "RUNNING"
          and not cluster.replicas("step"))  # fmt: skip
    with sentinode.Client(cluster.url("step"), KEY, timeout_s=PATIENCE_S) as client:
        assert client.predict(PATCH).bundle == service.first


def test_request_id_is_told_once(service: Service) -> None:
    with socket.create_connection(("127.0.0.1", service.cluster.port), timeout=PATIENCE_S) as client:
        client.sendall(
            b"GET /pair/healthz HTTP/1.1\r\nHost: a\r\nX-Request-ID: mine-1\r\nConnection: close\r\n\r\n"
        )
        reply = b"".join(iter(lambda: client.recv(65536), b"")).lower()
    assert reply.count(b"x-request-id: mine-1") == reply.count(b"x-request-id") == 1


def test_predictions_take_the_fast_lane(service: Service) -> None:
    request = urllib.request.Request(
        service.cluster.url("pair") + "/v1/predict", PATCH, {"X-API-Key": KEY}, method="POST"
    )
    with urllib.request.urlopen(request, timeout=PATIENCE_S) as response:
        told = response.headers.get_all("x-request-id")
    (request_id,) = told
    assert re.fullmatch("[0-9a-f]{8}-[0-9a-f]+", request_id), "Ray's own are UUIDs"


@pytest.mark.timeout(600 + SOAK_S)
def test_memory_stays_flat_over_a_soak(service: Service) -> None:
    """Requests of all kinds for SENTINODE_SOAK_S seconds (1800 for the half hour), on the replicas that are there."""
    cluster = service.cluster
    cluster.wait_running("pair")
    pids, over_s = set(cluster.replicas("pair")), time.monotonic() + SOAK_S
    with ThreadPoolExecutor(8) as pool:
        asked = sum(pool.map(lambda n: _ask_kinds(cluster, n, over_s - SOAK_S * 2 / 3), range(8)))
        before_mib = memory_mib(pids)
        asked += sum(pool.map(lambda n: _ask_kinds(cluster, n, over_s), range(8)))
    growth_mib = memory_mib(pids) - before_mib
    print(f"{asked} requests in {SOAK_S:g} s, {before_mib:.0f} {growth_mib:+.1f} MiB in {len(pids)} replicas")
    assert asked > 0
    assert set(cluster.replicas("pair")) == pids
    assert growth_mib < GROWTH_MIB


def _ask_kinds(cluster: ServeCluster, seed: int, over_s: float) -> int:
    """Ask until ``over_s`` (monotonic) for what is good and what is not: how many requests it were."""
    patches = random_patches(16, seed)
    form = b"--b\r\nContent-Disposition: form-data; name=x\r\n\r\n" + PATCH + b"\r\n--b--\r\n"
    kinds: list[tuple[bytes, dict[str, str], int]] = [
        (encode(patches[0], "JPEG"), {}, 200),
        (encode(patches[1], "PNG"), {}, 200),
        (encode(patches[2], "TIFF"), {}, 200),
        (form, {"Content-Type": "multipart/form-data; boundary=b"}, 200),
        (patches.tobytes(), {"X-Sentinode-Shape": "16,96,96,3"}, 200),
        (b"no image", {}, 415),
        (PATCH[:200], {}, 400),
        (bytes(2 << 20), {}, 413),
    ]
    connection, asked = http.client.HTTPConnection("127.0.0.1", cluster.port, timeout=PATIENCE_S), 0
    while time.monotonic() < over_s:
        for body, headers, status in kinds:
            connection.request("POST", "/pair/v1/predict", body, {"X-API-Key": KEY, **headers})
            response = connection.getresponse()
            assert (response.status, response.read()[:1]) == (status, b"{")
            asked += 1
        assert cluster.get("pair", "/metrics")[0] == cluster.get("pair", "/v1/models")[0] == 200
    connection.close()
    return asked


def _last_bundles(load: Load) -> set[str]:
    return {reply.bundle for reply in load.replies[-20:] if reply.status == 200}


def _last_bundle(service: Service) -> str:
    return str(json.loads(service.cluster.get("pair", "/healthz")[1])["bundle"])


def _is_well(cluster: ServeCluster) -> bool:
    """Each of many looks meets one replica or the other."""
    return all(not json.loads(cluster.get("pair", "/v1/models")[1])["failure"] for _ in range(8))


def _trickle(service: Service, head: bytes) -> bytes:
    """The reply to a client that sends ``head``, then a byte now and then, until it is cut off."""
    with socket.create_connection(
        ("127.0.0.1", service.cluster.port), timeout=HEADER_TIMEOUT_S / 10
    ) as client:
        client.sendall(head)
        deadline_s = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline_s:
            try:
                return client.recv(65536)
            except TimeoutError:
                client.sendall(b"x")
    raise AssertionError("a slow client was never cut off")
