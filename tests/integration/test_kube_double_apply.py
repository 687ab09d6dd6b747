"""Server-side apply of the double of the API server: what Kubernetes documents, asked over HTTP by its own client."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from kube_double.api_server import ApiServerDouble
from kube_double.protocol import APPLY, MERGE_PATCH, TOKEN
from kube_double.refusals import Object
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException

PLACE = ("example.org", "v1", "sentinode", "ships")
KEY = ("sentinode", "ships", "one")
TEXT: Object = {"type": "string"}
DECK = {"type": "object", "properties": {"name": TEXT, "side": {**TEXT, "default": "port"}, "colour": TEXT}}
SPEC = {
    "speed": {"type": "integer"},
    "engine": {"type": "object", "properties": {"fuel": TEXT, "maker": TEXT},
               "x-kubernetes-validations": [{"rule": "self.fuel != 'coal'"}]},
    "flag": {"type": "object", "properties": {"land": TEXT, "size": TEXT}, "x-kubernetes-map-type": "atomic"},
    "cargo": {"type": "array", "items": TEXT},
    "ports": {"type": "array", "items": TEXT, "x-kubernetes-list-type": "set"},
    "decks": {"type": "array", "items": DECK, "x-kubernetes-list-type": "map",
              "x-kubernetes-list-map-keys": ["name", "side"]},
}  # fmt: skip
SCHEMA = {
    "type": "object",
    "properties": {
        "apiVersion": TEXT,
        "kind": TEXT,
        "metadata": {"type": "object"},
        "spec": {"type": "object", "properties": SPEC},
        "status": {"type": "object", "properties": {"at": TEXT}},
    },
}
BOW = 'k:{"name":"bow","side":"port"}'


@pytest.fixture
def double(tmp_path: Path) -> Iterator[ApiServerDouble]:
    version = {"name": "v1", "storage": True, "schema": {"openAPIV3Schema": SCHEMA}}
    crd = {"spec": {"names": {"plural": "ships"}, "versions": [version]}}
    crds = tmp_path / "crds"
    crds.mkdir()
    (crds / "ships.yaml").write_text(yaml.safe_dump(crd))
    with ApiServerDouble(crds) as made:
        yield made


@pytest.fixture
def objects(double: ApiServerDouble, tmp_path: Path) -> client.CustomObjectsApi:
    settings = client.Configuration()
    config.load_kube_config(str(double.kubeconfig(tmp_path / "kubeconfig")), client_configuration=settings)
    return client.CustomObjectsApi(client.ApiClient(settings))


def ship(**spec: Any) -> Object:
    return {"apiVersion": "example.org/v1", "kind": "Ship", "metadata": {"name": "one"}, "spec": spec}


def apply(objects: client.CustomObjectsApi, manager: str | None, body: Object, **more: Any) -> Object:
    # As bytes: of a 201, the client would return nothing.
    words = {"field_manager": manager, "_content_type": APPLY, "_preload_content": False, **more}
    made: Object = json.loads(objects.patch_namespaced_custom_object(*PLACE, "one", body, **words).data)
    return made


def owned(made: Object) -> dict[tuple[str, str], Object]:
    return {(e["manager"], e["operation"]): e["fieldsV1"] for e in made["metadata"]["managedFields"]}


def refusal(error: pytest.ExceptionInfo[ApiException]) -> tuple[int, Object]:
    return error.value.status, json.loads(error.value.body)


def test_it_makes_what_is_absent_and_tells_who_manages_what(objects: client.CustomObjectsApi) -> None:
    decks = [{"name": "bow", "colour": "red"}]
    body = ship(speed=9, engine={}, flag={"land": "NL"}, cargo=["tea"], ports=["AMS"], decks=decks)
    body["metadata"]["labels"] = {"a": "1"}
    made = apply(objects, "me", body)
    assert made["metadata"]["generation"] == 1
    (entry,) = made["metadata"]["managedFields"]
    assert (entry["fieldsType"], entry["apiVersion"]) == ("FieldsV1", "example.org/v1")
    assert entry["fieldsV1"] == {
        "f:metadata": {"f:labels": {"f:a": {}}},
        "f:spec": {
            "f:speed": {},
            "f:engine": {},
            "f:flag": {},
            "f:cargo": {},
            "f:ports": {'v:"AMS"': {}},
            "f:decks": {BOW: {".": {}, "f:name": {}, "f:colour": {}}},
        },
    }
    again = apply(objects, "me", body)
    assert again == made, "what changes nothing makes no version"


def test_another_value_is_a_conflict_that_names_field_and_manager(
    double: ApiServerDouble, objects: client.CustomObjectsApi
) -> None:
    apply(objects, "me", ship(speed=9, cargo=["tea"], decks=[{"name": "bow", "colour": "red"}]))
    before = double.get("ships", "one")
    body = ship(speed=9, cargo=["tea", "silk"], decks=[{"name": "bow", "colour": "blue"}])
    with pytest.raises(ApiException) as error:
        apply(objects, "you", body)
    code, status = refusal(error)
    assert (code, status["reason"]) == (409, "Conflict")
    assert status["message"].startswith('Apply failed with 2 conflicts: conflict with "me"')
    told = {cause["field"]: cause["message"] for cause in status["details"]["causes"]}
    assert told == dict.fromkeys(
        (".spec.cargo", '.spec.decks[name="bow",side="port"].colour'), 'conflict with "me"'
    )
    assert {cause["reason"] for cause in status["details"]["causes"]} == {"FieldManagerConflict"}
    assert double.get("ships", "one") == before
    made = apply(objects, "you", body, force=True)
    assert made["spec"] == body["spec"]
    assert owned(made)["me", "Apply"] == {
        "f:spec": {"f:speed": {}, "f:decks": {BOW: {".": {}, "f:name": {}}}}
    }


def test_what_is_no_longer_applied_goes_unless_it_is_shared(objects: client.CustomObjectsApi) -> None:
    decks = [{"name": "bow", "colour": "red"}, {"name": "stern"}]
    apply(objects, "me", ship(speed=9, engine={"fuel": "oil"}, ports=["AMS", "LIS"], decks=decks))
    apply(objects, "you", ship(speed=9, ports=["LIS"], decks=[{"name": "stern", "colour": "grey"}]))
    made = apply(objects, "me", ship(ports=["AMS"]))
    assert made["spec"] == {
        "speed": 9,
        "ports": ["AMS", "LIS"],
        "decks": [{"name": "stern", "colour": "grey"}],
    }
    assert owned(made)["me", "Apply"] == {"f:spec": {"f:ports": {'v:"AMS"': {}}}}


@pytest.mark.parametrize("by", ["merge patch", "replacement"])
def test_an_update_takes_what_it_changes(objects: client.CustomObjectsApi, by: str) -> None:
    made = apply(objects, "me", ship(speed=9, cargo=["tea"], engine={"fuel": "oil"}))
    if by == "replacement":
        made["spec"] = {"speed": 12, "cargo": ["tea"]}
        del made["metadata"]["managedFields"]
        objects.replace_namespaced_custom_object(*PLACE, "one", made, field_manager="hand")
    else:
        objects.patch_namespaced_custom_object(
            *PLACE, "one", {"spec": {"speed": 12, "engine": None}}, field_manager="hand",
            _content_type=MERGE_PATCH,
        )  # fmt: skip
    now = objects.get_namespaced_custom_object(*PLACE, "one")
    assert now["spec"] == {"speed": 12, "cargo": ["tea"]}
    assert owned(now) == {
        ("me", "Apply"): {"f:spec": {"f:cargo": {}}},
        ("hand", "Update"): {"f:spec": {"f:speed": {}}},
    }
    with pytest.raises(ApiException) as error:
        apply(objects, "me", ship(speed=9, cargo=["tea"]))
    (cause,) = refusal(error)[1]["details"]["causes"]
    assert cause["field"] == ".spec.speed"
    assert cause["message"].startswith('conflict with "hand" using example.org/v1 at 20')


def test_a_dry_run_keeps_nothing(double: ApiServerDouble, objects: client.CustomObjectsApi) -> None:
    assert apply(objects, "me", ship(speed=9), dry_run="All")["spec"] == {"speed": 9}
    assert KEY not in double.objects
    apply(objects, "me", ship(speed=9))
    before = double.get("ships", "one")
    assert apply(objects, "me", ship(speed=10), dry_run="All")["metadata"]["generation"] == 2
    assert double.get("ships", "one") == before


def test_the_status_is_a_thing_apart(objects: client.CustomObjectsApi) -> None:
    both = {**ship(speed=9), "status": {"at": "sea"}}
    assert "status" not in apply(objects, "me", both)
    words = {"field_manager": "me", "_content_type": APPLY}
    other = {**ship(speed=10), "status": {"at": "sea"}}
    made = objects.patch_namespaced_custom_object_status(*PLACE, "one", other, **words)
    assert (made["spec"], made["status"], made["metadata"]["generation"]) == ({"speed": 9}, {"at": "sea"}, 1)
    parts = {e.get("subresource", ""): e["fieldsV1"] for e in made["metadata"]["managedFields"]}
    assert parts == {"": {"f:spec": {"f:speed": {}}}, "status": {"f:status": {"f:at": {}}}}


@pytest.mark.parametrize(
    ("manager", "change", "code", "words"),
    [
        (None, {}, 422, "fieldManager: Required value"),
        ("me", {"kind": None}, 400, "apiVersion and kind"),
        ("me", {"metadata": {"name": "two"}}, 400, "not that of the URL"),
        ("me", {"metadata": {"managedFields": [{"manager": "me"}]}}, 400, "managedFields must be nil"),
        ("me", {"metadata": {"resourceVersion": "1"}}, 409, "has been modified"),
        ("me", {"spec": {"sped": 1}}, 422, "sped"),
        ("me", {"spec": {"decks": [{"colour": "red"}]}}, 422, 'omits its key field "name"'),
        ("me", {"spec": {"ports": ["AMS", "AMS"]}}, 422, "duplicate entries"),
    ],
)
def test_what_is_refused(
    double: ApiServerDouble, objects: client.CustomObjectsApi, manager: str | None, change: Object, code: int,
    words: str,
) -> None:  # fmt: skip
    apply(objects, "me", ship(speed=9))
    before = double.get("ships", "one")
    with pytest.raises(ApiException) as error:
        apply(objects, manager, {**ship(speed=10), **change})
    assert refusal(error)[0] == code
    assert words in refusal(error)[1]["message"]
    assert double.get("ships", "one") == before


def test_making_by_apply_needs_the_right_to_create(
    double: ApiServerDouble, objects: client.CustomObjectsApi
) -> None:
    rule = {"apiGroups": ["example.org"], "resources": ["ships"], "verbs": ["patch"]}
    double.role = {"rules": [rule]}
    with pytest.raises(ApiException) as error:
        apply(objects, "me", ship(speed=9))
    assert refusal(error)[0] == 403
    double.role = {"rules": [{**rule, "verbs": ["patch", "create"]}]}
    assert apply(objects, "me", ship(speed=9))["spec"] == {"speed": 9}


def test_an_apply_may_be_yaml(double: ApiServerDouble) -> None:
    url = f"http://127.0.0.1:{double.http.server_port}/apis/example.org/v1/namespaces/sentinode/ships/one"
    headers = {"authorization": f"Bearer {TOKEN}", "content-type": APPLY}
    data = yaml.safe_dump(ship(speed=9)).encode()
    request = urllib.request.Request(f"{url}?fieldManager=me", data, headers, method="PATCH")
    with urllib.request.urlopen(request, timeout=30) as answer:
        assert answer.status == 201
    assert double.get("ships", "one")["spec"] == {"speed": 9}


def test_rules_that_nothing_evaluates_are_listed(
    double: ApiServerDouble, objects: client.CustomObjectsApi
) -> None:
    assert double.rules_not_enforced == ("ships.spec.engine: self.fuel != 'coal'",)
    assert apply(objects, "me", ship(engine={"fuel": "coal"}))["spec"] == {"engine": {"fuel": "coal"}}
