"""The command line: one sub-command a step, flags generated from the frozen configuration models."""

from __future__ import annotations

import importlib
import json
import logging
import os
import select
import sys
from collections.abc import Sequence
from typing import Annotated, Any, Final, TypeVar

import tyro
from pydantic import Field, ModelWrapValidatorHandler, ValidationError, create_model, model_validator
from rich.console import Console

from sentinode import __version__
from sentinode.commands.wrong_usage import WrongUsage
from sentinode.config import Frozen
from sentinode.errors import ConfigError, SentinodeError
from sentinode.logs import configure_logging

COMMANDS: Final = {
    "synthesize": "synthetic whole slides with metastases of known size, annotations and labels",
    "ingest": "a folder of labelled patches -> shards and a manifest",
    "join": "several data sets -> one, checked for leaks between them",
    "verify": "re-read a data set and name each fault",
    "audit": "what stands on both sides of a split: duplicates, slides, patients",
    "train": "a manifest -> a trained detector (Ray Train DDP)",
    "tune": "a search space -> trials, a Pareto front and a winner (Ray Tune, Optuna)",
    "evaluate": "a trained run -> predictions and a report",
    "compare": "two runs or files of predictions -> paired differences",
    "promote": "an evaluated run -> a sealed bundle, and an alias moved to it",
    "rollback": "an alias -> the bundle that it named before",
    "bundles": "what a registry holds: list, show, diff, pull, gc",
    "serve": "a bundle -> an HTTP endpoint (Ray Serve)",
    "submit": "a step as a job on a Ray cluster, its log and exit code here",
    "rollout": "a bundle or image -> the RayService of a cluster, proved or taken back",
    "keys": "API keys of an endpoint: make, list, revoke",
    "score": "whole slides -> heat maps, lesions and slide scores",
    "screen": "scored validation slides -> the slide score below which slides may be set aside",
    "worklist": "scored slides -> in which order to read them, and which may be set aside",
    "demo": "the whole way on one machine",
    "models": "the networks: size, work per patch, what they see",
    "doctor": "what is installed and reachable here, and what to fix",
}
INTERRUPTED: Final = 130

T = TypeVar("T", bound=Frozen)

log = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of ``sentinode``; ends the process with the step's exit code."""
    try:
        _main(list(sys.argv[1:] if argv is None else argv))
    except BrokenPipeError:
        if not _reader_left():
            raise
        # Python would complain once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def _reader_left() -> bool:
    """Whether nobody reads our output any more, as when `head` has seen enough."""
    output = select.poll()
    output.register(sys.stdout.fileno(), 0)
    return any(event & select.POLLERR for _, event in output.poll(0))


def _main(arguments: list[str]) -> None:
    if not arguments or arguments[0] in ("-h", "--help"):
        _print_overview()
        sys.exit(0 if arguments else 2)
    if arguments[0] == "--version":
        Console().print(__version__, highlight=False)
        sys.exit(0)
    sys.exit(run_step(arguments[0], arguments[1:]))


def run_step(name: str, arguments: Sequence[str]) -> int:
    """Parse the flags of step ``name``, run it and return its exit code: 0 done, 1 failed, 2 wrong usage.

    A user's mistake prints what was found, expected and to be done; never a traceback (``SENTINODE_DEBUG=1`` shows it).
    """
    configure_logging()
    # What is wrong with a flag is told in a line, without the address of pydantic's manual.
    os.environ.setdefault("PYDANTIC_ERRORS_INCLUDE_URL", "0")
    try:
        if name not in COMMANDS:
            raise ConfigError(
                f"unknown command {name!r}", f"one of {', '.join(COMMANDS)}", "see sentinode --help"
            )
        step = importlib.import_module(f"sentinode.commands.{name}")
        defaults, rest = step.defaults(arguments) if hasattr(step, "defaults") else (None, list(arguments))
        config, dry_run = parse(step.FLAGS, name, rest, defaults)
        if dry_run and hasattr(step, "dry_run"):
            return int(step.dry_run(config))
        if dry_run:
            Console().print_json(json.dumps(config.model_dump(mode="json")))
            return 0
        return int(step.run(config) or 0)
    except KeyboardInterrupt:
        Console(stderr=True).print("interrupted; the same command resumes where it can")
        return INTERRUPTED
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] == "sentinode":
            raise
        return _fail(
            ConfigError(
                f"the package {error.name} is not installed",
                remedy="pip install 'sentinode[train,serve,slides,cluster]'",
            )
        )
    except SentinodeError as error:
        return _fail(error)


def parse(flags: type[T], name: str, arguments: Sequence[str], defaults: T | None = None) -> tuple[T, bool]:
    """Turn ``arguments`` into the frozen model ``flags``; also whether ``--dry-run`` was given.

    Raises ConfigError for flags that are unknown or missing, and for values that are none of their kind, out of bounds
    or do not go together. ``defaults`` may lack fields: those are required.
    """
    usage = WrongUsage(name, arguments, flags, defaults)
    switch: Any = (Annotated[bool, Field(description="Print the resolved configuration and stop.")], False)
    extended: Any = create_model(
        f"{flags.__name__}Flags",
        __base__=flags,
        __doc__=flags.__doc__,
        __validators__={"told": _told_plainly(usage)},
        dry_run=switch,
    )
    given = tyro.MISSING_NONPROP
    if defaults is not None:
        fields = {field: getattr(defaults, field, tyro.MISSING) for field in flags.model_fields}
        given = extended.model_construct(**fields, dry_run=False)
    with usage.told():
        parsed = tyro.cli(
            extended,
            prog=f"sentinode {name}",
            args=list(arguments),
            default=given,
            # Of the families of networks, the flags are those of the recipe's.
            config=(
                tyro.conf.FlagCreatePairsOff,
                tyro.conf.EnumChoicesFromValues,
                tyro.conf.AvoidSubcommands,
            ),
        )
    values = dict(parsed)
    dry_run = bool(values.pop("dry_run"))
    return flags.model_validate(values), dry_run


def _told_plainly(usage: WrongUsage) -> Any:
    """A validator around a model's own, which speaks as all errors here do: tyro would show pydantic's words."""

    def validate(cls: type[Any], values: Any, handler: ModelWrapValidatorHandler[Any]) -> Any:
        try:
            return handler(values)
        except ValidationError as error:
            raise usage.invalid(error) from error

    return model_validator(mode="wrap")(validate)


def _fail(error: SentinodeError) -> int:
    if os.environ.get("SENTINODE_DEBUG"):
        log.error("traceback (SENTINODE_DEBUG is set)", exc_info=error)
    Console(stderr=True, soft_wrap=True).print(f"[bold red]error:[/] {_plain(str(error))}", highlight=False)
    return error.exit_code


def _plain(text: str) -> str:
    return text.replace("[", "\\[")


def _print_overview() -> None:
    console = Console(highlight=False)
    console.print(
        "usage: sentinode <command> \\[options]\n\nLymph-node metastasis detectors: train, search, serve.\n"
    )
    for name, what in COMMANDS.items():
        console.print(f"  [bold]{name:<11}[/] {what}")
    console.print("\nsentinode <command> --help shows its options. Research use only.")
