"""Errors that carry their own condition reason and say whether somebody has to act.

    StokerError
    ├── Waiting   something is under way; look again by itself
    └── Stalled   nothing moves until a person changes something

Everything else is a bug: it is raised, counted, logged and retried with back-off.
"""

from __future__ import annotations


class StokerError(Exception):
    """A known obstacle: ``reason`` goes into the condition as it is, ``message`` names the object and the next step."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason = reason
        self.message = message


class Waiting(StokerError):
    """Something is under way; the object is looked at again after ``retry_after`` seconds at the latest."""

    def __init__(self, reason: str, message: str, *, retry_after: float = 15.0) -> None:
        super().__init__(reason, message)
        self.retry_after = retry_after


class Stalled(StokerError):
    """Somebody has to act; a change of the object or of what it refers to brings it back, and so does the resync."""
