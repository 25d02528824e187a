"""The failures that a user can do something about."""


class KindlessError(Exception):
    """Shown as one line without a traceback."""
