"""What the DOUBLE of the API server answers when it refuses, and the shapes of what it keeps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Key = tuple[str, str, str]
"""Namespace, plural, name."""
Object = dict[str, Any]


class RefusedError(Exception):
    """A reply other than success; ``causes`` go into the details of its Status."""

    def __init__(self, code: int, reason: str, message: str, causes: Sequence[Object] = ()) -> None:
        super().__init__(message)
        self.code, self.reason, self.causes = code, reason, causes

    @property
    def status(self) -> Object:
        """The Status of ``meta/v1`` that is the reply's body."""
        told: Object = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": self.code,
                        "reason": self.reason, "message": str(self)}  # fmt: skip
        return told | ({"details": {"causes": list(self.causes)}} if self.causes else {})
