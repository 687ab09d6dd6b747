"""Whether a request means this machine, by its Host header.

An endpoint on loopback without keys trusts whoever can reach it. A page of a foreign name can, in the user's browser,
once that name resolves to 127.0.0.1 (DNS rebinding), and to the browser the replies are its own. The Host header still
has the foreign name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

_LOCAL: Final = re.compile(
    rb"(?:(?:[a-z0-9_-]+\.)*localhost\.?|127(?:\.[0-9]{1,3}){3}|\[::1\])(?::[0-9]{0,5})?", re.IGNORECASE
)


def is_local(host: bytes) -> bool:
    """Whether the value of a Host header names loopback, at any port. So does none: browsers always send one."""
    return not host or _LOCAL.fullmatch(host.strip()) is not None


def are_local(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether all Host headers of a request name loopback."""
    return all(is_local(value) for name, value in headers if name == b"host")
