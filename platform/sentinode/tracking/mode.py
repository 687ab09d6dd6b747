"""Where runs are told of: W&B's server, files to send later, or nowhere. Decided by the environment alone."""

from __future__ import annotations

import netrc
import os
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from sentinode.errors import ConfigError

ONLINE: Final = ("online", "run", "shared")
OFFLINE: Final = ("offline", "dryrun")
NOWHERE: Final = ("disabled",)
PUBLIC: Final = "https://api.wandb.ai"


def tracking_mode() -> Any:
    """``WANDB_MODE`` where it is set, else online with an API key and offline without one."""
    asked = os.environ.get("WANDB_MODE", "")
    return asked or ("online" if os.environ.get("WANDB_API_KEY") else "offline")


def check_tracking() -> str:
    """What will become of tracking, in words; called before any work begins.

    Raises ConfigError where ``WANDB_MODE`` is none of W&B's, or asks for its server and no key is known here.
    """
    mode = tracking_mode()
    if mode in NOWHERE:
        return "nothing is tracked"
    if mode in OFFLINE:
        return "offline, to be sent later: wandb sync <run>/wandb/offline-run-*"
    server = os.environ.get("WANDB_BASE_URL") or PUBLIC
    if mode not in ONLINE:
        raise ConfigError(
            f"WANDB_MODE is {mode!r}",
            "online, offline or disabled",
            "leave it out: then W&B is online with WANDB_API_KEY and offline without",
        )
    if not _key_known(server):
        raise ConfigError(
            f"WANDB_MODE is {mode}, and there is no API key for {server}",
            "WANDB_API_KEY, or a key kept by `wandb login`",
            "set it, or set WANDB_MODE=offline and send the runs later by `wandb sync`",
        )
    return f"online, {server}"


def _key_known(server: str) -> bool:
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    try:
        kept = netrc.netrc(os.environ.get("NETRC") or Path.home() / ".netrc")
    except (OSError, netrc.NetrcParseError):
        return False
    return kept.authenticators(urlsplit(server).hostname or server) is not None
