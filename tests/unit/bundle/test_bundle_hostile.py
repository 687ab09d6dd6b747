"""Bundles made to do harm, with digests that fit: nothing is loaded, and the error names what is wrong."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from serving_parts import sealed_registry, write_onnx

from sentinode.bundle.bundle import open_bundle, read_card
from sentinode.bundle.onnx_model import OnnxModel
from sentinode.bundle.onnx_scan import check_graph
from sentinode.bundle.registry import set_alias
from sentinode.bundle.verify import open_verified
from sentinode.errors import BundleError, SentinodeError
from sentinode.storage import Store


@pytest.fixture
def sealed(tmp_path: Path) -> tuple[Store, str]:
    store, digest, _ = sealed_registry(tmp_path)
    return store, digest


def forge(
    store: Store, digest: str, edit: Callable[[dict[str, Any]], None], files: dict[str, bytes] | None = None
) -> str:
    """A copy of a bundle with an edited card and replaced files, under the digest that the forged card has."""
    card = json.loads(store.get(f"bundles/{digest}/card.json"))
    contents = {name: store.get(f"bundles/{digest}/{name}") for name in card["files"]} | (files or {})
    for name, data in (files or {}).items():
        card["files"][name] = {"sha256": hashlib.sha256(data).hexdigest(), "size_bytes": len(data)}
    edit(card)
    text = json.dumps(card, sort_keys=True, separators=(",", ":")).encode()
    forged = hashlib.sha256(text).hexdigest()
    for name, data in contents.items():
        store.put(f"bundles/{forged}/{name}", data)
    store.put(f"bundles/{forged}/card.json", text)
    return forged


def nothing(card: dict[str, Any]) -> None:
    """Leave the card as it is."""


def listed(name: str, size_bytes: int = 1) -> Callable[[dict[str, Any]], None]:
    """Put a file on the card."""

    def edit(card: dict[str, Any]) -> None:
        card["files"][name] = {"sha256": "a" * 64, "size_bytes": size_bytes}

    return edit


def unlisted(name: str) -> Callable[[dict[str, Any]], None]:
    return lambda card: card["files"].pop(name)


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (listed("../../aliases/production.json"), "is not a plain file name"),
        (listed("/etc/passwd"), "is not a plain file name"),
        (listed(".sentinode.lock"), "is not a plain file name"),
        (listed("weights.pkl"), "may hold pickled code"),
        (listed("model.pt"), "may hold pickled code"),
        (listed("run.sh"), r"the card lists .*run\.sh"),
        (unlisted("golden.safetensors"), "the card lists"),
        (listed("model.safetensors", 1 << 50), "has 1125899906842624 bytes"),
        (listed("golden.safetensors", 65 << 20), "at most 67108864"),
        (lambda card: card.update(on_load="os.system"), "on_load"),
        (lambda card: card.update(schema_version=99), "schema_version 99"),
        (lambda card: card["operating_points"][0].update(threshold=7), "threshold"),
    ],
)
def test_forged_cards_are_refused(
    sealed: tuple[Store, str], tmp_path: Path, edit: Callable[[dict[str, Any]], None], reason: str
) -> None:
    store, digest = sealed
    forged = forge(store, digest, edit)
    with pytest.raises(BundleError) as caught:
        open_bundle(store, forged, tmp_path / "cache")
    assert re.search(reason, str(caught.value), re.DOTALL)
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"null", b"[" * 100_000, b"\xff\xfe"])
def test_a_card_that_is_none_is_refused(sealed: tuple[Store, str], tmp_path: Path, text: bytes) -> None:
    store, _ = sealed
    forged = hashlib.sha256(text).hexdigest()
    store.put(f"bundles/{forged}/card.json", text)
    with pytest.raises(BundleError, match=r"card\.json"):
        open_bundle(store, forged, tmp_path)
    with pytest.raises(SentinodeError, match=r"card\.json"):
        set_alias(store, "production", forged)


def test_a_card_of_many_megabytes_is_not_even_read(sealed: tuple[Store, str], tmp_path: Path) -> None:
    store, _ = sealed
    text = b" " * (5 << 20)
    forged = hashlib.sha256(text).hexdigest()
    store.put(f"bundles/{forged}/card.json", text)
    with pytest.raises(BundleError, match=r"at most 4194304 for card\.json"):
        read_card(store, forged)


@pytest.mark.parametrize("name", ["sub/model.onnx", "sub/deeper/x.pkl", "model.onnx.data"])
def test_what_lies_beside_a_bundle_is_refused(sealed: tuple[Store, str], tmp_path: Path, name: str) -> None:
    store, digest = sealed
    store.put(f"bundles/{digest}/{name}", b"anything")
    with pytest.raises(BundleError, match="not on the card"):
        open_bundle(store, digest, tmp_path / "cache")


def _graph(path: Path) -> onnx.ModelProto:
    write_onnx(path)
    return onnx.load(path)


def _with_external_data(path: Path) -> bytes:
    model = _graph(path)
    tensor = model.graph.initializer[1]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../../etc/passwd")
    return model.SerializeToString()


def _with_custom_operator(path: Path) -> bytes:
    model = _graph(path)
    model.graph.node[4].domain = "evil.ops"
    model.opset_import.append(helper.make_opsetid("evil.ops", 1))
    return model.SerializeToString()


def _with_custom_operator_in_a_branch(path: Path) -> bytes:
    model = _graph(path)
    inner = helper.make_node("Shell", ["unit"], ["hidden"], domain="evil.ops")
    branch = helper.make_graph(
        [inner], "branch", [], [helper.make_tensor_value_info("hidden", TensorProto.FLOAT, None)]
    )
    always = helper.make_node("Constant", [], ["always"], value=numpy_helper.from_array(np.array(True), "t"))
    model.graph.node.extend(
        [always, helper.make_node("If", ["always"], ["never_used"], then_branch=branch, else_branch=branch)]
    )
    return model.SerializeToString()


def _cut_off(path: Path) -> bytes:
    return _graph(path).SerializeToString()[:-7]


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (_with_external_data, "takes tensors from outside"),
        (_with_custom_operator, r"operator 'Relu' of 'evil\.ops'"),
        (_with_custom_operator_in_a_branch, r"operator 'Shell' of 'evil\.ops'"),
        (_cut_off, "is no ONNX file"),
        (lambda path: b"\x80\x04\x95" + bytes(64), "is no ONNX file"),
        (lambda path: b"not a graph at all, but long enough", "is no ONNX file"),
    ],
)
def test_graphs_that_need_more_than_themselves_are_refused(
    sealed: tuple[Store, str], tmp_path: Path, make: Callable[[Path], bytes], reason: str
) -> None:
    store, digest = sealed
    data = make(tmp_path / "graph.onnx")
    forged = forge(store, digest, nothing, {"model.onnx": data})
    with pytest.raises(BundleError, match=reason):
        open_bundle(store, forged, tmp_path / "cache")
    (tmp_path / "alone.onnx").write_bytes(data)
    with pytest.raises(BundleError, match=reason):
        OnnxModel(tmp_path / "alone.onnx")


def test_another_model_under_the_same_card_does_not_pass_its_golden_patches(
    sealed: tuple[Store, str], tmp_path: Path
) -> None:
    store, digest = sealed
    write_onnx(tmp_path / "other.onnx", seed=1)
    forged = forge(store, digest, nothing, {"model.onnx": (tmp_path / "other.onnx").read_bytes()})
    open_bundle(store, forged, tmp_path / "cache")
    with pytest.raises(BundleError, match="golden patch"):
        open_verified(store, forged, tmp_path / "cache")


def test_real_graphs_pass_and_any_cut_is_noticed_or_harmless(tmp_path: Path) -> None:
    data = _graph(tmp_path / "graph.onnx").SerializeToString()
    check_graph(data, "model.onnx")
    noticed = 0
    for length in range(1, len(data), 3):
        try:
            check_graph(data[:length], "model.onnx")
        except BundleError:
            noticed += 1
    assert noticed > 0.9 * len(range(1, len(data), 3))


def test_damaged_bytes_never_raise_anything_else(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    data = _graph(tmp_path / "graph.onnx").SerializeToString()
    told = set()
    for _ in range(300):
        mutated = bytearray(data)
        for at in rng.integers(0, len(data), 4):
            mutated[at] = rng.integers(0, 256)
        try:
            check_graph(bytes(mutated), "model.onnx")
        except BundleError as error:
            told.add(error.found)
    assert told
    assert all(text.startswith("model.onnx ") for text in told)
