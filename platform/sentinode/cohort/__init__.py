"""Slides as a data set: Camelyon folders, the patches sampled from them, and synthetic slides."""
