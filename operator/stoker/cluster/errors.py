"""What the API server answers when it does not do what was asked."""

from __future__ import annotations

import json
from typing import Self


class ApiError(Exception):
    """A refusal of the API server; ``status`` is the HTTP status, ``reason`` Kubernetes' word for it."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{status} {reason}: {message}" if status else message)
        self.status = status
        self.reason = reason
        self.message = message

    @classmethod
    def from_answer(cls, status: int, body: bytes, path: str) -> Self:
        """From the Status object in the answer, or from whatever a proxy on the way has sent instead."""
        try:
            answer = json.loads(body)
            return cls(status, str(answer.get("reason", "")), str(answer.get("message", "")))
        except (ValueError, AttributeError):
            return cls(status, "", f"{path}: {body[:200].decode(errors='replace')}")


class ApiUnavailable(ApiError):
    """No answer at all: refused, cut or too late. Status 0."""

    def __init__(self, message: str) -> None:
        super().__init__(0, "Unavailable", message)
