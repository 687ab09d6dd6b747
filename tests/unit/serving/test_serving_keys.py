"""API keys: made, kept as hashes, recognised, limited; tokens of an identity provider."""

from __future__ import annotations

import json
import stat
import time
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, OctKey

from sentinode.cli import run_step
from sentinode.errors import ConfigError, ManifestError
from sentinode.serving.auth import JWT_VARIABLES, KEY_FILE_VARIABLE, KEYS_VARIABLE, ApiKeys
from sentinode.serving.keys import KeyFile, RateLimits, Scope, make_key
from sentinode.serving.throttle import Allowance, Throttle
from sentinode.serving.tokens import JwtArgs, TokenVerifier


def test_key_is_recognised_and_only_its_hash_is_kept(tmp_path: Path) -> None:
    key, record = make_key("ward-3", (Scope.PREDICT,))
    KeyFile(keys=(record,)).write(tmp_path / "keys.json")
    text = (tmp_path / "keys.json").read_text()
    assert key not in text
    assert key.split("_", 2)[2] not in text
    assert stat.S_IMODE((tmp_path / "keys.json").stat().st_mode) == 0o600
    keys = ApiKeys(records=KeyFile.read(tmp_path / "keys.json").keys)
    caller = keys.identify(f"Bearer {key}", "")
    assert caller is not None
    assert (caller.name, caller.scopes) == (f"key:{record.id}:ward-3", {Scope.PREDICT})
    assert keys.identify("", key) == caller
    for wrong in (
        key[:-1],
        key + "x",
        key[:-1] + ("A" if key[-1] != "A" else "B"),
        key.upper(),
        "",
        "snt__",
        "\udcff",
    ):
        assert keys.identify(f"Bearer {wrong}", "") is None
    assert keys.identify("Basic " + key, "") is None


def test_key_ends_after_its_last_day() -> None:
    key, record = make_key("guest", (Scope.PREDICT,), expires=date(2026, 3, 1))
    assert record.fits(key, date(2026, 3, 1))
    assert not record.fits(key, date(2026, 3, 2))
    old_key, old = make_key("old", (Scope.PREDICT,), expires=datetime.now(UTC).date() - timedelta(days=1))
    assert ApiKeys(records=[old]).identify("", old_key) is None


def test_keys_of_the_environment_may_not_change_what_is_served() -> None:
    caller = ApiKeys(["0123456789abcdef-key"]).identify("", "0123456789abcdef-key")
    assert caller is not None
    assert Scope.PREDICT in caller.scopes
    assert Scope.ADMIN not in caller.scopes


def test_step_keys_makes_lists_and_revokes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "keys.json"
    assert run_step("keys", ["--file", str(file), "--name", "lab", "--scopes", "predict", "metrics"]) == 0
    key = capsys.readouterr().out.strip()
    (record,) = KeyFile.read(file).keys
    assert record.fits(key)
    assert record.scopes == (Scope.PREDICT, Scope.METRICS)
    assert run_step("keys", ["--file", str(file)]) == 0
    listed = capsys.readouterr().out
    assert record.id in listed
    assert key not in listed
    assert run_step("keys", ["--file", str(file), "--revoke", "0" * 12]) == 2
    assert record.id in capsys.readouterr().err
    assert run_step("keys", ["--file", str(file), "--revoke", record.id]) == 0
    assert KeyFile.read(file).keys == ()
    assert run_step("keys", ["--file", str(file), "--name", "no spaces"]) == 2
    assert run_step("keys", ["--file", str(tmp_path / "absent.json")]) == 2
    assert run_step("keys", ["--file", str(file), "--name", "late", "--expires", "2020-01-01"]) == 2
    assert "2020-01-01 is over" in capsys.readouterr().err
    _, ended = make_key("ended", (Scope.PREDICT,), expires=date(2020, 1, 1))
    KeyFile(keys=(ended,)).write(file)
    assert run_step("keys", ["--file", str(file)]) == 0
    assert "over" in capsys.readouterr().out


def test_damaged_key_file_is_an_error_and_not_an_open_door(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "keys.json"
    file.write_text('{"schema_version": 1, "keys": [{"id": "x"}]}')
    monkeypatch.setenv(KEY_FILE_VARIABLE, str(file))
    monkeypatch.delenv(KEYS_VARIABLE, raising=False)
    with pytest.raises(ManifestError):
        ApiKeys.from_environment(loopback_only=True)
    KeyFile().write(file)
    with pytest.raises(ConfigError, match="no API keys"):
        ApiKeys.from_environment(loopback_only=False)


def test_bucket_refills_and_concurrency_is_given_back() -> None:
    allowance = Allowance(RateLimits(requests_per_s=10, burst=3, concurrent=2), now_s=100.0)
    assert allowance.enter(100.0) == 0.0
    assert allowance.enter(100.0) == 0.0
    assert allowance.enter(100.0) > 0, "two are under way"
    allowance.leave()
    assert allowance.enter(100.0) == 0.0
    allowance.leave()
    assert allowance.enter(100.0) == pytest.approx(0.1), (
        "the burst is spent; a token takes a tenth of a second"
    )
    assert allowance.enter(100.11) == 0.0
    allowance.leave()
    allowance.leave()
    assert allowance.is_idle
    admitted = sum(allowance.enter(1e6) == 0.0 and (allowance.leave() or True) for _ in range(10))
    assert admitted == 3, "a long pause gives no more than the burst"


def test_memory_does_not_grow_with_the_callers() -> None:
    throttle, limits = Throttle(most_callers=100), RateLimits()
    busy = throttle.of("busy", limits, 0.0)
    busy.enter(0.0)
    for number in range(1000):
        throttle.of(f"jwt:{number}", limits, float(number))
    assert len(throttle) == 100
    assert throttle.of("busy", limits, 0.0) is busy, "one that works is not forgotten"


ISSUER, AUDIENCE = "https://login.example", "sentinode"


@pytest.fixture(scope="module")
def signing_key() -> ECKey:
    return ECKey.generate_key("P-256", {"kid": "one"})


@pytest.fixture
def jwks(tmp_path: Path, signing_key: ECKey) -> Path:
    path = tmp_path / "jwks.json"
    path.write_text(json.dumps({"keys": [signing_key.as_dict(private=False)]}))
    return path


def token(key: ECKey | OctKey, algorithm: str = "ES256", **changes: object) -> str:
    claims = {
        "iss": ISSUER, "aud": AUDIENCE, "sub": "dr-7", "exp": int(time.time()) + 300, "scope": "predict openid",
    }  # fmt: skip
    claims = {name: value for name, value in {**claims, **changes}.items() if value is not None}
    return jwt.encode({"alg": algorithm, "kid": "one"}, claims, key, algorithms=[algorithm])


def test_valid_token_gives_subject_and_known_scopes(jwks: Path, signing_key: ECKey) -> None:
    verifier = TokenVerifier(JwtArgs(issuer=ISSUER, audience=AUDIENCE, jwks_file=jwks))
    good = token(signing_key)
    for _ in range(2):
        caller = ApiKeys(tokens=verifier).identify(f"Bearer {good}", "")
        assert caller is not None
        assert (caller.name, caller.scopes) == ("jwt:dr-7", {Scope.PREDICT})


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "https://evil.example"},
        {"aud": "another"},
        {"exp": 1},
        {"exp": None},
        {"sub": None},
        {"sub": 7},
        {"sub": "x" * 300},
        {"nbf": int(time.time()) + 9999},
        {"aud": None},
        {"exp": "soon"},
    ],
    ids=str,
)
def test_wrong_claims_are_refused(jwks: Path, signing_key: ECKey, changes: dict[str, object]) -> None:
    verifier = TokenVerifier(JwtArgs(issuer=ISSUER, audience=AUDIENCE, jwks_file=jwks))
    assert verifier.verify(token(signing_key, **changes)) is None


def test_forged_signatures_are_refused(jwks: Path, signing_key: ECKey) -> None:
    verifier = TokenVerifier(JwtArgs(issuer=ISSUER, audience=AUDIENCE, jwks_file=jwks))
    good = token(signing_key)
    head, body, signature = good.split(".")
    public_as_secret = OctKey.import_key(jwks.read_bytes())
    forged = [
        token(ECKey.generate_key("P-256", {"kid": "one"})),
        token(public_as_secret, "HS256"),
        f"{head}.{body}.",
        f"{head}.{body[:-2]}AA.{signature}",
        "eyJhbGciOiJub25lIn0." + body + ".",
        "..",
        "a.b.c",
        "." * 5000,
        good + "." + good,
    ]
    assert [verifier.verify(text) for text in forged] == [None] * len(forged)


@pytest.mark.parametrize(
    "unknown",
    [
        {"kty": "OKP", "crv": "X999", "x": "AA", "kid": "new"},
        {"kty": "EC", "crv": "P-999", "x": "AA", "y": "AA", "kid": "new"},
        {"kty": "RSA", "n": "AQAB", "e": "!", "kid": "new"},
        {"kty": "AKP", "alg": "ML-DSA-65", "pub": "AA", "kid": "new"},
    ],
    ids=str,
)
def test_unknown_keys_of_a_jwks_do_not_stand_in_the_way(
    jwks: Path, signing_key: ECKey, unknown: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    jwks.write_text(json.dumps({"keys": [unknown, signing_key.as_dict(private=False)]}))
    verifier = TokenVerifier(JwtArgs(issuer=ISSUER, audience=AUDIENCE, jwks_file=jwks))
    assert verifier.verify(token(signing_key)) == ("dr-7", {Scope.PREDICT})
    assert ("'new'" in caplog.text) == (unknown["kty"] != "AKP"), "another kind of key is no fault"


def test_jwks_must_hold_public_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "jwks.json"
    for text in (
        "",
        "[]",
        '{"keys": []}',
        '{"keys": [{"kty": "oct", "k": "c2VjcmV0"}]}',
        '{"keys": [{"kty": "RSA"}]}',
    ):
        file.write_text(text)
        with pytest.raises(ConfigError, match=r"jwks\.json"):
            TokenVerifier(JwtArgs(issuer=ISSUER, audience=AUDIENCE, jwks_file=file))
    monkeypatch.setenv(JWT_VARIABLES[0], ISSUER)
    with pytest.raises(ConfigError, match="SENTINODE_JWT_AUDIENCE, SENTINODE_JWKS_FILE is not set"):
        ApiKeys.from_environment(loopback_only=True)
