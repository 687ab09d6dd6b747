"""Trust as a client meets it: flags instead of verdicts, explanations, the page, the audit log."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from serving_parts import encode, make_parts, random_patches
from starlette.testclient import TestClient

from sentinode.bundle.bundle import open_bundle
from sentinode.bundle.stain import StainStatistics
from sentinode.errors import ConfigError
from sentinode.serving.args import ServeArgs
from sentinode.serving.asgi import create_app
from sentinode.serving.auth import ApiKeys
from sentinode.serving.engine import Engine
from sentinode.serving.keys import Scope, make_key
from sentinode.serving.protocol import Prediction
from sentinode.serving.trust_args import TrustArgs
from sentinode.serving.viewer import Viewer, checkout_folder
from sentinode.storage import open_store

PATCH = random_patches(1)[0]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    folder = tmp_path_factory.mktemp("trust")
    store, parts = open_store(str(folder / "registry")), make_parts(folder / "parts")
    card = parts.card.model_copy(update={"stain": StainStatistics.of(random_patches(200, seed=5))})
    return Engine(open_bundle(store, parts.seal(store, card), folder / "cache"))


def client_of(engine: Engine, keys: ApiKeys | None = None, **trust: object) -> TestClient:
    args = ServeArgs(registry="unused", bundle=engine.bundle.digest, trust=TrustArgs.model_validate(trust))
    return TestClient(create_app(engine, args, keys or ApiKeys()), raise_server_exceptions=False)


def test_flagged_patches_get_no_number(engine: Engine) -> None:
    with client_of(engine) as client:
        replies = {
            name: Prediction.model_validate_json(
                client.post("/v1/predict", content=body, headers=headers).content
            )
            for name, body, headers in (
                ("fine", encode(PATCH, "PNG"), {}),
                ("blank", encode(np.full_like(PATCH, 240), "PNG"), {}),
                ("scale", encode(PATCH, "PNG"), {"X-MPP-UM-PX": "0.25"}),
                ("both", encode(np.full_like(PATCH, 240), "PNG"), {"X-MPP-UM-PX": "0.25"}),
            )
        }
        text = client.get("/metrics").text
    assert replies["fine"].probability is not None
    assert {name: reply.flags for name, reply in replies.items()} == {
        "fine": (), "blank": ("blank",), "scale": ("wrong_scale",), "both": ("blank", "wrong_scale"),
    }  # fmt: skip
    for name in ("blank", "scale", "both"):
        assert replies[name].probability is None
        assert replies[name].verdict == "abstained"
    bundle = f'bundle="{engine.bundle.digest}"'
    assert f"sentinode_abstentions_total{{{bundle}}} 3.0" in text
    assert f'sentinode_quality_flags_total{{{bundle},flag="blank"}} 2.0' in text
    assert f'sentinode_quality_flags_total{{{bundle},flag="wrong_scale"}} 2.0' in text
    assert f'sentinode_drift_abstention_rate{{{bundle},model="default"}} 0.75' in text
    assert f"sentinode_score_count{{{bundle}}} 1.0" in text, "probabilities that were given"


def test_scale_that_is_no_number_is_refused(engine: Engine) -> None:
    with client_of(engine) as client:
        reply = client.post("/v1/predict", content=encode(PATCH, "PNG"), headers={"X-MPP-UM-PX": "fine"})
    assert reply.status_code == 400
    assert "mpp_um_px" in reply.json()["reason"]


def test_explanation_is_a_picture_to_lay_over_the_patch(engine: Engine) -> None:
    with client_of(engine) as client:
        reply = client.post("/v1/explain", content=encode(PATCH, "PNG"))
        assert client.post("/v1/explain", content=b"GIF89a").status_code == 415
        assert "sentinode_explanation_seconds_count 2.0" in client.get("/metrics").text
    assert reply.headers["content-type"] == "image/png"
    assert float(reply.headers["x-explanation-scale"]) > 0
    picture = Image.open(io.BytesIO(reply.content))
    assert (picture.mode, picture.size) == ("RGBA", (96, 96))


def test_explaining_needs_its_scope(engine: Engine) -> None:
    key, record = make_key("reader", (Scope.PREDICT,))
    with client_of(engine, ApiKeys(records=[record])) as client:
        body, headers = encode(PATCH, "PNG"), {"X-API-Key": key}
        assert client.post("/v1/predict", content=body, headers=headers).status_code == 200
        assert client.post("/v1/explain", content=body, headers=headers).status_code == 403
        assert client.get("/metrics", headers=headers).status_code == 403
        assert client.get("/").status_code == 200, "the page itself holds no data"


def test_audit_log_says_who_and_what_and_has_no_image(engine: Engine, tmp_path: Path) -> None:
    key, record = make_key("ward-3", (Scope.PREDICT, Scope.EXPLAIN))
    with client_of(engine, ApiKeys(records=[record]), audit_log=tmp_path / "audit-{replica}.jsonl") as client:
        for path, body in (("predict", PATCH), ("predict", np.zeros_like(PATCH)), ("explain", PATCH)):
            headers = {"X-API-Key": key, "X-Request-Id": f"case-{path}"}
            client.post(f"/v1/{path}", content=encode(body, "PNG"), headers=headers)
    lines = [json.loads(line) for line in (tmp_path / "audit-local.jsonl").read_text().splitlines()]
    assert [line["action"] for line in lines] == ["predict", "predict", "explain"]
    assert {line["caller"] for line in lines} == {f"key:{record.id}:ward-3"}
    assert {line["bundle"] for line in lines} == {engine.bundle.digest}
    assert lines[0]["verdicts"][0] in ("tumour", "negative")
    assert (lines[1]["verdicts"], lines[1]["flags"]) == (["abstained"], ["blank"])
    assert lines[0]["request_id"] == "case-predict"
    assert key not in json.dumps(lines)


def test_page_is_whole_and_locked(engine: Engine, repository: Path) -> None:
    with client_of(engine) as client:
        page = client.get("/")
        policy = page.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "Research use only" in page.text
        names = sorted(path.name for path in (repository / "serve" / "viewer").iterdir())
        texts = {}
        for name in names:
            reply = client.get(f"/viewer/{name}")
            assert reply.status_code == 200
            assert reply.headers["x-content-type-options"] == "nosniff"
            again = client.get(f"/viewer/{name}", headers={"If-None-Match": reply.headers["etag"]})
            assert again.status_code == 304
            texts[name] = reply.text
    for name, text in texts.items():
        if name.startswith("openseadragon"):
            continue  # names its makers; what it may reach is for the policy above and the tests in a browser
        assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text), (
            f"{name} reaches beyond the endpoint"
        )
        assert "innerHTML" not in text
        assert " style=" not in text, f"{name}: the policy forbids it"
        for used in re.findall(r'(?:from |src=|href=)"(?:\./|viewer/)([^"]+)"', text):
            assert used in names
    assert "<script>" not in page.text


def test_page_is_found_beside_the_app_that_serve_imports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "viewer").mkdir()
    (tmp_path / "viewer" / "index.html").write_text("<p>Research use only")
    assert checkout_folder() != tmp_path / "viewer"
    monkeypatch.syspath_prepend(str(tmp_path))
    assert checkout_folder() != tmp_path / "viewer", "some folder on the path is not Serve's"
    (tmp_path / "app.py").touch()
    assert checkout_folder() == tmp_path / "viewer"


def test_folder_without_a_page_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"index\.html"):
        Viewer(tmp_path)
