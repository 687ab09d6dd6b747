"""Synthetic slides: a lymph node on glass with metastases of known size, pen and blur if asked for."""
