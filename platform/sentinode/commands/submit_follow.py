"""A job of a Ray cluster followed to its end: its log as it comes, also over a connection that breaks."""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from typing import TYPE_CHECKING, Final

from sentinode.errors import ClusterError

if TYPE_CHECKING:
    from ray.job_submission import JobDetails, JobSubmissionClient

log = logging.getLogger(__name__)
STILL_RUNNING: Final = 130
"""Exit code of one who stopped watching."""
_POLL_S: Final = 1.0
_AGAIN_S: Final = 5.0
"""After what broke; Ray's client says a line each time."""
_PATIENCE_S: Final = 180.0


class OutOfSightError(ClusterError):
    """A job that may well go on cannot be followed any longer."""

    exit_code = STILL_RUNNING


class _Log:
    """The job's log on standard output. Each connection gives it from the start: what is known is left out."""

    def __init__(self) -> None:
        self.written = 0

    async def tail(self, client: JobSubmissionClient, job: str) -> None:
        read = 0
        async for text in client.tail_job_logs(job):
            fresh = text[max(0, self.written - read) :]
            read += len(text)
            if fresh:
                self.written += len(fresh)
                sys.stdout.write(fresh)
                sys.stdout.flush()


def follow(client: JobSubmissionClient, job: str) -> int:
    """Write the job's log to standard output as it comes, then its state; its exit code.

    What breaks is taken up again. Raises OutOfSightError where the cluster says nothing for three minutes.
    """
    output, heard_s, said = _Log(), time.monotonic(), ""
    while True:
        known, info, trouble = output.written, None, ""
        try:
            asyncio.run(output.tail(client, job))
        except BrokenPipeError:
            raise  # Our reader left, not the cluster.
        except _what_breaks() as error:
            trouble = first_line(error)
        try:
            info = client.get_job_info(job)
        except _what_breaks() as error:
            trouble = trouble or first_line(error)
        over, now_s = info is not None and info.status.is_terminal(), time.monotonic()
        if info is not None and over and not trouble:
            return _verdict(job, info)
        if output.written > known or (info is not None and not over):
            heard_s = now_s
        if now_s - heard_s > _PATIENCE_S:
            if info is None:
                raise OutOfSightError(
                    f"the cluster has not answered about job {job} for {_PATIENCE_S:.0f} s: {trouble}",
                    "the dashboard that took the job",
                    f"it may go on; follow it by: ray job logs --follow --address {client.get_address()} {job}",
                )
            log.warning("the end of the log of job %s cannot be read", job)
            return _verdict(job, info)
        if trouble and trouble != said:
            log.warning("the connection to job %s broke and is taken up again: %s", job, trouble)
        said = trouble
        time.sleep(_AGAIN_S if trouble else _POLL_S)


def first_line(error: Exception) -> str:
    """What is wrong, in a line."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def _verdict(job: str, info: JobDetails) -> int:
    if info.status.value == "SUCCEEDED":
        log.info("job %s is done", job)
        return 0
    log.error("job %s ended as %s: %s", job, info.status.value, info.message)
    return info.driver_exit_code or 1


def _what_breaks() -> tuple[type[Exception], ...]:
    import aiohttp
    from ray.exceptions import RayError

    return RuntimeError, OSError, aiohttp.ClientError, RayError
