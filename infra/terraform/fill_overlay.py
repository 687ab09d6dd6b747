"""What Terraform made, put into the manifests of k8s/: bucket, region, image repositories, roles, host name, digests.

    terraform output -json | python3 fill_overlay.py --host sentinode.example.org \\
        train=sha256:... serve=sha256:... valkey=sha256:...

Run again with other digests, it puts those in place of the former ones. What was not given stays as it is. Commit the
result to your own repository.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

OUTPUTS = ("settings", "images", "roles")
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def main() -> int:
    """Exit code 2 where an argument or an output is wrong; nothing is written then."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("digests", nargs="*", metavar="NAME=sha256:...", help="what the push printed")
    parser.add_argument("--host", help="name under which the endpoint is asked")
    parser.add_argument("--k8s", type=Path, default=Path(__file__).resolve().parents[2] / "k8s")
    given = parser.parse_args()
    digests = dict(pair.partition("=")[::2] for pair in given.digests)
    try:
        outputs = {name: output["value"] for name, output in json.load(sys.stdin).items()}
    except (ValueError, TypeError, KeyError, AttributeError):
        parser.error("standard input is not what `terraform output -json` prints; did that command fail?")
    missing = [name for name in OUTPUTS if name not in outputs]
    if missing:
        parser.error(f"no output {', '.join(missing)}: give `terraform output -json` of infra/terraform")
    for name, digest in digests.items():
        if name not in outputs["images"] or not DIGEST.fullmatch(digest):
            parser.error(f"{name}={digest}: one of {', '.join(outputs['images'])} =sha256:<64 hex digits>")
    for path, text in filled(given.k8s, outputs, digests, given.host).items():
        path.write_text(text)
    return 0


def filled(k8s: Path, outputs: dict[str, Any], digests: dict[str, str], host: str | None) -> dict[Path, str]:
    """Text by file. Raises SystemExit where a file no longer has the line that is to be filled."""
    settings = outputs["settings"]
    images, roles = k8s / "components/images/kustomization.yaml", k8s / "components/irsa/kustomization.yaml"
    changes = [(k8s / "overlays/production/platform/settings.yaml", rf"^  {key}: .*$", f"  {key}: {value}")
               for key, value in settings.items()]  # fmt: skip
    endpoint = k8s / "overlays/production/endpoint/kustomization.yaml"
    secrets = k8s / "components/external-secrets/secrets.yaml"
    changes += [
        (endpoint, r"registry=\S+", f"registry={settings['SENTINODE_REGISTRY']}"),
        (secrets, r"region: \S+", f"region: {settings['AWS_REGION']}"),
    ]
    changes += [
        (images, rf"newName: \S+/{name}$", f"newName: {url}") for name, url in outputs["images"].items()
    ]
    changes += [
        (images, rf"(newName: \S+/{name}\n    digest: )\S+", rf"\g<1>{digest}")
        for name, digest in digests.items()
    ]
    changes += [(roles, rf'"arn:[^"]*-{name}"', f'"{arn}"') for name, arn in outputs["roles"].items()]
    if host is not None:
        gateway, grpc = k8s / "components/gateway/gateway.yaml", k8s / "components/gateway-grpc"
        changes += [
            (gateway, r"hostname: \S+", f"hostname: {host}"),
            (gateway, r"hostnames: \[\S+\]", f"hostnames: [{host}]"),
            (grpc / "kustomization.yaml", r"hostname: \S+", f"hostname: grpc.{host}"),
            (grpc / "grpc.yaml", r"hostnames: \[\S+\]", f"hostnames: [grpc.{host}]"),
        ]
    texts: dict[Path, str] = {}
    for path, pattern, line in changes:
        texts[path], count = re.subn(pattern, line, texts.get(path) or path.read_text(), flags=re.MULTILINE)
        if count != 1:
            raise SystemExit(f"{path}: {count} places for {line!r}, expected one; fill it by hand")
    return texts


if __name__ == "__main__":
    sys.exit(main())
