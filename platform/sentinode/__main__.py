"""``python -m sentinode``, the same as ``sentinode``."""

from sentinode.cli import main

main()
