"""LitServe with batches of up to 64: ``serve_litserve.py MODEL PORT WORKERS``. It takes forms with a part ``image``."""

import math
import sys
from typing import Any

import litserve
import numpy as np
import simplejpeg
from fastapi import Request
from serve_peers import session


class Api(litserve.LitAPI):
    """Decoding, batching and inference in the worker, as its documentation has it."""

    def __init__(self, path: str, **options: Any) -> None:
        super().__init__(**options)
        self._path = path

    def setup(self, device: str) -> None:
        self._model = session(self._path)

    def decode_request(self, request: Request) -> Any:
        return simplejpeg.decode_jpeg(request["image"].file.read(), colorspace="RGB")

    def batch(self, inputs: Any) -> Any:
        return np.stack(inputs)

    def predict(self, images: Any) -> Any:
        return self._model.run(None, {"images": images})[0]

    def unbatch(self, output: Any) -> Any:
        return list(output)

    def encode_response(self, output: Any) -> dict[str, float]:
        return {"probability": 1 / (1 + math.exp(-float(output)))}


if __name__ == "__main__":
    api = Api(sys.argv[1], max_batch_size=64, batch_timeout=0.002, api_path="/")
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=int(sys.argv[3]))
    server.run(port=int(sys.argv[2]), log_level="warning", generate_client_file=False)
