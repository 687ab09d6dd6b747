"""Each command block of the README is executed, in order, in one shell session's folder, as a reader would."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

BLOCK = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)
MAKE_TARGETS = ("make demo", "make test", "make bench")


def blocks(readme: Path) -> list[str]:
    """The ``sh`` blocks of the README, but for those that only call make (the demo and the suite itself)."""
    found = BLOCK.findall(readme.read_text())
    return [
        b for b in found if not all(line.startswith(MAKE_TARGETS) for line in b.splitlines() if line.strip())
    ]


@pytest.mark.timeout(900)
def test_readme_commands_work(repository: Path, tmp_path: Path) -> None:
    commands = blocks(repository / "README.md")
    assert len(commands) >= 5, "the README shows a command for each step"
    script = "set -euo pipefail\n" + "\n".join(f"echo '--- block {i}'\n{b}" for i, b in enumerate(commands))
    for name in ("docs", "jobs", "platform", "serve"):
        (tmp_path / name).symlink_to(repository / name)
    binaries = Path(sys.executable).parent
    environment = os.environ | {
        "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(tmp_path / "home"),
        "SENTINODE_LOG": "plain",
    }
    (tmp_path / "home").mkdir()
    done = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=880
    )
    assert done.returncode == 0, f"{done.stdout[-4000:]}\n{done.stderr[-6000:]}"
    assert '"verdict"' in done.stdout, "the last step asks the endpoint for a verdict"
