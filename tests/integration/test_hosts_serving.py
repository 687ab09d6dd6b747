"""Ray Serve over two hosts, of which one is cut off: real replicas behind HAProxy, over a real network."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from host_parts import Network, program, why_not
from load_parts import HEADER_TIMEOUT_S, KEY, Load, until
from ray_hosts import Machines, health_checks
from serving_parts import encode, make_parts, random_patches

from sentinode.serving.ingress import haproxy_variables
from sentinode.storage import join_url, open_store

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not() or "this machine can hold hosts")

BUCKET = "s3://hosts"
PATCH = encode(random_patches(1, seed=2)[0], "JPEG")
PORT = 8000
STARTED_S = 240.0
SILENT_S = 40.0
"""HAProxy gives a silent replica up after some fifteen seconds; twice that, for a machine that is at work."""


@pytest.fixture
def machines(monkeypatch: pytest.MonkeyPatch, repository: Path) -> Iterator[Machines]:
    """A head and two nodes of one CPU, all with HAProxy, and a store."""
    with Network() as network:
        found = Machines(network)
        for name, value in found.environment.items():
            monkeypatch.setenv(name, value)
        found.start_store("hosts")
        nodes = [network.add(name) for name in ("left", "right")]
        base = found.head.outside.parent
        extra = {
            host.name: haproxy_variables(base / f"{host.name}-haproxy", HEADER_TIMEOUT_S)
            | {"SENTINODE_API_KEYS": KEY}
            for host in (found.head, *nodes)
        }
        found.start_head(health_checks(repository) | extra[found.head.name])
        found.start_nodes(*nodes, extra=extra)
        yield found


def test_the_endpoint_answers_where_a_host_is_cut_off(machines: Machines, tmp_path: Path) -> None:
    left, right = (machines.network.hosts[name] for name in ("left", "right"))
    with machines.store.entered():
        registry = open_store(join_url(BUCKET, "registry"))
        digest = make_parts(tmp_path).seal(registry)
    deploy(machines, {"registry": registry.url, "bundle": digest, "num_replicas": 2, "cpus_per_replica": 1})
    with right.entered():
        load = Load(f"http://{right.address}:{PORT}", PATCH, connections=8)
        with load.running():
            until("replies come", lambda: load.statuses[200] > 200, STARTED_S)
            began = len(load.replies)
            machines.network.unplug(left)
            cut_s = time.monotonic()
            time.sleep(SILENT_S)
            load.after(100)
    replies = load.replies[began:]
    lost = [reply for reply in replies if reply.status != 200]
    longest_s = max(reply.took_s for reply in replies)
    print(f"{len(lost)} of {len(replies)} requests lost, the longest wait {longest_s:.1f} s")
    assert len(lost) <= load.connections, "those that were at the host that was cut off"
    assert all(reply.began_s < cut_s + 1 for reply in lost)
    assert longest_s < SILENT_S
    assert {json.loads(reply.body)["bundle"] for reply in replies if reply.status == 200} == {digest}


def deploy(machines: Machines, args: dict[str, Any]) -> None:
    """By ``serve deploy``, as operators do; returns when two replicas run, each on a node of its own."""
    application = {"name": "sentinode", "route_prefix": "/", "import_path": "app:build", "args": args}
    config = {
        "proxy_location": "EveryNode",
        "http_options": {"host": "0.0.0.0", "port": PORT, "request_timeout_s": 60},
        "applications": [application],
    }
    head = machines.head
    file = head.outside.parent / "serve.yaml"
    file.write_text(yaml.safe_dump(config))
    environment = {**machines.environment, "RAY_DASHBOARD_ADDRESS": "http://127.0.0.1:8265"}

    def ran(*command: str) -> str:
        began = len(head.log)
        process = head.start(program("serve"), *command, environment=environment)
        code = process.wait(120)
        return head.log[began:] if code == 0 else ""

    until("serve deploy", lambda: ran("deploy", str(file)), STARTED_S)
    until("two replicas run", lambda: "RUNNING: 2" in ran("status"), STARTED_S)
