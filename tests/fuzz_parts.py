"""Hostile requests, drawn from a seed: files, forms, JSON and headers, bent in the ways that break parsers."""

from __future__ import annotations

import json
import struct
import zlib
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from serving_parts import encode

from sentinode.serving.oip.messages import message

Headers = list[tuple[bytes, bytes]]
INFER = "/v2/models/default/infer"
BINARY_INFERENCE = b"application/octet-stream; json="
METHODS = ("POST", "POST", "POST", "POST", "GET", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "BREW", "")
PATHS = (
    "/v1/predict", "/v1/explain", INFER, "/v2/models/default", "/v2/models/default/config",
    "/v2/repository/index", "/v2/models/default/versions/1/infer",
    "/v2", "/v2/health/live", "/v2/health/ready", "/v1/models", "/v1/bundles/" + "0" * 64, "/metrics", "/healthz",
    "/openapi.json", "/", "/viewer/main.js", "/viewer/../asgi.py", "//", "/v1/predict/..", "/\x00", "/%2e%2e/%00",
    "/v2/models//infer", "/v2/models/%F0%9F/versions/\U0001f9ec/infer", "/" + "a" * 5000,
)  # fmt: skip
INTERESTING = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
TOKENS = (
    b"\x00" * 64, b"\xff\xd8\xff",
    b"\x89PNG\r\n\x1a\n", b"II*\x00", b"MM\x00*", b"\r\n\r\n", b"--x--", b"{" * 3000, b"[" * 3000,
    b"1e999", b"NaN", b"-1", b"\xed\xa0\x80", b"%00", b"../../etc/passwd", b"http://169.254.169.254/", b"file:///etc/passwd",
)  # fmt: skip


@dataclass(frozen=True)
class Attack:
    """One request; ``number`` and the seed give it again."""

    number: int
    method: str
    path: str
    query: bytes
    headers: Headers
    body: bytes
    chunks: int
    """Parts in which the body comes."""


class Attacker:
    """Draws attacks about ``patch`` (uint8 [96, 96, 3]); the same seed gives the same ones."""

    def __init__(self, patch_HWC: NDArray[np.uint8], seed: int, key: str = "") -> None:
        self._rng = np.random.default_rng(seed)
        self._key = key.encode()
        self._messages = inference_messages(patch_HWC)
        grey = patch_HWC[..., 0]
        self._bodies: list[tuple[bytes, bytes]] = [
            (b"image/png", encode(patch_HWC, "PNG")),
            (b"image/png", encode(patch_HWC, "PNG", compress_level=0)),
            (b"image/jpeg", encode(patch_HWC, "JPEG", quality=80)),
            (b"image/jpeg", encode(patch_HWC, "JPEG", progressive=True)),
            (b"image/tiff", encode(patch_HWC, "TIFF")),
            (b"image/tiff", encode(patch_HWC, "TIFF", compression="tiff_lzw")),
            (b"image/tiff", encode(patch_HWC, "TIFF", compression="tiff_adobe_deflate")),
            (b"image/png", encode(grey, "PNG")),
            (b"image/gif", encode(patch_HWC, "GIF")),
            (b"application/octet-stream", patch_HWC.tobytes()),
            (b"image/png", png_bomb()),
            (b"image/tiff", tiff_bomb()),
            *form(encode(patch_HWC, "PNG")),
            *inference(patch_HWC),
            *binary_inference(patch_HWC),
        ]

    def attack(self, number: int) -> Attack:
        """The next one. About one in twenty is a valid request, so that what is answered is fuzzed as well."""
        kind, body = self._bodies[self._pick(len(self._bodies))]
        for _ in range(self._pick(6)):
            body = self._bent(body)
        headers: Headers = [(b"content-type", kind)]
        if self._chance(0.8):
            headers.append((b"content-length", str(len(body)).encode()))
        if kind == b"application/octet-stream" and self._chance(0.8):
            headers.append((b"x-sentinode-shape", b"1,96,96,3"))
        for _ in range(self._pick(4)):
            headers.append(self._header())
        if self._key and self._chance(0.9):
            headers.append((b"x-api-key", self._key))
        if kind.startswith(BINARY_INFERENCE) and self._chance(0.9):
            headers.append((b"inference-header-content-length", kind.removeprefix(BINARY_INFERENCE)))
        if kind.startswith((b"application/json", BINARY_INFERENCE)) and self._chance(0.7):
            path, method = INFER, "POST"
        elif self._chance(0.7):
            path, method = ("/v1/explain" if self._chance(0.03) else "/v1/predict"), "POST"
        else:
            path, method = PATHS[self._pick(len(PATHS))], METHODS[self._pick(len(METHODS))]
        return Attack(number, method, path, self._query(), headers, body, 1 + self._pick(4))

    def message(self, number: int) -> tuple[str, Headers, bytes]:
        """A gRPC call: method, metadata, bytes. Unbent in one of six."""
        body = self._messages[number % len(self._messages)]
        for _ in range(self._pick(6)):
            body = self._bent(body)
        method = (
            "ModelInfer"
            if self._chance(0.8)
            else ("ModelMetadata", "ModelConfig", "ServerReady", "x")[self._pick(4)]
        )
        metadata = [self._header() for _ in range(self._pick(3))]
        if self._key and self._chance(0.9):
            metadata.append((b"x-api-key", self._key))
        return method, metadata, body

    def _bent(self, body: bytes) -> bytes:
        data, at = bytearray(body), self._pick(max(len(body), 1))
        match self._pick(9):
            case 0:
                data[at : at + 1] = bytes([self._pick(256)])
            case 1:
                for _ in range(8):
                    if data:
                        data[self._pick(len(data))] ^= 1 << self._pick(8)
            case 2:
                del data[at:]
            case 3:
                del data[at : at + 1 + self._pick(64)]
            case 4:
                data[at:at] = TOKENS[self._pick(len(TOKENS))]
            case 5:
                number = INTERESTING[self._pick(len(INTERESTING))]
                data[at : at + 4] = struct.pack("<I" if self._chance(0.5) else ">I", number)
            case 6:
                # Headers of files are small and decide most: bend there more often than chance would.
                early = self._pick(min(len(data), 64) or 1)
                data[early : early + 1] = bytes([self._pick(256)])
            case 7:
                data[at:at] = data[: self._pick(512)]
            case 8:
                return mended(bytes(data[:at] + bytes([self._pick(256)]) + data[at + 1 :]))
        return bytes(data[: 3 << 20])

    def _header(self) -> tuple[bytes, bytes]:
        names = (
            b"content-type", b"content-length", b"x-api-key", b"authorization", b"x-request-id", b"x-mpp-um-px",
            b"accept",
            b"inference-header-content-length", b"transfer-encoding", b"content-encoding", b"host", b"expect", b"range",
            b"if-none-match", b"x-slide-id", b"x-deadline-ms", b"x-operating-point",
            b"x-sentinode-shape", b"cookie", b"\xff",
        )  # fmt: skip
        values = (
            *TOKENS[9:], b"", b"0", b"1", b"0.5", b"99999999999999999999999", b"Bearer ", b"Bearer a.b.c",
            b"multipart/form-data",
            b"multipart/form-data; boundary=" + b"x" * 300, b"application/json", b"gzip", b"chunked",
            b"\x80\xff", b"a" * 9000,
            b"Bearer snt_0123456789ab_" + b"A" * 43, b"1,96,96,3", "\N{DNA DOUBLE HELIX}".encode(),
        )  # fmt: skip
        return names[self._pick(len(names))], values[self._pick(len(values))]

    def _query(self) -> bytes:
        return b"" if self._chance(0.8) else TOKENS[self._pick(len(TOKENS))][:200] + b"=&a=%zz"

    def _pick(self, below: int) -> int:
        return int(self._rng.integers(0, below))

    def _chance(self, share: float) -> bool:
        return bool(self._rng.random() < share)


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_bomb() -> bytes:
    """96x96 in its header, and half a gigabyte of zeros behind."""
    packed = zlib.compressobj(9)
    pixels = packed.compress(bytes(64 << 20)) + packed.flush()
    header = struct.pack(">IIBBBBB", 96, 96, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", header)
        + png_chunk(b"IDAT", pixels)
        + png_chunk(b"IEND", b"")
    )


def tiff_bomb() -> bytes:
    """96x96 by its tags, in one strip that claims four gigabytes."""
    tags = [(256, 4, 96), (257, 4, 96), (258, 3, 8), (259, 3, 8), (262, 3, 2), (273, 4, 8), (277, 3, 3),
            (278, 4, 0xFFFFFFFF), (279, 4, 0xFFFFFFF0)]  # fmt: skip
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    return b"II*\x00\x08\x00\x00\x00" + struct.pack("<H", len(tags)) + entries + bytes(4)


def form(image: bytes) -> list[tuple[bytes, bytes]]:
    part = b'--x\r\nContent-Disposition: form-data; name="f"; filename="a.png"\r\n\r\n' + image + b"\r\n"
    return [(b"multipart/form-data; boundary=x", part * count + b"--x--\r\n") for count in (1, 3)]


def inference(patch_HWC: NDArray[np.uint8]) -> list[tuple[bytes, bytes]]:
    """Requests of the Open Inference Protocol in JSON."""
    small = {"name": "images", "shape": [1, 96, 96, 3], "datatype": "UINT8"}
    bodies = [
        {"inputs": [{**small, "data": patch_HWC[None].tolist()}]},
        {"inputs": [{**small, "data": [0] * 27648}], "outputs": [{"name": "probability"}]},
        {"inputs": [{**small, "shape": [2**62, 96, 96, 3], "data": [1]}]},
        {"inputs": [{**small, "shape": [-1, 96, 96, 3], "data": []}]},
        {
            "inputs": [{**small, "datatype": "BYTES", "data": ["QUJD"]}],
            "id": "a",
            "parameters": {"x": [[[]]]},
        },
        {"inputs": [{**small, "parameters": {"binary_data_size": 27648}}]},
        {"inputs": []},
        [],
        {"inputs": None, "outputs": 7},
    ]
    return [(b"application/json", json.dumps(body).encode()) for body in bodies]


def binary_inference(patch_HWC: NDArray[np.uint8]) -> list[tuple[bytes, bytes]]:
    """Requests of the protocol with raw tensors behind the JSON; the content type says how much is JSON."""
    raw, image = patch_HWC.tobytes(), encode(patch_HWC, "JPEG")
    pixels = {"name": "images", "shape": [1, 96, 96, 3], "datatype": "UINT8"}
    encoded = {"name": "encoded_images", "shape": [2], "datatype": "BYTES"}
    out = []
    for tensor, tail in ((pixels, raw), (encoded, (struct.pack("<I", len(image)) + image) * 2)):
        asked = {"inputs": [{**tensor, "parameters": {"binary_data_size": len(tail)}}]}
        text = json.dumps({**asked, "parameters": {"binary_data_output": True}}).encode()
        out.append((BINARY_INFERENCE + str(len(text)).encode(), text + tail))
    return out


def inference_messages(patch_HWC: NDArray[np.uint8]) -> list[bytes]:
    """ModelInferRequests: raw pixels, raw images, numbers, images."""
    image = encode(patch_HWC, "PNG")
    pixels = {"name": "images", "datatype": "UINT8", "shape": [1, 96, 96, 3]}
    encoded = {"name": "encoded_images", "datatype": "BYTES", "shape": [1]}
    of = partial(message("ModelInferRequest"), model_name="default")
    requests = (
        of(inputs=[pixels], raw_input_contents=[patch_HWC.tobytes()]),
        of(inputs=[encoded], raw_input_contents=[struct.pack("<I", len(image)) + image]),
        of(inputs=[{**pixels, "contents": {"uint_contents": patch_HWC.reshape(-1).tolist()}}]),
        of(inputs=[{**encoded, "contents": {"bytes_contents": [image]}}], outputs=[{"name": "verdict"}]),
    )
    return [request.SerializeToString() for request in requests]


def mended(png: bytes) -> bytes:
    """A bent PNG whose checksums fit again, so that what is behind them is reached; other bytes as they are."""
    if not png.startswith(b"\x89PNG\r\n\x1a\n"):
        return png
    out, at = bytearray(png[:8]), 8
    while at + 12 <= len(png):
        (size,) = struct.unpack(">I", png[at : at + 4])
        if at + 12 + size > len(png):
            break
        out += png_chunk(png[at + 4 : at + 8], png[at + 8 : at + 8 + size])
        at += 12 + size
    return bytes(out) + png[at:]
