"""The colours of the stains, apart from the code that needs PyTorch: serving shares them."""

from __future__ import annotations

from typing import Final

RUIFROK_HED: Final = ((0.65, 0.70, 0.29), (0.07, 0.99, 0.11), (0.27, 0.57, 0.78))
"""Optical density of haematoxylin, eosin and diaminobenzidine in red, green and blue.

Ruifrok and Johnston, "Quantification of histochemical staining by color deconvolution", Anal. Quant. Cytol.
Histol. 23 (2001) 291-299."""
