"""Which code made a result."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Final

from sentinode import __version__

UNKNOWN_COMMIT: Final = "unknown"
_VERSIONED: Final = ("torch", "ray", "torchmetrics", "numpy")


def code_commit(package: Path | None = None) -> str:
    """The commit of the code that runs, or of the ``package`` of another checkout: git's where it lies in one, else
    SENTINODE_COMMIT.
    """
    here = package or Path(__file__).parent

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(here), *arguments], capture_output=True, text=True, timeout=20, check=True
            )
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip()

    # Installed packages may lie within somebody else's checkout: the package has to be tracked by it.
    commit = git("rev-parse", "HEAD") if git("ls-files", "--error-unmatch", "__init__.py") else None
    if commit is None:
        return os.environ.get("SENTINODE_COMMIT") or UNKNOWN_COMMIT
    return f"{commit}-dirty" if git("status", "--porcelain", "--", ".") else commit


def versions_here() -> dict[str, str]:
    """Of Python, Sentinode and the packages that decide the numbers."""
    versions = {"python": platform.python_version(), "sentinode": __version__}
    for package in _VERSIONED:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
