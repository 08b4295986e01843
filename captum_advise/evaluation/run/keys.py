"""What the rows of a method depend on besides the image, part by part."""

from __future__ import annotations

import json
import sys
from collections.abc import Collection, Iterable, Mapping
from functools import cache
from importlib import metadata
from typing import NamedTuple

from torch import nn

from captum_advise._version import __version__
from captum_advise.evaluation.columns import Metric
from captum_advise.evaluation.data.items import Item
from captum_advise.evaluation.digests import digest, weights_digest
from captum_advise.evaluation.methods import SavedMaps
from captum_advise.evaluation.run.identity import Identity
from captum_advise.evaluation.run.image_evaluator import ImageEvaluator
from captum_advise.evaluation.run.store import Key, Row, Setting, Store

# Counts up when the same settings give other rows.
FORMAT = 5
# What the metrics are computed with.
_PACKAGES = frozenset({"captum", "torch"})
VERSIONS = "the versions of packages"


def settings_of(evaluator: ImageEvaluator) -> dict[str, Setting]:
    """The setting of each method."""
    model, context = evaluator.model, evaluator.context
    objects = {
        "the model": Identity.of(model, with_weights=False),
        "the confidence": Identity.of(context.confidence, model),
        "the pixel space": Identity.of(context.pixel_space, model),
        "the settings of metrics": Identity.of(evaluator.settings, model),
    }
    if evaluator.reshape_transform is not None:
        objects["the layout"] = Identity.of(evaluator.reshape_transform, model)
    plain = {
        "the format": str(FORMAT),
        "the weights": weights_digest(model),
        "the layer": layer_name(model, evaluator.layer),
        "the seed": str(evaluator.seed),
        "the batch size": str(context.internal_batch_size),
        "the device": evaluator.device.type,
    }
    found: dict[str, Setting] = {}
    for name, method in evaluator.methods.items():
        # A map in a file is part of what is known of each image.
        is_saved = isinstance(method, SavedMaps)
        own = objects if is_saved else {**objects, "the method": Identity.of(method, model)}
        needed = (getattr(method, "needs", None) or ())[:1]
        packages = _PACKAGES.union(needed, *(part.packages for part in own.values()))
        digests = {part: identity.digest for part, identity in own.items()}
        found[name] = Setting(name, {**digests, **plain, VERSIONS: _versions(packages)})
    return found


def keys_of(
    item: Item, settings: Mapping[str, Setting], methods: Mapping[str, object]
) -> dict[str, Key]:
    """The key of each method's row for an image. A map's file that is missing is an error."""
    keys = {}
    for name, setting in settings.items():
        method, content = methods[name], item.fingerprint
        if isinstance(method, SavedMaps):
            content = digest(content, method.file(item.name).read_bytes())
        keys[name] = Key(digest(item.name), content, setting.id)
    return keys


class Missing(NamedTuple):
    """What the store lacks for a row."""

    metrics: tuple[Metric, ...]  # to compute
    reason: str
    stored: Row | None  # the row with other metrics, if there is one


def missing_rows(
    store: Store,
    keys: Mapping[str, Key],
    settings: Mapping[str, Setting],
    metrics: Iterable[Metric],
    again: Collection[str],
) -> dict[str, Missing]:
    """What the store lacks of an image, by method.

    ``metrics`` are those that its rows should have; rows of the methods ``again`` were deleted.
    """
    found: dict[str, Missing] = {}
    for (name, key), row in zip(keys.items(), store.rows(keys.values()), strict=True):
        lacking = tuple(m for m in metrics if row is None or m.name not in row.values)
        if row is None:
            reason = "asked for again" if name in again else _reason(store, key, settings[name])
            found[name] = Missing(lacking, reason, row)
        elif lacking:
            found[name] = Missing(lacking, "new metric", row)
    return found


def _reason(store: Store, key: Key, setting: Setting) -> str:
    """Why there is no row: what differs from the latest one of the same image and method."""
    latest = store.latest(key.image, setting.method)
    if latest is None:
        return "new method" if store.has_image(key.image) else "new image"
    content, parts = latest
    before, now = {"the image": content, **parts}, {"the image": key.content, **setting.parts}
    differing = [part for part in {**now, **before} if now.get(part) != before.get(part)]
    return f"{' and '.join(differing)} changed"


def layer_name(model: nn.Module, layer: nn.Module) -> str:
    """The dotted name of a module of the model."""
    for name, module in model.named_modules():
        if module is layer:
            return str(name)
    raise ValueError("The layer is not a module of the model.")


def _versions(packages: Iterable[str]) -> str:
    """The versions of packages and Python, as JSON."""
    # Code differs between versions of Python.
    python = ".".join(map(str, sys.version_info[:2]))
    others = {name: _version(name) for name in sorted({*packages} - {"captum_advise"})}
    return json.dumps({"python": python, "captum_advise": __version__, **others})


def _version(package: str) -> str | None:
    """The version of a package, without the part that names the device it was built for."""
    (distribution, *_) = _distributions().get(package, [package])
    try:
        return metadata.version(distribution).partition("+")[0]
    except metadata.PackageNotFoundError:
        return None


@cache
def _distributions() -> Mapping[str, list[str]]:
    return metadata.packages_distributions()
