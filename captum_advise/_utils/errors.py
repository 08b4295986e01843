"""Errors that a user can do something about, in one sentence."""

from __future__ import annotations

import difflib
import sys
import unicodedata
import warnings
from collections.abc import Iterable

# What bad input raises. Anything else is a bug and ends in a traceback.
USER_ERRORS = (ValueError, OSError, RuntimeError, ImportError)
# Frames that lie between a user's call and a warning.
_INNER = ("captum_advise", "captum", "torch")
# Letters that turn the direction of writing, which hides how a name ends.
_TURNS = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")


def warn_caller(message: str) -> None:
    """Give a UserWarning at the line that called the package."""
    level, frame = 1, sys._getframe(0)
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] in _INNER:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, UserWarning, stacklevel=level)


def did_you_mean(text: str, known: Iterable[str]) -> str:
    """The known names most like a text, in brackets, for a message; empty if none is."""
    close = difflib.get_close_matches(text, list(known), n=3)
    return f" (did you mean {' or '.join(close)}?)" if close else ""


def require_known(kind: str, name: str, known: Iterable[str]) -> None:
    """Require one of the known names; an error lists them, and first those most like it."""
    known = list(known)
    if name not in known:
        hint = did_you_mean(name.casefold(), known)
        raise ValueError(f"There is no {kind} {name!r}{hint}: the {kind}s are {', '.join(known)}.")


def on_one_line(text: str) -> str:
    """Text in which nothing that a file name may hold begins a line, or steers a terminal."""

    def is_plain(letter: str) -> bool:
        turns = unicodedata.bidirectional(letter) in _TURNS
        return unicodedata.category(letter) not in ("Cc", "Zl", "Zp") and not turns

    return "".join(letter if is_plain(letter) else repr(letter)[1:-1] for letter in text)


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its type where it has none."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def reason(error: BaseException) -> str:
    """The first line of an error's message, to be put in brackets or before a full stop."""
    return first_line(error).strip("<>").rstrip(".")
