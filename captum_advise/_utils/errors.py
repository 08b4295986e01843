"""Errors that a user can do something about, in one sentence."""

from __future__ import annotations

import sys
import warnings

# What bad input raises. Anything else is a bug and ends in a traceback.
USER_ERRORS = (ValueError, OSError, RuntimeError, ImportError)


# Frames that lie between a user's call and a warning.
_INNER = ("captum_advise", "captum", "torch")


def warn_caller(message: str) -> None:
    """Give a UserWarning at the line that called the package."""
    level, frame = 1, sys._getframe(0)
    while frame.f_back is not None and _is_inner(frame.f_globals.get("__name__", "")):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, UserWarning, stacklevel=level)


def _is_inner(module: str) -> bool:
    return module.partition(".")[0] in _INNER


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its type where it has none."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def reason(error: BaseException) -> str:
    """The first line of an error's message, to be put in brackets or before a full stop."""
    return first_line(error).strip("<>").rstrip(".")
