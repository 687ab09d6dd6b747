"""How long Ray Train waits for what: its settings are environment variables, read when a run starts."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

POLL_S = 0.2
"""Ray Train's controller looks at its workers every 2 s by default and takes one report at a look: too slow
for short epochs.
"""
ELASTIC_START_S = 5.0
"""Longest wait of an elastic run for the resources that it has just been told are free.

The controller hears of a lost worker within a second, from its broken connection. That the node is lost it hears
after five missed health checks (15 s) and the next look of Ray's coordinator of resources (every 20 s). Until
then it asks for as many workers as before, and by its default would wait a minute for a node that is gone.
"""
ELASTIC_START_RETRIES = 30
"""Such waits in vain that an elastic run survives: about seven for each lost node."""


@contextmanager
def ray_train_settings(*, elastic: bool) -> Iterator[None]:
    """Ray Train's settings for a run started within the ``with``; a variable that the user has set stays as it is.

    A run of fixed size keeps Ray's own patience: an autoscaler may still bring what it waits for.
    """
    wanted = {"RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": str(POLL_S)}
    if elastic:
        wanted["RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"] = str(ELASTIC_START_S)
    added = {name: value for name, value in wanted.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)
