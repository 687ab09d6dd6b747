"""The command line: flags from the models, plain errors, exit codes."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from sentinode import __version__, cli

TRAIN = ("train", "--data", "d", "--run", "r")


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as end:
        cli.main(arguments)
    return int(end.value.code or 0)


def test_overview_names_each_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--help") == 0
    shown = capsys.readouterr().out
    assert all(f"  {name} " in shown for name in cli.COMMANDS)


def test_the_module_is_the_command() -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "sentinode", "--version"], capture_output=True, text=True, check=True
    )
    assert shown.stdout.strip() == __version__


def test_a_reader_that_leaves_gets_no_traceback() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "sentinode", "keys", "--help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1


def test_without_a_command_the_overview_is_an_error() -> None:
    assert run() == 2


def test_unknown_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("ingset") == 2
    assert "unknown command 'ingset'" in capsys.readouterr().err


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_each_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(name, "--help") == 0
    assert "--dry-run" in capsys.readouterr().out


def test_dry_run_prints_the_resolved_configuration(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        run("train", "--data", "s3://bucket/d", "--run", "s3://bucket/r", "--train.epochs", "3", "--dry-run")
        == 0
    )
    shown = json.loads(capsys.readouterr().out)
    assert shown["train"]["epochs"] == 3
    assert shown["train"]["lr"] == 3e-4
    assert shown["data"] == "s3://bucket/d"


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("audit",), "error: manifests has 0 values expected: at least 1"),
        (("verify",), "error: manifest is missing what to do: see sentinode verify --help"),
        (("train",), "error: --data and --run are missing what to do: see sentinode train --help"),
        (("train", "--recipe", "nope"), "no recipe 'nope'"),
        (("train", "--recipe", "--data", "d", "--run", "r"), "error: --recipe has no value expected: text"),
        (
            (*TRAIN, "--recipe", "pcam-small", "--train.lr", "-1"),
            "error: --train.lr is -1.0 expected: greater than 0 what to do: see sentinode train --recipe pcam-small",
        ),
        (
            (*TRAIN, "--train.mix.mixup", "9", "--train.mix.cutmix=-1"),
            "error: --train.mix.mixup is 9.0; --train.mix.cutmix is -1.0 "
            "expected: --train.mix.mixup less than or equal to 8; --train.mix.cutmix greater than or equal to 0",
        ),
        ((*TRAIN, "--model.dropout", "2"), "error: --model.dropout is 2.0 expected: less than 1"),
        (
            (*TRAIN, "--scaling.num-workers", "0"),
            "error: --scaling.num-workers is 0 expected: greater than or",
        ),
        ((*TRAIN, "--train.epochs", "two"), "error: --train.epochs is 'two' expected: a whole number"),
        ((*TRAIN, "--train.clip_norm=x"), "error: --train.clip-norm is 'x' expected: a number or None"),
        (
            (*TRAIN, "--recipe", "pcam-small", "--model.widths", "1", "b"),
            "--model.widths is '1 b' expected: several",
        ),
        (
            (*TRAIN, "--train.precision", "fp8"),
            "error: --train.precision is 'fp8' expected: one of auto, fp32, bf16",
        ),
        ((*TRAIN, "--tta", "yes"), "error: 'yes': no flag asks for it expected: each value after its flag"),
        ((*TRAIN, "--train.learning-rate", "1"), "error: there is no --train.learning-rate"),
        ((*TRAIN, "--lr", "1"), "error: there is no --lr expected: --train.lr"),
        (
            (*TRAIN, "--augment.dihedral"),
            "error: there is no --augment.dihedral expected: --augment.no-dihedral",
        ),
        (
            (*TRAIN, "--train.best-by"),
            "error: --train.best-by has no value expected: one of auroc, specificity, loss",
        ),
        (("models", "--jsn"), "error: there is no --jsn expected: --json"),
        ((*TRAIN, "--train.lrr", "1"), "error: there is no --train.lrr expected: --train.lr"),
        (
            ("evaluate", "--run", "r", "--evaluation.resamples", "3"),
            "error: --evaluation.resamples is 3 expected: gr",
        ),
        (
            ("tune", "--data", "d", "--sweep", "s", "--budget.trials", "0"),
            "error: --budget.trials is 0 expected: gr",
        ),
        (
            ("promote", "--run", "r", "--registry", "r", "--gate.max-ece", "2"),
            "error: --gate.max-ece is 2.0 expected",
        ),
        (("bundles", "burn", "--registry", "r"), "error: action is 'burn' expected: one of list, show"),
        (("train", "--data", "ftp://d", "--run", "r"), "scheme 'ftp'"),
        (
            ("ingest", "--source", "x", "--out", "y", "--valid-fraction", "0.6", "--test-fraction", "0.6"),
            "sum below 1",
        ),
        (
            ("serve", "--registry", "r", "--bundle", "b", "--port", "70000"),
            "error: --port is 70000 expected: less than or equal to 65535",
        ),
        (("evaluate", "--run", "r", "--out", "o", "--dry-run"), "error: out does not go with run, only data"),
        (("evaluate", "--slides", "s"), "error: slides are measured against a reference"),
    ],
)
def test_wrong_usage_is_told_plainly(
    arguments: tuple[str, ...], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments) == 2
    shown = " ".join(capsys.readouterr().err.split())
    assert reason in shown
    assert "Traceback" not in shown


def test_without_tyros_private_part_it_tells_in_its_own_way(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "tyro._errors", None)
    assert run("bundles", "list") == 2
    assert "--registry" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("ingest", "--source", "{tmp}/none", "--out", "{tmp}/out"), "none"),
        (("verify", "{tmp}/none"), "manifest.json"),
        (("train", "--data", "{tmp}/none", "--run", "{tmp}/run"), "there is no data set at"),
        (("serve", "--registry", "{tmp}", "--bundle", "candidate"), "candidate"),
        (("promote", "--run", "{tmp}/none", "--registry", "{tmp}"), "no finished run"),
    ],
)
def test_what_is_missing_is_named(
    arguments: tuple[str, ...], reason: str, tmp_path: object, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*(a.format(tmp=tmp_path) for a in arguments)) in (1, 2)
    shown = capsys.readouterr().err
    assert reason in shown
    assert "Traceback" not in shown


def test_interrupt_ends_with_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("sentinode.commands.doctor.run", interrupted)
    assert run("doctor") == cli.INTERRUPTED


def test_doctor_names_a_store_that_cannot_be_used(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("doctor", "--store", "ftp://somewhere") == 1
    assert "ftp" in capsys.readouterr().out
