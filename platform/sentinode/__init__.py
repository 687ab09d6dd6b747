"""Sentinode: train, search and serve detectors of lymph-node metastases. Research use only."""

__version__ = "0.1.0"
