"""What goes along with a job: the checkout, but not the data and runs that README's commands put into it."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def test_what_readmes_commands_make_is_left_out_of_a_job() -> None:
    readme = (ROOT / "README.md").read_text()
    made = {
        *re.findall(r"--(?:out|run|sweep) ([a-z]+)/", readme),
        *re.findall(r"--registry ([a-z]+)\b", readme),
    }
    assert {"data", "runs", "sweeps", "registry"} <= made
    # Ray leaves out what git ignores, and takes no more than 100 MiB.
    for folder in made:
        asked = subprocess.run(["git", "check-ignore", "-q", f"{folder}/file"], cwd=ROOT, check=False)
        assert asked.returncode == 0, f"{folder}/ is not in .gitignore"
        tracked = subprocess.run(
            ["git", "ls-files", folder], cwd=ROOT, capture_output=True, text=True, check=True
        )
        assert not tracked.stdout
