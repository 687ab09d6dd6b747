"""The store of the local overlay: moto's S3 on port 9000, with the one bucket that the settings name. All in memory."""

from __future__ import annotations

import os
import signal
import threading
import urllib.request

from moto.server import ThreadedMotoServer

BUCKET = os.environ.get("BUCKET", "sentinode-data")


def main() -> None:
    """Serve until SIGTERM."""
    over = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: over.set())
    server = ThreadedMotoServer("0.0.0.0", 9000, verbose=False)
    server.start()
    # moto takes any signature; a bucket is a PUT.
    request = urllib.request.Request(f"http://127.0.0.1:9000/{BUCKET}", method="PUT")
    with urllib.request.urlopen(request, timeout=30):
        pass
    over.wait()
    server.stop()


if __name__ == "__main__":
    main()
