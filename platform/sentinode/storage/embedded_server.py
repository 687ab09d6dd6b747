"""The process of EmbeddedStore: a script that writes its port to standard output and serves until input ends.

Input is a pipe that nobody writes to. It closes when the parent closes it or dies, even by SIGKILL.
"""

from __future__ import annotations

import logging
import os
import sys

from moto.server import ThreadedMotoServer


def main() -> None:
    """Serve on a free port of 127.0.0.1."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    sys.stdout.write(f"{server.get_host_and_port()[1]}\n")
    sys.stdout.flush()
    sys.stdin.buffer.read()
    os._exit(0)


if __name__ == "__main__":
    main()
