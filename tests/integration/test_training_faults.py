"""Training that is hard to kill: nodes, drains, drivers, stores. A real Ray of several local nodes."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from cluster_parts import two_nodes
from faults import FaultProxy, error
from ray._raylet import GcsClient
from ray.cluster_utils import Cluster
from test_training_ray import Told, experiment
from training_parts import write_lesson

from sentinode.cli import INTERRUPTED
from sentinode.distributed.cluster import ray_session
from sentinode.distributed.scaling import ScalingSettings
from sentinode.distributed.trainer import train
from sentinode.storage import join_url, open_store
from sentinode.storage.embedded import EmbeddedStore
from sentinode.training.checkpoint import load_history
from sentinode.training.metrics import EpochRecord

PREEMPTION = 2
"""ray drain-node --reason DRAIN_NODE_REASON_PREEMPTION"""


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, repository: Path) -> None:
    monkeypatch.setenv("SENTINODE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.setenv("PYTHONPATH", str(repository / "platform"))


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """A head without CPUs and two nodes of one each."""
    with two_nodes() as found:
        yield found


ELASTIC = ScalingSettings(num_workers=2, min_workers=1, resize_every_s=2.0)


def test_a_lost_node_shrinks_the_run_and_a_new_one_lets_it_grow(cluster: Cluster, tmp_path: Path) -> None:
    url = str(tmp_path)
    write_lesson(join_url(url, "data"))
    acts: list[str] = []
    moments: list[float] = []
    joining: list[subprocess.Popen[bytes]] = []

    def act(record: EpochRecord) -> None:
        if record.epoch >= 3 and not acts:
            acts.append("killed")
            moments.append(time.monotonic())
            victim = sorted(cluster.worker_nodes, key=lambda node: node.node_id)[0]
            cluster.remove_node(victim, allow_graceful=False)
        if record.world_size == 1 and acts == ["killed"]:
            acts.append("added")
            moments.append(time.monotonic())
            joining.append(another_node(cluster))

    asked = experiment(url, "elastic", epochs=150, save={"every_steps": 4})
    try:
        result = train(asked, ELASTIC, Told(act))
    finally:
        for node in joining:
            node.terminate()
            node.wait()
    history = load_history(open_store(asked.run))
    assert [record.epoch for record in history] == list(range(1, 151))
    sizes = [record.world_size for record in history]
    assert [size for i, size in enumerate(sizes) if i == 0 or sizes[i - 1] != size] == [2, 1, 2]
    assert result.best.valid_auroc > 0.95
    killed_s, resumed_s = moments
    assert resumed_s - killed_s < 60, "an epoch on the node that was left was over within a minute"


def test_a_notice_of_preemption_saves_within_the_epoch(cluster: Cluster, tmp_path: Path) -> None:
    url = str(tmp_path)
    write_lesson(join_url(url, "data"), train=6400, shard=1600)
    asked = experiment(url, "drained", epochs=3, save={"every_minutes": None})
    saved: set[str] = set()
    over = threading.Event()

    def drain() -> None:
        folder = tmp_path / "runs" / "drained" / "checkpoints"
        while not (folder.parent / "progress.json").exists():
            if over.wait(0.2):
                return
        node = sorted(cluster.worker_nodes, key=lambda n: n.node_id)[0]
        client = GcsClient(address=cluster.address)
        client.drain_node(node.node_id, PREEMPTION, "spot", int((time.time() + 25) * 1000))
        while not over.wait(0.2):
            saved.update(path.name for path in folder.glob("epoch-*-step-*"))

    thread = threading.Thread(target=drain)
    thread.start()
    try:
        train(asked, ELASTIC, Told())
    finally:
        over.set()
        thread.join()
    assert saved, "the state was saved between two steps, though only ends of epochs were asked for"
    assert [record.epoch for record in load_history(open_store(asked.run))] == [1, 2, 3]


def test_a_store_out_of_reach_for_half_a_minute_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with EmbeddedStore() as store, FaultProxy(store.environment["AWS_ENDPOINT_URL"]) as proxy:
        for name, value in store.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.url)
        write_lesson(join_url(store.url, "data"))
        asked = experiment(store.url, "outage", epochs=30, save={"every_steps": 5})
        began: list[float] = []

        def act(record: EpochRecord) -> None:
            if record.epoch >= 2 and not began:
                began.append(time.monotonic())
                proxy.fail(r"/runs/outage/", times=None, fault=error(503, "SlowDown"))
                threading.Timer(30, proxy.clear).start()

        with ray_session("local", num_cpus=2):
            result = train(asked, onlooker=Told(act))
        assert began
        assert time.monotonic() - began[0] > 30
        assert result.epochs == 30
        assert [record.epoch for record in load_history(open_store(asked.run))] == list(range(1, 31))


def test_a_driver_that_is_interrupted_or_killed_is_resumed_by_the_same_command(tmp_path: Path) -> None:
    write_lesson(str(tmp_path / "data"), train=640)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert train_command(tmp_path, whole).wait(300) == 0
    process = train_command(tmp_path, cut)
    wait_for_epochs(1, cut, process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == INTERRUPTED
    assert (tmp_path / "cut.log").read_text().endswith("interrupted; the same command resumes where it can\n")
    process = train_command(tmp_path, cut)
    wait_for_epochs(3, cut, process)
    kill_with_offspring(process)
    assert not (cut / "weights").exists()
    assert train_command(tmp_path, cut).wait(300) == 0
    weights = Path("weights", "best.safetensors")
    assert (whole / weights).read_bytes() == (cut / weights).read_bytes()


@pytest.mark.timeout(1200)
def test_of_two_commands_on_one_run_the_later_one_goes_on(tmp_path: Path) -> None:
    write_lesson(str(tmp_path / "data"), train=640)
    run = tmp_path / "run"
    commands = [train_command(tmp_path, run, epochs=5000)]
    try:
        wait_for_epochs(1, run, commands[0])
        commands.append(train_command(tmp_path, run, epochs=5000))
        assert commands[0].wait(600) == 1
        assert "was begun once more after this one" in (tmp_path / "run.log").read_text()
        done = len(load_history(open_store(str(run))))
        wait_for_epochs(done + 3, run, commands[1])
    finally:
        for process in commands:
            if process.poll() is None:
                kill_with_offspring(process)


def another_node(cluster: Cluster) -> subprocess.Popen[bytes]:
    """A node that joins from outside; Cluster can start one in the main thread only."""
    program = Path(sys.executable).with_name("ray")
    return subprocess.Popen([program, "start", f"--address={cluster.address}", "--num-cpus=1", "--block"])


def train_command(folder: Path, run: Path, epochs: int = 60) -> subprocess.Popen[bytes]:
    settings = f"--train.epochs {epochs} --train.batch-size 16 --train.save.every-steps 3 --ray-address local"
    program = Path(sys.executable).with_name("sentinode")
    command = [program, "train", f"--data={folder / 'data'}", f"--run={run}"]
    with (folder / f"{run.name}.log").open("ab") as log:
        return subprocess.Popen([*command, *settings.split()], stdout=log, stderr=log, start_new_session=True)


def wait_for_epochs(count: int, run: Path, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 240
    while len(load_history(open_store(str(run)))) < count:
        assert process.poll() is None, "the run ended before it could be stopped"
        assert time.monotonic() < deadline
        time.sleep(0.05)


def kill_with_offspring(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL the driver alone, then whatever of its Ray has not noticed after a while."""
    offspring = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGKILL)
    process.wait()
    _, alive = psutil.wait_procs(offspring, timeout=15)
    for child in alive:
        with suppress(psutil.Error):
            child.kill()
