"""Packages that only some installations have."""

from __future__ import annotations

from typing import Any

from captum_advise import extras


def package(module: str, extra: str = "evaluation") -> Any:
    """The module, or an error that names the extra that brings it."""
    return extras.package(module, extra)
