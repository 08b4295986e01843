"""What differs between the configurations of two runs, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# What is not called by its key.
_IN_WORDS = {
    "model": "the model",
    "confidence": "the confidence",
    "transform": "the transform of the images",
}


def differences(earlier: Mapping[str, Any], given: Mapping[str, Any]) -> list[str]:
    """What differs between two configurations, each as a clause of a sentence.

    Methods and packages that only one of them has are not a difference.
    """
    clauses = []
    for name in dict.fromkeys([*earlier, *given]):
        before, now = earlier.get(name), given.get(name)
        if before == now:
            continue
        if name == "weights_sha256":
            clauses.append("the weights of the model have changed")
        elif name == "methods" and isinstance(before, Mapping) and isinstance(now, Mapping):
            clauses += [
                _difference(f"the method {method}", before[method], now[method])
                for method in before
                if method in now and before[method] != now[method]
            ]
        elif name == "packages" and isinstance(before, Mapping) and isinstance(now, Mapping):
            common = [package for package in before if package in now]
            clauses += differences(
                {package: before[package] for package in common},
                {package: now[package] for package in common},
            )
        else:
            clauses.append(_difference(_IN_WORDS.get(name, name), before, now))
    return clauses


def changed_methods(earlier: Mapping[str, Any], given: Mapping[str, Any]) -> set[str]:
    """The methods of both configurations that are not the same in both."""
    before, now = earlier["methods"], given["methods"]
    return {method for method in before.keys() & now.keys() if before[method] != now[method]}


def _difference(what: str, before: Any, now: Any) -> str:
    names = [value["name"] if _is_identity(value) else value for value in (before, now)]
    if names[0] == names[1]:
        return f"{what} ({names[0]}) has other code or settings"
    before, now = (
        shown if _is_identity(value) else repr(value)
        for shown, value in zip(names, (before, now), strict=True)
    )
    return f"{what} was {before} and is now {now}"


def _is_identity(value: Any) -> bool:
    return isinstance(value, Mapping) and value.keys() == {"name", "sha256"}
