"""The endpoint's builder, for Ray Serve.

PYTHONPATH=platform serve run --app-dir serve app:build registry=<url> bundle=<digest>
PYTHONPATH=platform serve deploy serve/config.yaml
"""

from sentinode.serving.application import build

__all__ = ["build"]
