"""The configuration of a run: all that its results depend on besides the images."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from importlib import metadata
from typing import Any

from torch import nn
from torch.utils.data import Dataset

from captum_advise._version import __version__
from captum_advise.evaluation.identity import Identity, weights_digest
from captum_advise.evaluation.image_evaluation import ImageEvaluator
from captum_advise.evaluation.items import has_regions, reads_files
from captum_advise.evaluation.methods import SavedMaps
from captum_advise.evaluation.methods.registry import known_method
from captum_advise.evaluation.store import FORMAT
from captum_advise.metrics import AVXProtocol
from captum_advise.pixels import PixelSpace

# What the metrics are computed with.
_PACKAGES = {"captum", "torch"}


def configuration_of(
    evaluator: ImageEvaluator,
    dataset: Dataset[Any],
    methods: Mapping[str, Any] | Iterable[str],
    description: Mapping[str, str],
) -> dict[str, Any]:
    """The configuration as ``run.json`` holds it.

    Args:
        evaluator: Holds for all images.
        dataset: The transform of image files is part of the configuration.
        methods: As they were given, by name or as objects.
        description: What else belongs to it.

    Raises:
        ValueError: The layer is not a module of the model.
    """
    model, context, settings = evaluator.model, evaluator.context, evaluator.settings
    packages = set(_PACKAGES)

    def identity(value: Any, known: nn.Module | None = model) -> dict[str, str]:
        found = Identity.of(value, known, with_weights=value is not model)
        packages.update(found.packages)
        return {"name": found.name, "sha256": found.digest}

    identities: dict[str, Any] = {}
    for name, method in evaluator.methods.items():
        if known := known_method(name, method):
            identities[name] = {"name": "known by name", **known.settings}
            packages.update((known.needs or ())[:1])
        elif isinstance(method, SavedMaps):  # each image's map is part of its fingerprint
            identities[name] = "saved maps"
        else:
            identities[name] = identity(methods[name] if isinstance(methods, Mapping) else method)
    space: Any = context.pixel_space
    if space is not None:
        space = asdict(space) if type(space) is PixelSpace else identity(space)
    protocol: Any = settings.protocol
    protocol = asdict(protocol) if type(protocol) is AVXProtocol else identity(protocol)
    transform = None
    if reads_files(dataset):
        transform = identity(dataset.network.transform)  # type: ignore[attr-defined]
        packages.add("PIL")
    return {
        "format": FORMAT,
        "captum_advise": __version__,
        **description,
        "layer": _layer_name(model, evaluator.layer),
        "model": identity(model, None),
        "weights_sha256": weights_digest(model),
        "transform": transform,
        "regions": has_regions(dataset),
        "methods": identities,
        **asdict(settings),
        "on_request": sorted(settings.on_request),
        "protocol": protocol,
        "pixel_space": space,
        "confidence": identity(context.confidence),
        "seed": evaluator.seed,
        "internal_batch_size": context.internal_batch_size,
        "compiled": evaluator.compiled,
        "bf16": evaluator.bf16,
        "device": next(model.parameters()).device.type,
        "packages": {
            # Bytecode differs between versions of Python.
            "python": ".".join(map(str, sys.version_info[:2])),
            **{name: _version(name) for name in sorted(packages - {"captum_advise"})},
        },
    }


def _layer_name(model: nn.Module, layer: nn.Module) -> str:
    for name, module in model.named_modules():
        if module is layer:
            return str(name)
    raise ValueError("The layer is not a module of the model.")


def _version(package: str) -> str | None:
    """The version of a package, without the part that names the device it was built for."""
    try:
        version = getattr(importlib.import_module(package), "__version__", None)
    except ImportError:
        version = None
    if version is None:
        try:
            version = metadata.version(package)
        except metadata.PackageNotFoundError:
            return None
    return str(version).partition("+")[0]
