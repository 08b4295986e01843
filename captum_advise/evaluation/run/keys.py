"""What the rows of a method depend on besides the image, part by part."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable

from torch import nn

from captum_advise._version import __version__
from captum_advise.evaluation.digests import weights_digest
from captum_advise.evaluation.run.identity import PACKAGES, identity, version_of
from captum_advise.evaluation.run.image_evaluator import ImageEvaluator
from captum_advise.evaluation.run.store import Setting

# Counts up when the same settings give other rows.
FORMAT = 5


def settings_of(evaluator: ImageEvaluator) -> dict[str, Setting]:
    """The setting of each method."""
    model, context = evaluator.model, evaluator.context
    parts = {
        "the model": identity(model, with_weights=False),
        "the confidence": identity(context.confidence),
        "the pixel space": identity(context.pixel_space),
        "the settings of metrics": identity(evaluator.settings),
        "the layout": identity(evaluator.reshape_transform),
        "the format": str(FORMAT),
        "the weights": weights_digest(model),
        "the layer": layer_name(model, evaluator.layer),
        "the seed": str(evaluator.seed),
        "the batch size": str(context.internal_batch_size),
        "the device": evaluator.device.type,
    }
    found: dict[str, Setting] = {}
    for name, method in evaluator.methods.items():
        packages = versions((getattr(method, "needs", None) or ())[:1])
        own = {"the method": identity(method), "the versions of packages": json.dumps(packages)}
        found[name] = Setting(name, {**parts, **own})
    return found


def layer_name(model: nn.Module, layer: nn.Module) -> str:
    """The dotted name of a module of the model."""
    for name, module in model.named_modules():
        if module is layer:
            return str(name)
    raise ValueError("The layer is not a module of the model.")


def versions(packages: Iterable[str] = ()) -> dict[str, str]:
    """The versions of packages, and of what all rows depend on."""
    # Code differs between versions of Python.
    python = ".".join(map(str, sys.version_info[:2]))
    others = {name: version_of(name) for name in (*PACKAGES, *packages)}
    return {"python": python, **others, "captum_advise": __version__}
