"""Which metric to trust: degrade maps, and see which metrics notice, and which can be gamed.

    python docs/measured/metric_checks.py --data labels.csv --output checks [--limit 25 ...]
    python docs/measured/metric_checks.py --data photos --output checks --only-show
    python docs/measured/metric_checks.py --tables

The first evaluates the maps of one method and degraded ones on images of EfficientNet-Lite0, or of
another network, and on mosaics of them. A stopped command continues. Its rows replace those of
metric_checks.csv beside this file, one per image, or image of mosaics, and change of the map; then
the table of docs/explanation/which-metric-to-trust.md is written. ``--only-show`` prints the table
and leaves both files. ``--tables`` writes only the table.
"""

from __future__ import annotations

import argparse
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from markdown_table import markdown_table
from torch import Tensor, nn

from captum_advise import zoo
from captum_advise._core.scoring import as_masks
from captum_advise._utils.io import ENCODING, atomic_write
from captum_advise.evaluation import (
    ClassMaps,
    Context,
    Method,
    MetricSettings,
    evaluate,
    get_methods,
    image_dataset,
    mosaic_dataset,
)
from captum_advise.evaluation.columns import METRICS, Metric
from captum_advise.evaluation.randomness import seeded
from captum_advise.evaluation.report.statistics import SIGNIFICANCE, holm, p_value_of
from captum_advise.pixels import normalize_maps

ROWS = Path(__file__).with_suffix(".csv")
PAGE = Path(__file__).parents[1] / "explanation" / "which-metric-to-trust.md"
START, END = "<!-- table: docs/measured/metric_checks.py -->", "<!-- end of table -->"
# Bold where a metric gets significantly worse, italic where it gets better.
MARKS = {"worse": "**", "better": "*", "": ""}
# Before the name of an image, in rows of its cells in mosaics.
IN_MOSAICS = "in mosaics: "
TITLES = {"root": "square root"}
ORIGINAL = "original"
_OTHER_CLASS = "other class"


def _shifted(maps: Tensor) -> Tensor:
    return maps.roll([side // 2 for side in maps.shape[2:]], (2, 3))


def _shuffled(maps: Tensor) -> Tensor:
    order = torch.randperm(maps.shape[2:].numel()).to(maps.device)
    return maps.flatten(2)[..., order].view_as(maps)


def _blurred(maps: Tensor) -> Tensor:
    window = [side // 4 * 2 + 1 for side in maps.shape[2:]]
    return F.avg_pool2d(maps, window, 1, [side // 2 for side in window], count_include_pad=False)


def _random(maps: Tensor) -> Tensor:
    return torch.rand(maps.shape).to(maps)


def _root(maps: Tensor) -> Tensor:
    return normalize_maps(maps).sqrt()


def _square(maps: Tensor) -> Tensor:
    return normalize_maps(maps).square()


# What makes a map worse, and what leaves the order of its pixels.
WORSE: Mapping[str, Callable[[Tensor], Tensor]] = {
    "shifted": _shifted,
    "shuffled": _shuffled,
    "blurred": _blurred,
    _OTHER_CLASS: torch.clone,
    "random": _random,
}
MONOTONE: Mapping[str, Callable[[Tensor], Tensor]] = {"root": _root, "square": _square}


# The share of images that a change shows: on which the metric gets worse, or better.
SHOWN = {**dict.fromkeys(WORSE, "worse"), **dict.fromkeys(MONOTONE, "better")}


@dataclass(frozen=True)
class Degraded:
    """A method whose maps are changed afterwards.

    All changes draw the same random numbers for the map: that of a method that draws samples would
    otherwise not be the one that is compared.
    """

    method: Method
    change: Callable[[Tensor], Tensor]
    of_other_class: bool = False
    at_full_size: bool = False

    def __call__(
        self, model: nn.Module, layer: nn.Module, inputs: Tensor, target: Tensor, context: Context
    ) -> Tensor:
        """The changed map."""
        # As a run with seed 0 seeds a method of this name.
        with seeded(zlib.crc32(f"0 {context.image} {ORIGINAL}".encode(**ENCODING))):
            return self._changed(model, layer, inputs, target, context)

    def _changed(
        self, model: nn.Module, layer: nn.Module, inputs: Tensor, target: Tensor, context: Context
    ) -> Tensor:
        if self.of_other_class:
            with torch.no_grad():
                n_classes = model(inputs).shape[1]
            with torch.random.fork_rng(devices=[]):
                offset = torch.randint(1, n_classes, target.shape)
            target = (target + offset.to(target)) % n_classes
        result = self.method(model, layer, inputs, target, context)
        maps = result.maps if isinstance(result, ClassMaps) else result
        maps = maps.detach().float().sum(1, keepdim=True).relu()
        if self.at_full_size:
            # Interpolation would change the order of the pixels afterwards.
            maps = as_masks(maps, inputs.shape[2:])
        return self.change(maps)


def degraded(method: Method) -> dict[str, Method]:
    """A method as it is, and with every change of its maps, by name of the change."""
    methods: dict[str, Method] = {ORIGINAL: Degraded(method, torch.clone)}
    for name, change in WORSE.items():
        methods[name] = Degraded(method, change, of_other_class=name == _OTHER_CLASS)
    for name, change in MONOTONE.items():
        methods[name] = Degraded(method, change, at_full_size=True)
    return methods


def rows_of(results: pd.DataFrame) -> pd.DataFrame:
    """The rows of an evaluation of degraded maps, by the image's name; those of mosaics apart."""
    in_mosaics = results["file"].str.extract(r"mosaic \d+, cell \d+: (.*)", expand=False)
    shown = in_mosaics.fillna(results["file"]).map(lambda file: Path(file).name)
    item = shown.where(in_mosaics.isna(), IN_MOSAICS + shown)
    tested = [metric.name for metric in METRICS if metric.tested and metric.name in results]
    keys = [item.rename("item"), results["method"].rename("change")]
    return results.groupby(keys, sort=False)[tested].mean().reset_index()


def checks(rows: pd.DataFrame) -> pd.DataFrame:
    """One row per metric and change.

    The columns are ``metric``, ``change``, ``images``, ``original`` and ``changed`` (means),
    ``worse`` and ``better`` (shares of images on which the metric is strictly so) and ``p_value``
    (paired, two-sided Wilcoxon signed-rank test, corrected by Holm's method for the whole table).
    """
    rows = rows.rename(columns={"item": "index", "change": "method"})
    of_mosaics = rows["index"].str.startswith(IN_MOSAICS)
    table = pd.DataFrame(
        [
            _row(part, metric, change)
            for change in (*WORSE, *MONOTONE)
            for part, is_cell in ((rows[~of_mosaics], False), (rows[of_mosaics], True))
            for metric in METRICS
            if (metric.of == "mosaics") == is_cell
            and metric.tested
            and metric.name in part
            and part[metric.name].notna().any()
        ]
    )
    table["p_value"] = holm(table["p_value"])
    return table


def _row(results: pd.DataFrame, metric: Metric, change: str) -> dict[str, Any]:
    values = results.pivot(index="index", columns="method", values=metric.name)
    original, changed = (values[name].to_numpy(np.float64) for name in (ORIGINAL, change))
    loss = original - changed if metric.higher_is_better else changed - original
    return {
        "metric": metric.name,
        "change": change,
        "images": len(values),
        "original": original.mean(),
        "changed": changed.mean(),
        "worse": float((loss > 0).mean()),
        "better": float((loss < 0).mean()),
        "p_value": p_value_of(loss),
    }


def verdict(entry: pd.Series) -> str:
    """Whether a change makes a metric significantly worse, better, or neither."""
    if not entry["p_value"] < SIGNIFICANCE or entry["worse"] == entry["better"]:
        return ""
    return "worse" if entry["worse"] > entry["better"] else "better"


def area(root: str, square: str) -> str:
    """Which maps a metric favours among those with the same order of pixels."""
    return {("better", "worse"): "large", ("worse", "better"): "small"}.get((root, square), "")


def table(rows: pd.DataFrame) -> str:
    """One row per metric, one column per change."""
    found = checks(rows)
    metrics = {metric.name: metric for metric in METRICS}
    lines = []
    for name, entries in found.groupby("metric", sort=False):
        entries = entries.set_index("change")
        verdicts = {change: verdict(entries.loc[change]) for change in SHOWN}
        cells = [metrics[name].heading]
        for change, column in SHOWN.items():
            mark = MARKS[verdicts[change]]
            cells.append(f"{mark}{entries.loc[change, column]:.0%}{mark}")
        lines.append([*cells, area(verdicts["root"], verdicts["square"])])
    header = ["metric", *(TITLES.get(change, change) for change in SHOWN), "favoured area"]
    of_mosaics = rows["item"].str.startswith(IN_MOSAICS)
    n_images, n_tiles = (rows.loc[part, "item"].nunique() for part in (~of_mosaics, of_mosaics))
    return f"{n_images} images, {n_tiles} of them in mosaics.\n\n{markdown_table(header, lines)}"


def page(rows: pd.DataFrame) -> str:
    """The page with its table."""
    before, rest = PAGE.read_text(encoding="utf-8").split(START)
    return f"{before}{START}\n\n{table(rows)}\n\n{END}{rest.split(END)[1]}"


def evaluated(arguments: argparse.Namespace) -> pd.DataFrame:
    """The rows of the degraded maps of a method."""
    network = zoo.load(arguments.model, layer=arguments.layer)
    model = network.model.to(memory_format=torch.channels_last)
    images = image_dataset(arguments.data, network, limit=arguments.limit)
    items: Any = images
    if arguments.mosaics:
        items = images + mosaic_dataset(model, images, count=arguments.mosaics)
    (method,) = get_methods([arguments.method]).values()
    result = evaluate(
        model,
        network.layer,
        items,
        degraded(method),
        arguments.output,
        metrics=["default", "mu_fidelity"],
        pixel_space=network.pixel_space,
        settings=MetricSettings(steps=arguments.steps),
    )
    return rows_of(result.results)


def main() -> None:
    """Evaluate degraded maps, or only write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tables", action="store_true", help="only, from the committed rows")
    parser.add_argument("--data", help="as for captum-advise evaluate")
    parser.add_argument("--output", default="checks")
    parser.add_argument("--model", default="efficientnet-lite0")
    parser.add_argument("--layer")
    parser.add_argument("--method", default="grad-cam", help="whose maps are degraded")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--mosaics", type=int, default=0, help="how many, of 2 x 2 images")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--only-show", action="store_true", help="print the table, write no file")
    arguments = parser.parse_args()
    if not arguments.tables and arguments.data is None:
        parser.error("give --data, or --tables")
    if not arguments.tables:
        rows = evaluated(arguments)
        if arguments.only_show:
            print(table(rows))
            return
        atomic_write(ROWS, rows.to_csv(index=False, float_format="%.5g"))
    # From the rounded rows, which are all that others have.
    atomic_write(PAGE, page(pd.read_csv(ROWS)))


if __name__ == "__main__":
    main()
