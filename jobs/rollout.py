"""Run `sentinode rollout` as a Ray job; it takes the same flags.

ray job submit --working-dir . -- python jobs/rollout.py --help
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "platform"))

from sentinode.cli import run_step

if __name__ == "__main__":
    sys.exit(run_step("rollout", sys.argv[1:]))
