from __future__ import annotations

import os

import pytest

from sentinode.distributed.patience import ELASTIC_START_S, POLL_S, ray_train_settings

POLL = "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"
START = "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"


@pytest.fixture(autouse=True)
def _unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(POLL, raising=False)
    monkeypatch.delenv(START, raising=False)


def test_only_an_elastic_run_is_impatient_for_its_start() -> None:
    with ray_train_settings(elastic=False):
        assert os.environ[POLL] == str(POLL_S)
        assert START not in os.environ
    with ray_train_settings(elastic=True):
        assert os.environ[START] == str(ELASTIC_START_S)
    assert POLL not in os.environ
    assert START not in os.environ


def test_what_the_user_has_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(START, "90")
    with ray_train_settings(elastic=True):
        assert os.environ[START] == "90"
    assert os.environ[START] == "90"


def test_the_names_are_rays_own() -> None:
    constants = pytest.importorskip("ray.train.v2._internal.constants")
    assert constants.HEALTH_CHECK_INTERVAL_S_ENV_VAR == POLL
    assert constants.WORKER_GROUP_START_TIMEOUT_S_ENV_VAR == START
