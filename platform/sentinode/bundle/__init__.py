"""Bundles: immutable, content-addressed models that are safe to load."""
