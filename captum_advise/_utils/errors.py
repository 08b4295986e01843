"""Errors that a user can do something about, in one sentence."""

from __future__ import annotations

# What bad input raises. Anything else is a bug and ends in a traceback.
USER_ERRORS = (ValueError, OSError, RuntimeError, ImportError)


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its type where it has none."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def reason(error: BaseException) -> str:
    """The first line of an error's message, to be put in brackets or before a full stop."""
    return first_line(error).strip("<>").rstrip(".")
