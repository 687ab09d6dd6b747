"""Synthetic lymph-node tissue: its ground, cells, tumour nests, stain and scanner."""
