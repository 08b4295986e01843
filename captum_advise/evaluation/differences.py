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
    """What differs between two configurations, each as a clause of a sentence."""
    clauses = []
    for name in dict.fromkeys([*earlier, *given]):
        before, now = earlier.get(name), given.get(name)
        if before == now:
            continue
        if name == "weights_sha256":
            clauses.append("the weights of the model have changed")
        elif name == "methods" and isinstance(before, Mapping) and isinstance(now, Mapping):
            clauses += _methods(before, now)
        elif name == "packages" and isinstance(before, Mapping) and isinstance(now, Mapping):
            clauses += differences(before, now)
        else:
            clauses.append(_difference(_IN_WORDS.get(name, name), before, now))
    return clauses


def _methods(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    if before.keys() != now.keys():
        return [f"the methods were {', '.join(before)} and are now {', '.join(now)}"]
    return [
        _difference(f"the method {name}", before[name], now[name])
        for name in before
        if before[name] != now[name]
    ]


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
