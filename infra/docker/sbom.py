"""Software bill of materials: the installed distributions as CycloneDX 1.5 JSON, on standard output.

Only the standard library: it runs inside an image and leaves nothing there. https://cyclonedx.org/docs/1.5/json/
"""

from __future__ import annotations

import json
import os
import re
import sys
from datetime import UTC, datetime
from importlib.metadata import Distribution, distributions
from typing import Any


def component(distribution: Distribution) -> dict[str, Any]:
    """One distribution: name, version, package URL and what it says of its licence."""
    meta = distribution.metadata
    name = re.sub(r"[-_.]+", "-", meta["Name"]).lower()
    licence = meta.get("License-Expression") or (meta.get("License") or "").partition("\n")[0].strip()
    said = {"licenses": [{"license": {"name": licence[:200]}}]} if licence else {}
    return {
        "type": "library",
        "bom-ref": f"pkg:pypi/{name}@{distribution.version}",
        "name": name,
        "version": distribution.version,
        "purl": f"pkg:pypi/{name}@{distribution.version}",
        **said,
    }


def bill() -> dict[str, Any]:
    """The whole document; its date is SOURCE_DATE_EPOCH, so that it is the same in each build."""
    made = datetime.fromtimestamp(int(os.environ.get("SOURCE_DATE_EPOCH", "0")), UTC)
    parts = {part["bom-ref"]: part for part in map(component, distributions())}
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"timestamp": made.isoformat().replace("+00:00", "Z")},
        "components": [parts[reference] for reference in sorted(parts)],
    }


if __name__ == "__main__":
    json.dump(bill(), sys.stdout, indent=1, sort_keys=True)
    sys.stdout.write("\n")
