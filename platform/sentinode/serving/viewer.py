"""The page: its files in memory, served from the endpoint's own origin under a strict content security policy."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from sentinode.errors import ConfigError, RequestError

PAGE: Final = "index.html"
CONTENT_SECURITY_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS: Final = {
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "cache-control": "no-cache",
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}
_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}
_LARGEST_BYTES: Final = 1 << 20


def checkout_folder() -> Path | None:
    """``serve/viewer``: beside the ``app.py`` that Serve imports (its folder is on PYTHONPATH), else of the checkout
    that this library runs from; None where there is neither.
    """
    importable = [Path(entry) for entry in sys.path if entry and (Path(entry) / "app.py").is_file()]
    for folder in (*importable, Path(__file__).resolve().parents[3] / "serve"):
        if (folder / "viewer" / PAGE).is_file():
            return folder / "viewer"
    return None


class Viewer:
    """Answers for the files of ``folder`` by name: nothing is looked up on the disk at a client's wish.

    Raises ConfigError where the folder has no page.
    """

    def __init__(self, folder: Path) -> None:
        files = sorted(path for path in folder.glob("*") if path.suffix in _TYPES) if folder.is_dir() else []
        if not any(path.name == PAGE for path in files):
            raise ConfigError(f"{folder} holds no {PAGE}", "the folder serve/viewer of a checkout")
        large = [path.name for path in files if path.stat().st_size > _LARGEST_BYTES]
        if large:
            raise ConfigError(f"{', '.join(large)} in {folder} are larger than {_LARGEST_BYTES} bytes")
        self._files = {path.name: (path.read_bytes(), _TYPES[path.suffix]) for path in files}

    async def page(self, request: Request) -> Response:
        """``GET /``."""
        return self._answer(request, PAGE)

    async def file(self, request: Request) -> Response:
        """``GET /viewer/<name>``."""
        return self._answer(request, request.path_params["name"])

    def _answer(self, request: Request, name: str) -> Response:
        if name not in self._files:
            raise RequestError("the page has no such file", status=404)
        body, kind = self._files[name]
        tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
        headers = {**_HEADERS, "etag": tag}
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        return Response(body, headers=headers, media_type=kind)
