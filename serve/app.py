"""The endpoint's builder, for Ray Serve. ``serve/config.yaml`` shows the arguments; from the command line:

$ PYTHONPATH=platform serve run --app-dir serve app:build registry=<url> bundle=<digest>
"""

from sentinode.serving.application import build

__all__ = ["build"]
