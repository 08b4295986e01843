"""What is written from the store: tables, images with maps, and the description of the run."""

from __future__ import annotations

import platform
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from captum_advise.evaluation.data.items import Items
from captum_advise.evaluation.run.image_evaluator import ImageEvaluator
from captum_advise.evaluation.run.keys import layer_name, versions

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Evaluation:
    """Result of :func:`evaluate`.

    Attributes:
        results: One row per method and image, cell of a mosaic, or object of a scene. A metric that
            it does not have is NaN.
        summary: One row per method and metric.
        failures: One row per image that could not be evaluated.
        folder: The folder of the report.
        reused: Number of rows that earlier calls have computed.
        computed: Number of rows that this call has computed.
        reasons: Why these were computed: number of rows by what is new or differs.

    Example::

        >>> from captum_advise.evaluation import evaluate
        >>> dataset = [(image, 3) for image in images]
        >>> evaluation = evaluate(net, net.conv4, dataset, ["grad-cam", "random"], "report")
        >>> evaluation.computed, len(evaluation.results), evaluation.reasons
        (4, 4, {'new image': 4})
        >>> evaluate(net, net.conv4, dataset, ["grad-cam", "random"], "report").reused
        4
    """

    results: pd.DataFrame
    summary: pd.DataFrame
    failures: pd.DataFrame
    folder: Path
    reused: int = field(compare=False)
    computed: int = field(compare=False)
    reasons: Mapping[str, int] = field(compare=False)


def information(evaluator: ImageEvaluator, items: Items) -> dict[str, Any]:
    """What ``run.json`` says of settings, data, versions and machine."""
    network, source, context = items.first("network"), items.first("source"), evaluator.context
    of_methods: dict[str, Any] = {}
    for method in evaluator.methods.values():
        of_methods |= getattr(method, "settings", {})
    return {
        "configuration": {
            "network": getattr(network, "name", None),
            "weights": getattr(network, "weights", None),
            "layer": layer_name(evaluator.model, evaluator.layer),
            **asdict(evaluator.settings),
            **of_methods,
            "pixel_space": context.pixel_space and asdict(context.pixel_space),
            "confidence": getattr(context.confidence, "__name__", str(context.confidence)),
            "seed": evaluator.seed,
            "internal_batch_size": context.internal_batch_size,
            "device": str(evaluator.device),
        },
        "data": {"images": len(items), "path": source and str(source.absolute())},
        "methods": list(evaluator.methods),
        "versions": versions(),
        "machine": {
            "platform": platform.platform(),
            "device": torch.cuda.get_device_name() if evaluator.device.type == "cuda" else "cpu",
            "threads_per_process": torch.get_num_threads(),
        },
        "arguments": sys.argv,
        "ended": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
