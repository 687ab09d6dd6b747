"""Weights to start from: a local safetensors file, or one of the Hugging Face hub's. Nothing is unpickled."""

from __future__ import annotations

import logging
import os
import socket
import sys
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from sentinode.errors import ConfigError

HUB_PREFIX: Final = "hf-hub:"
CONNECT_TIMEOUT_S = 4.0

log = logging.getLogger(__name__)


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors of ``path`` by name, on the CPU. Raises ConfigError where it is no readable safetensors file."""
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ConfigError(
            f"the weights file {path} cannot be read ({error})",
            "a safetensors file, on every machine that trains",
            "check model.weights_file",
        ) from error
    return tensors


def fetch_hub_file(repository: str, file: str) -> Path:
    """Local path of ``file`` of the hub's ``repository`` (owner/name, or with @revision), from the cache or fetched.

    Raises ConfigError where the hub cannot be reached, refuses, or holds no such file. The access token for
    gated models is read by the hub's client from the environment.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError

    name, _, revision = repository.partition("@")
    arguments: dict[str, Any] = {"repo_id": name, "filename": file, "revision": revision or None}
    try:
        return Path(hf_hub_download(**arguments, local_files_only=True))
    except LocalEntryNotFoundError:
        _check_hub_is_reachable(name)
    except ValueError as error:
        raise ConfigError(f"{name!r} names no model of the hub ({error})", "owner/name") from error
    try:
        return Path(hf_hub_download(**arguments))
    except LocalEntryNotFoundError as error:
        raise _unreachable(name) from error
    except EntryNotFoundError as error:
        raise ConfigError(
            f"the hub's {name} holds no {file}",
            "a model published as safetensors; pickled weights are not read",
            "convert the weights once where they are trusted, and give them as model.weights_file",
        ) from error
    except (HfHubHTTPError, OSError) as error:
        raise ConfigError(
            f"the hub refuses {name} ({str(error).splitlines()[0]})",
            "a public model, or a token with access to it",
            "set HF_TOKEN, accept the model's terms on its page, or give a model.weights_file",
        ) from error


def load_backbone(backbone: nn.Module, tensors: dict[str, Tensor], where: str) -> None:
    """Load ``tensors``, named as timm names them, into a timm network without a head.

    Tensors that the network has not (a head, most often) are left out and logged. Raises ConfigError where
    one is missing or has another shape.
    """
    # timm's own changes to names and shapes of published weights: position embeddings for another image
    # size, older names.
    adapt = getattr(sys.modules[type(backbone).__module__], "checkpoint_filter_fn", None)
    try:
        fitting = tensors if adapt is None else adapt(tensors, backbone)
        missing, unused = backbone.load_state_dict(fitting, strict=False)
    except (RuntimeError, KeyError, TypeError) as error:
        raise _unfit(where, str(error).splitlines()[-1].strip()) from error
    if missing:
        total = len(backbone.state_dict())
        raise _unfit(where, f"{len(missing)} of {total} tensors are missing, {missing[0]} the first")
    if unused:
        log.info("%s: %d tensors are not used, %s the first", where, len(unused), unused[0])


def _unfit(where: str, fault: str) -> ConfigError:
    return ConfigError(
        f"the weights {where} do not fit the network: {fault}",
        "the weights of this very network, under timm's names",
        "check model.name and model.timm_kwargs against the source of the weights",
    )


def _check_hub_is_reachable(name: str) -> None:
    """Raise ConfigError at once where there is no network; the hub's client would try for half a minute."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        raise _unreachable(name)
    if any(os.environ.get(variable) for variable in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")):
        return
    endpoint = urlsplit(constants.ENDPOINT)
    port = endpoint.port or (443 if endpoint.scheme == "https" else 80)
    try:
        socket.create_connection((endpoint.hostname or "", port), CONNECT_TIMEOUT_S).close()
    except OSError as error:
        raise _unreachable(name) from error


def _unreachable(name: str) -> ConfigError:
    return ConfigError(
        f"{name} is not in the local cache, and the hub cannot be reached from here",
        "a network, or the weights as a file",
        "set model.pretrained to file and give a model.weights_file, or fill the hub's cache on a machine with a "
        "network (hf download)",
    )
