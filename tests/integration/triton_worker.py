"""The real tritonclient, in a Python of its own: asks an endpoint over HTTP and gRPC and prints what it got, as JSON.

$ PYTHONPATH=<tritonclient> python -S triton_worker.py <http host:port> <grpc host:port> <key> <folder>

The folder holds ``pixels.npy`` (uint8 [B, 96, 96, 3]) and the same patches as ``0.png``, ``1.png``, ...
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

BULK = 256


def tensor(kind: ModuleType, name: str, datatype: str, array: Any) -> Any:
    one = kind.InferInput(name, list(array.shape), datatype)
    one.set_data_from_numpy(array)
    return one


def answer(result: Any) -> dict[str, Any]:
    names = ("probability", "raw_probability", "verdict", "abstained", "flags")
    arrays = {name: result.as_numpy(name) for name in names}
    return {
        name: [value.decode() if isinstance(value, bytes) else value for value in array.tolist()]
        for name, array in arrays.items()
    }


def refused(kind: ModuleType, ask: Any) -> list[str]:
    try:
        ask()
    except importlib.import_module("tritonclient.utils").InferenceServerException as error:
        return [str(error.status()), error.message()]
    return ["nothing", "was refused"]


def ask(kind: ModuleType, url: str, headers: dict[str, str], folder: Path) -> dict[str, Any]:
    """What one sort of client (``tritonclient.http`` or ``.grpc``) gets."""
    over_grpc = kind.__name__.endswith("grpc")
    plain = {"as_json": True} if over_grpc else {}
    pixels = np.load(folder / "pixels.npy")
    files = [(folder / f"{number}.png").read_bytes() for number in range(len(pixels))]
    client = kind.InferenceServerClient(url)
    images = [tensor(kind, "images", "UINT8", pixels)]
    encoded = [tensor(kind, "encoded_images", "BYTES", np.array(files, dtype=np.object_))]
    wrong = [tensor(kind, "images", "FP32", np.zeros((1, 96, 96, 3), np.float32))]
    outputs = [kind.InferRequestedOutput(name) for name in ("flags", "probability")]
    many = np.resize(pixels, (BULK, 96, 96, 3))
    bulk = client.infer("default", [tensor(kind, "images", "UINT8", many)], headers=headers)
    chosen = client.infer("default", images, outputs=outputs, request_id="r1", headers=headers)
    reply = chosen.get_response(as_json=True) if over_grpc else chosen.get_response()
    return {
        "live": client.is_server_live(),
        "ready": client.is_server_ready(),
        "model_ready": client.is_model_ready("default", headers=headers),
        "unknown_ready": client.is_model_ready("nobody", headers=headers),
        "server": client.get_server_metadata(headers=headers, **plain),
        "model": client.get_model_metadata("default", headers=headers, **plain),
        "config": client.get_model_config("default", headers=headers, **plain),
        "index": client.get_model_repository_index(headers=headers, **plain),
        "pixels": answer(client.infer("default", images, headers=headers)),
        "encoded": answer(client.infer("default", encoded, headers=headers)),
        "bulk": bulk.as_numpy("probability").tolist(),
        "version": reply["model_version"],
        "id": reply["id"],
        "chosen": [one["name"] for one in reply["outputs"]],
        "pinned": answer(
            client.infer("default", images, model_version=reply["model_version"], headers=headers)
        ),
        "no_key": refused(kind, lambda: client.infer("default", images)),
        "no_model": refused(kind, lambda: client.infer("nobody", images, headers=headers)),
        "wrong_type": refused(kind, lambda: client.infer("default", wrong, headers=headers)),
        "flagged": answer(client.infer("default", images, headers={**headers, "x-mpp-um-px": "0.25"})),
    }


def main() -> None:
    http, grpc, key, folder = sys.argv[1:]
    urls = {"http": http, "grpc": grpc}
    kinds = {name: importlib.import_module(f"tritonclient.{name}") for name in urls}
    # A dictionary for each: the HTTP client writes its own headers into the one that it is given.
    print(
        json.dumps(
            {
                name: ask(kinds[name], url, {"authorization": f"Bearer {key}"}, Path(folder))
                for name, url in urls.items()
            }
        )
    )


main()
