"""What is written from the store: tables, images with maps, and the description of the run."""

from __future__ import annotations

import io
import json
import platform
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from captum_advise._utils.io import ENCODING
from captum_advise._utils.optional_dependencies import import_optional
from captum_advise.evaluation.data.items import Items
from captum_advise.evaluation.run.image_evaluator import ImageEvaluator
from captum_advise.evaluation.run.keys import VERSIONS, layer_name
from captum_advise.evaluation.run.store import Key, Row, Setting, Store
from captum_advise.pixels import resolve_pixel_space

if TYPE_CHECKING:
    import pandas as pd

# Integers, as far as all rows have a value.
_INTEGERS = ("index", "target", "predicted", "hit", "increase_in_confidence")
_TEXTS = ("file", "content", "method", "layer", "reason")


@dataclass(frozen=True)
class StoredRun:
    """The rows of a call's images and methods."""

    store: Store
    # By position and method, of the images that have a row of every method.
    keys: Mapping[int, Mapping[str, Key]]
    items: Items

    def rows(self) -> Iterator[tuple[int, str, Key, Row]]:
        """Position, method, key and row, image by image."""
        for index, keys in self.keys.items():
            found = self.store.rows(keys.values())
            for (method, key), row in zip(keys.items(), found, strict=True):
                if row is not None:
                    yield index, method, key, row

    def records(self) -> Iterator[dict[str, Any]]:
        """The rows as :data:`IDENTITY` and metrics."""
        for index, method, key, row in self.rows():
            own = {"index": index, "file": self.items.names[index], "content": key.content}
            yield {**own, "method": method, **row.values}

    def shown(self, index: int, evaluator: ImageEvaluator) -> tuple[Tensor, dict[str, Tensor]]:
        """The image (3, H, W) in [0, 1] at a position, and each method's map (1, 1, h, w).

        Maps that took many forward passes are stored. The others are made again.
        """
        item = self.items[index].to(evaluator.device)
        keys = self.keys[index]
        stored = dict(zip(keys, self.store.rows(keys.values()), strict=True))
        kept = {name: row.map for name, row in stored.items() if row is not None and row.map}
        made = evaluator.maps(item, [method for method in keys if method not in kept])
        maps = {name: _as_map(kept[name]) if name in kept else made[name].cpu() for name in keys}
        inputs = item.inputs
        pixels = resolve_pixel_space(evaluator.context.pixel_space, inputs).to_pixels(inputs)
        return pixels[0].clamp(0, 1).expand(3, -1, -1).float().cpu(), maps


def _as_map(picture: bytes) -> Tensor:
    pillow = import_optional("PIL.Image", "evaluation")
    with pillow.open(io.BytesIO(picture)) as image:
        return torch.from_numpy(np.asarray(image).astype(np.float32))[None, None]


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
    evaluator: ImageEvaluator,
    items: Items,
    settings: Mapping[str, Setting],
    session: Mapping[str, Any],
) -> dict[str, Any]:
    """The content of ``run.json``: settings, data, versions, machine, and what the call did."""
    network, context = items.network, evaluator.context
    source = next((part for part in items.parts if hasattr(part, "source")), None)
    versions = [json.loads(setting.parts[VERSIONS]) for setting in settings.values()]
    of_methods = [getattr(method, "settings", {}) for method in evaluator.methods.values()]
    space = context.pixel_space
    return {
        "configuration": {
            "network": getattr(network, "name", None),
            "weights": getattr(network, "weights", None),
            "layer": layer_name(evaluator.model, evaluator.layer),
            **asdict(evaluator.settings),
            **_merged(of_methods),
            "pixel_space": space and asdict(space),
            "confidence": getattr(context.confidence, "__name__", str(context.confidence)),
            "seed": evaluator.seed,
            "internal_batch_size": context.internal_batch_size,
            "device": str(evaluator.device),
        },
        "data": {
            "images": len(items),
            "path": source and str((source.source or source.folder).absolute()),
        },
        "versions": _merged(versions),
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


def _merged(parts: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    return {name: value for part in parts for name, value in part.items()}


def _decoded(text: str) -> str:
    return text.encode(**ENCODING).decode(errors="replace")
