"""An S3 store for demonstrations and tests: moto's server on loopback, in a process that ends with ours."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
import threading
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import boto3
from botocore.config import Config

from sentinode.errors import MissingDependencyError, StoreError

_KEY = "embedded-store"
_REGION = "us-east-1"


class EmbeddedStore:
    """``with EmbeddedStore() as embedded``: a server that holds ``bucket`` and forgets everything at the end.

    It listens on 127.0.0.1 only, and stops when its parent closes it, ends or is killed. Objects above 16 MiB
    lie in the folder for temporary files. Any credentials do and no checksum is verified: not for production.

    Raises MissingDependencyError where moto is not installed, StoreError where the server does not start.
    """

    start_timeout_s = 60.0

    def __init__(self, bucket: str = "sentinode") -> None:
        self.bucket = bucket
        self._port = 0
        self._running = ExitStack()

    @property
    def url(self) -> str:
        """``s3://bucket``."""
        return f"s3://{self.bucket}"

    @property
    def endpoint_url(self) -> str:
        """``http://127.0.0.1:port``."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def environment(self) -> dict[str, str]:
        """The variables by which a process reaches this store."""
        unproxied = [host for host in os.environ.get("NO_PROXY", "").split(",") if host]
        return {
            "AWS_ENDPOINT_URL": self.endpoint_url,
            "AWS_ENDPOINT_URL_S3": self.endpoint_url,
            "AWS_ACCESS_KEY_ID": _KEY,
            "AWS_SECRET_ACCESS_KEY": _KEY,
            "AWS_SESSION_TOKEN": "",
            "AWS_REGION": _REGION,
            "AWS_DEFAULT_REGION": _REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
            "NO_PROXY": ",".join(dict.fromkeys([*unproxied, "127.0.0.1", "localhost"])),
        }

    def start(self) -> Self:
        """Start the server, wait for it and make the bucket."""
        if importlib.util.find_spec("moto") is None:
            raise MissingDependencyError(
                "the embedded store needs moto", "the package moto[server]", "pip install 'moto[server]'"
            )
        with ExitStack() as starting:
            log = starting.enter_context(tempfile.TemporaryFile(prefix="sentinode-embedded-store-"))
            # -P: the folder of the script must not come before the installed packages.
            command = [sys.executable, "-P", str(Path(__file__).with_name("embedded_server.py"))]
            process = starting.enter_context(
                subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, start_new_session=True
                )
            )
            starting.callback(process.kill)
            self._port = self._await_port(process, log)
            self._make_bucket()
            self._running = starting.pop_all()
        return self

    def close(self) -> None:
        """Stop the server; whatever it held is gone."""
        self._running.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _await_port(self, process: subprocess.Popen[bytes], log: IO[bytes]) -> int:
        assert process.stdout is not None
        overdue = threading.Timer(self.start_timeout_s, process.kill)
        overdue.start()
        try:
            line = process.stdout.readline()
        finally:
            overdue.cancel()
        if not line.strip().isdigit():
            process.wait()
            log.seek(0)
            said = log.read().decode(errors="replace").strip().splitlines() or ["no output"]
            raise StoreError(
                f"the embedded store did not start within {self.start_timeout_s:.0f} s: {said[-1]}",
                "moto's server on a loopback port",
                "pip install 'moto[server]'",
            )
        return int(line)

    def _make_bucket(self) -> None:
        client = boto3.session.Session().client(
            "s3",
            endpoint_url=self.endpoint_url,
            region_name=_REGION,
            aws_access_key_id=_KEY,
            aws_secret_access_key=_KEY,
            config=Config(proxies={}),
        )
        client.create_bucket(Bucket=self.bucket)
