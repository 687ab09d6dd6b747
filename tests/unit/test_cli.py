"""The command line: flags from the models, plain errors, exit codes."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from sentinode import __version__, cli


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
        (("audit",), "at least 1"),
        (("train",), "--data"),
        (("train", "--recipe", "nope"), "no recipe 'nope'"),
        (("train", "--data", "d", "--run", "r", "--train.lr", "-1"), "greater than 0"),
        (("train", "--data", "d", "--run", "r", "--train.learning-rate", "1"), "learning-rate"),
        (("train", "--data", "ftp://d", "--run", "r"), "scheme 'ftp'"),
        (
            ("ingest", "--source", "x", "--out", "y", "--valid-fraction", "0.6", "--test-fraction", "0.6"),
            "sum below 1",
        ),
        (
            ("serve", "--registry", "r", "--bundle", "b", "--port", "70000"),
            "error: port: Input should be less",
        ),
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
