"""What is written from the store: tables, images with maps, and the description of the run."""

from __future__ import annotations

import json
import platform
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from captum_advise._utils.io import ENCODING
from captum_advise._utils.optional_dependencies import import_optional
from captum_advise.evaluation.data.items import Items
from captum_advise.evaluation.pictures import as_tensor
from captum_advise.evaluation.run.image_evaluator import ImageEvaluator
from captum_advise.evaluation.run.keys import VERSIONS, layer_name
from captum_advise.evaluation.run.store import Key, Row, Setting, Store
from captum_advise.pixels import to_pixels

if TYPE_CHECKING:
    import pandas as pd

# Integers, as far as all rows have a value.
_INTEGERS = ("index", "target", "predicted", "hit", "increase_in_confidence")
_TEXTS = ("file", "content", "method", "layer", "reason")
# Spreadsheets take texts that begin so for formulas.
_FORMULA = ("=", "+", "-", "@", "\t")


@dataclass(frozen=True)
class Evaluation:
    """Result of :func:`evaluate`.

    Attributes:
        results: One row per image, or cell of a mosaic, and method. A metric that an image does not
            have is NaN.
        summary: One row per method and metric.
        failures: One row per image that could not be evaluated.
        folder: The folder of the report.
        reused: Number of rows that earlier calls have computed.
        computed: Number of rows that this call has computed.
        reasons: Why these were computed: number of rows by what is new or differs.
        others: Number of rows in the folder that are not of this call.

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
    others: int = field(compare=False)


@dataclass(frozen=True)
class StoredRun:
    """The rows of a call's images and methods."""

    store: Store
    # By position and method, of the images that have a row of every method.
    keys: Mapping[int, Mapping[str, Key]]
    items: Items

    def rows(self, index: int) -> dict[str, Row]:
        """The rows of the image at a position, by method."""
        keys = self.keys[index]
        found = zip(keys, self.store.rows(keys.values()), strict=True)
        return {method: row for method, row in found if row is not None}

    def records(self) -> Iterator[dict[str, Any]]:
        """The rows as :data:`IDENTITY` and metrics, image by image."""
        for index, keys in self.keys.items():
            for method, row in self.rows(index).items():
                own = {"index": index, "file": self.items.names[index], "method": method}
                yield {**own, "content": keys[method].content, **row.values}

    def curves(self) -> Iterator[tuple[str, Mapping[str, list[float]]]]:
        """The method and the curves of each row."""
        for index in self.keys:
            for method, row in self.rows(index).items():
                yield method, row.curves

    def shown(self, index: int, evaluator: ImageEvaluator) -> tuple[Tensor, dict[str, Tensor]]:
        """The image (3, H, W) in [0, 1] at a position, and each method's map (1, 1, h, w).

        Maps that took many forward passes are stored. The others are made again.
        """
        item = self.items[index].to(evaluator.device)
        kept = {method: row.map for method, row in self.rows(index).items() if row.map}
        made = evaluator.maps(item, [method for method in self.keys[index] if method not in kept])
        maps = {
            method: as_tensor(kept[method])[None] if method in kept else made[method].cpu()
            for method in self.keys[index]
        }
        pixels = to_pixels(item.inputs, evaluator.context.pixel_space, item.inputs)[0].clamp(0, 1)
        return pixels.expand(3, -1, -1).float().cpu(), maps


def printable(text: str) -> str:
    """A text without the bytes that are not UTF-8, which names of files may have."""
    return text.encode(**ENCODING).decode(errors="replace")


def as_table(
    records: Iterable[Mapping[str, Any]],
    columns: Sequence[str],
    text: Callable[[str], str] = printable,
) -> pd.DataFrame:
    """Rows as a table, with 0 and 1 for false and true, and NaN for what a row lacks."""
    pandas = import_optional("pandas", "evaluation")
    texts = {name for name in columns if name in _TEXTS}
    rows = [{k: text(v) if k in texts else v for k, v in own.items()} for own in records]
    table: pd.DataFrame = pandas.DataFrame(rows, columns=list(columns), dtype=object)
    types = {
        name: "int64" if name in _INTEGERS and table[name].notna().all() else "float64"
        for name in columns
        if name not in texts
    }
    return table.astype(types)


def as_csv(records: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> str:
    """Rows as the content of a CSV file, with seven digits."""
    table = as_table(records, columns, _as_field)
    text: str = table.to_csv(index=False, float_format="%.7g", na_rep="nan", lineterminator="\n")
    return text


def _as_field(text: str) -> str:
    """A text as CSV files hold it: one line, and no formula."""
    line = re.sub(r"[\r\n\0]", " ", text)
    return f"'{line}" if line.startswith(_FORMULA) and line != "-" else line


def information(
    evaluator: ImageEvaluator,
    items: Items,
    settings: Mapping[str, Setting],
    session: Mapping[str, Any],
) -> dict[str, Any]:
    """The content of ``run.json``: settings, data, versions, machine, and what the call did."""
    network, source, context = items.first("network"), items.first("source"), evaluator.context
    versions: dict[str, Any] = {}
    of_methods: dict[str, Any] = {}
    for name, method in evaluator.methods.items():
        versions |= json.loads(settings[name].parts[VERSIONS])
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
        "versions": versions,
        "machine": {
            "platform": platform.platform(),
            "device": torch.cuda.get_device_name() if evaluator.device.type == "cuda" else "cpu",
        },
        "sessions": [
            {
                "ended": datetime.now(timezone.utc).isoformat(timespec="seconds"),
                "arguments": sys.argv,
                "threads_per_process": torch.get_num_threads(),
                "methods": list(evaluator.methods),
                **session,
            }
        ],
    }
