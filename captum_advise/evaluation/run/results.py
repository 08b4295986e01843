"""What is written from the store: tables, and the description of the run."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from functools import cache
from importlib import metadata
from typing import TYPE_CHECKING, Any

import torch

from captum_advise._utils.io import ENCODING
from captum_advise._utils.optional_dependencies import import_optional
from captum_advise.evaluation.data.items import Items
from captum_advise.evaluation.run.image_evaluator import ImageEvaluator
from captum_advise.evaluation.run.keys import layer_name
from captum_advise.evaluation.run.store import Key, Row, Store

if TYPE_CHECKING:
    import pandas as pd

# Integers, as far as all rows have a value.
_INTEGERS = ("index", "target", "predicted", "hit", "increase_in_confidence")
_TEXTS = ("file", "content", "method", "layer", "reason")
_PACKAGES = (
    *("torch", "captum", "numba", "torchvision", "timm", "torchcam", "grad-cam", "zennit"),
    *("numpy", "scipy"),
)


@dataclass(frozen=True)
class StoredRun:
    """The rows of a call's images and methods.

    Attributes:
        store: Where they are.
        keys: For each image that has a row of every method, by its position in the data, the keys
            by method.
        names: Of all images.
    """

    store: Store
    keys: Mapping[int, Mapping[str, Key]]
    names: Sequence[str]

    def rows(self) -> Iterator[tuple[int, str, Key, Row]]:
        """Position, method, key and row, image by image."""
        for index, keys in self.keys.items():
            for (method, key), row in zip(
                keys.items(), self.store.rows(keys.values()), strict=True
            ):
                if row is not None:
                    yield index, method, key, row

    def records(self) -> Iterator[dict[str, Any]]:
        """The rows as :data:`IDENTITY` and metrics."""
        for index, method, key, row in self.rows():
            own = {"index": index, "file": self.names[index], "content": key.content}
            yield {**own, "method": method, **row.values}

    def curves(self) -> Iterator[tuple[str, Mapping[str, Sequence[float]]]]:
        """Method and curves of each row."""
        for _, method, _, row in self.rows():
            yield method, row.curves

    def kept_map(self, index: int, method: str) -> bytes | None:
        """The PNG of a map that took many passes."""
        (row,) = self.store.rows([self.keys[index][method]])
        return None if row is None else row.map


def as_table(records: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> pd.DataFrame:
    """Rows as a table, with 0 and 1 for false and true."""
    pandas = import_optional("pandas", "evaluation")
    texts = [name for name in columns if name in _TEXTS]
    # Names of files need not be UTF-8.
    rows = [
        {**own, **{name: _decoded(own[name]) for name in texts if name in own}} for own in records
    ]
    table: pd.DataFrame = pandas.DataFrame(rows, columns=list(columns))
    types = {
        name: "int64" if name in _INTEGERS and table[name].notna().all() else "float64"
        for name in columns
        if name not in texts
    }
    return table.astype(types)


def information(
    evaluator: ImageEvaluator, items: Items, counts: Mapping[str, Any], processes: int
) -> dict[str, Any]:
    """The content of ``run.json``: settings, data, versions, machine, and what the call did."""
    network, context, settings = items.network, evaluator.context, evaluator.settings
    source = next((part for part in items.parts if hasattr(part, "source")), None)
    return {
        "configuration": {
            "network": getattr(network, "name", None),
            "weights": getattr(network, "weights", None),
            "layer": layer_name(evaluator.model, evaluator.layer),
            **_plain(settings),
            "pixel_space": _plain(context.pixel_space),
            "confidence": getattr(context.confidence, "__name__", str(context.confidence)),
            "seed": evaluator.seed,
            "internal_batch_size": context.internal_batch_size,
            "device": str(evaluator.device),
        },
        "data": {
            "images": len(items),
            "path": source and str((source.source or source.folder).absolute()),
        },
        "images_failed": counts["failed"],
        "versions": {
            "python": platform.python_version(),
            **{name: _version(name) for name in _PACKAGES},
        },
        "machine": {
            "platform": platform.platform(),
            "processor": platform.processor() or platform.machine(),
            "device": torch.cuda.get_device_name() if evaluator.device.type == "cuda" else "cpu",
        },
        "sessions": [
            {
                "ended": datetime.now(timezone.utc).isoformat(timespec="seconds"),
                "arguments": sys.argv,
                "processes": processes,
                "threads_per_process": torch.get_num_threads(),
                "methods": list(evaluator.methods),
                **counts,
            }
        ],
    }


def _plain(value: Any) -> Any:
    """Settings as JSON has them."""
    return asdict(value) if hasattr(value, "__dataclass_fields__") else value


def _decoded(text: str) -> str:
    return text.encode(**ENCODING).decode(errors="replace")


@cache
def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
