"""Does the map of several layers explain better than Grad-CAM? The study of `GatedGradCam`.

    python docs/measured/several_layers.py --data FOLDER --network efficientnet-lite0
    python docs/measured/several_layers.py --tables

FOLDER holds labels.csv (file, imagenet_class) and the images. Rows go to several_layers.csv
beside this file, tables to docs/explanation/appendix/several-layers-study.md.

Rules, fixed before any image of the held-out half was measured with this script:

- Images at even places of labels.csv are the search half. The formula, its layers and its
  constants were chosen on 20 of them with EfficientNet-Lite0. Images at odd
  places are the held-out half. Earlier trials of other formulas, and the two studies of unit
  choice, had used images of both halves.
- Networks: EfficientNet-Lite0, Lite1 and Lite2 with their weights. Targets are the labels.
- Candidate: `GatedGradCam` with the layers that the zoo gives.
- Primary metrics, each against Grad-CAM at the default layer: grid pointing game (share of the
  highest quarter of the pixels inside the cell), ROAD, insertion from the blurred image, insertion
  from black, deletion to black, deletion to the blurred image. Insertion and deletion have 12
  steps; ROAD removes 10, 20, ..., 90%, as published, with noise 0.01.
- Mosaics: 2 x 2 images of the half whose confidence in the label is above 0.7, 12 mosaics drawn
  without repetition inside a mosaic (seed 0), every cell a target.
- Tests: Wilcoxon's signed-rank test over images (for mosaics, over the mean of a mosaic's four
  maps), two-sided, with Holm's correction over the six primary metrics of a network.
- The candidate wins on a network if grid pointing is better on at least 80% of the maps, ROAD and
  insertion from the blurred image are significantly better (corrected p below 0.05), and none of
  the other three is significantly worse.
- Controls, measured in the same way: Grad-CAM smoothed with a box of 33 pixels, Grad-CAM to the
  powers 0.5 and 2 (the same order of pixels), and the candidate whose evidence comes only from
  units with at least two modes ("minmax"), for what unit relevance adds.
- A second candidate was added after these rules: `GatedGradCam` with `n_occlusions=32`. Its
  constants were chosen on the search half with EfficientNet-Lite0 (docs/measured/occlusions.py).
  The rule of the candidate holds for it too, and Holm's correction is over its own six metrics.
- AVX is reported at equal pixel order: each map is replaced by the ranks of its pixels.

Three things were changed after the held-out half of EfficientNet-Lite0 had been measured, and
before any other. The candidate is the same. Lite0 is measured a second time; the first rows are
kept ("held-out, first"), and the page leaves them out.

- ROAD removed 10, 30, 50, 70 and 90% then.
- The powers of Grad-CAM are left out. They had the same values as Grad-CAM in all primary metrics.
- Evidence of units with one mode alone is a further control.
"""

from __future__ import annotations

import argparse
import csv
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from captum.attr import LayerGradCam
from markdown_table import markdown_table
from PIL import Image
from scipy.stats import wilcoxon
from torch import Tensor

from captum_advise import GatedGradCam, unit_relevance, zoo
from captum_advise._core import gated_map as several
from captum_advise._core.layer_pass import LayerCall
from captum_advise._core.scoring import MapScorer
from captum_advise._core.targets import resolve_target
from captum_advise._utils.io import atomic_write
from captum_advise._utils.probabilities import softmax_over_classes
from captum_advise.evaluation.data.mosaics import MosaicDataset
from captum_advise.evaluation.report.statistics import holm
from captum_advise.evaluation.run.passes import fixed_size_batches
from captum_advise.metrics import (
    AVXProtocol,
    deletion_auc,
    insertion_auc,
    road,
    top_pixels,
)
from captum_advise.metrics.insertion_deletion import blurred
from captum_advise.pixels import black, normalize_maps, upsample_maps

ROWS = Path(__file__).with_suffix(".csv")
PAGE = Path(__file__).parents[1] / "explanation" / "appendix" / "several-layers-study.md"
NETWORKS = ("efficientnet-lite0", "efficientnet-lite1", "efficientnet-lite2")
REFERENCE, CANDIDATE = "grad-cam", "gated-grad-cam"
N_OCCLUSIONS = 32
CORRECTED = f"{CANDIDATE}, n_occlusions={N_OCCLUSIONS}"
# Metric to whether larger is better.
PRIMARY = {
    "grid": True,
    "road": True,
    "insertion": True,
    "insertion_black": True,
    "deletion": False,
    "deletion_blurred": False,
}
TITLES = {
    "grid": "right cell ↑",
    "road": "ROAD ↑",
    "insertion": "insertion ↑",
    "insertion_black": "insertion from black ↑",
    "deletion": "deletion ↓",
    "deletion_blurred": "deletion to blurred ↓",
}
STEPS, MOSAICS, CONFIDENT, BOX = 12, 12, 0.7, 33
BATCH = 16
HALVES = {"held-out": 1, "search": 0}  # to the first place
FIRST = "held-out, first"  # with ROAD at five shares
Passes: TypeAlias = Callable[[Tensor], Tensor]


def maps_of(network: zoo.Network, inputs: Tensor, target: Tensor) -> dict[str, Tensor]:
    """The candidates and their controls, (N, 1, H, W) in [0, 1], by name."""
    size = (inputs.shape[2], inputs.shape[3])
    coarse = LayerGradCam(network.model, network.layer).attribute(inputs, target).detach()
    grad_cam = normalize_maps(upsample_maps(normalize_maps(coarse.relu()), size))
    gated = GatedGradCam(network.model, network.layers, pixel_space=network.pixel_space)
    maps = {
        REFERENCE: grad_cam,
        "grad-cam, smoothed": F.avg_pool2d(
            F.pad(grad_cam, [BOX // 2] * 4, mode="replicate"), BOX, stride=1
        ),
        CANDIDATE: gated.attribute(inputs, target),
        CORRECTED: gated.attribute(inputs, target, n_occlusions=N_OCCLUSIONS),
    }
    if size[0] <= network.transform(zoo.example_image()).shape[1]:
        maps |= by_relevance(network, inputs, target)
    return {name: normalize_maps(value.float()) for name, value in maps.items()}


def by_relevance(network: zoo.Network, inputs: Tensor, target: Tensor) -> dict[str, Tensor]:
    """The candidate with evidence of units with one mode alone, or with at least two."""
    layer_pass = LayerCall(
        network.model, network.layers, (inputs,), None, None, False, (None,) * len(network.layers)
    ).run()
    gradients = layer_pass.gradients(resolve_target(layer_pass.outputs, target))
    *finer, deepest = layer_pass.feature_maps
    relevance = [unit_relevance(feature_map, activation_range="minmax") for feature_map in finer]

    def map_of(kept: list[Tensor]) -> Tensor:
        weighted = [
            feature_map * units[..., None, None]
            for feature_map, units in zip(finer, kept, strict=True)
        ]
        return several.gated_map([*weighted, deepest], gradients, tuple(inputs.shape[2:]))

    return {
        "units with two modes": map_of([modes >= 2 for modes in relevance]),
        "units with one mode": map_of([modes == 1 for modes in relevance]),
    }


def image_rows(
    network: zoo.Network, model: Passes, name: str, inputs: Tensor, label: int
) -> list[dict[str, Any]]:
    """The metrics of all maps of one image; ``model`` is the network, in batches."""
    target = torch.tensor([label])
    found = maps_of(network, inputs, target)
    maps = torch.cat(list(found.values()), 1)
    options: dict[str, Any] = {"steps": STEPS, "internal_batch_size": BATCH}
    dark, blur = black(inputs, network.pixel_space), blurred(inputs)
    torch.manual_seed(0)
    values = {
        "insertion": insertion_auc(model, inputs, maps, target, baselines=blur, **options),
        "insertion_black": insertion_auc(model, inputs, maps, target, baselines=dark, **options),
        "deletion": deletion_auc(model, inputs, maps, target, baselines=dark, **options),
        "deletion_blurred": deletion_auc(model, inputs, maps, target, baselines=blur, **options),
        "road": road(model, inputs, maps, target, internal_batch_size=BATCH).value,
        "avx_ranks": avx_of_ranks(network, inputs, target, maps),
    }
    return [
        {"item": name, "method": method, **{k: float(v[0, i]) for k, v in values.items()}}
        for i, method in enumerate(found)
    ]


def avx_of_ranks(network: zoo.Network, inputs: Tensor, target: Tensor, maps: Tensor) -> Tensor:
    """AVX (1, M) of maps whose values are replaced by their ranks."""
    ranks = maps.flatten(2).argsort(-1).argsort(-1).view_as(maps).float()
    ranks = ranks / (ranks[0, 0].numel() - 1)
    with torch.no_grad():
        outputs = network.model(inputs)
    scorer = MapScorer(
        forward_func=network.model,
        inputs=(inputs,),
        outputs=outputs,
        target=resolve_target(outputs, target),
        baselines=(black(inputs, network.pixel_space),),
        pixel_space=network.pixel_space,
        confidence=softmax_over_classes,
        protocol=AVXProtocol(),
        internal_batch_size=8,
    )
    examples = torch.zeros(maps.shape[1], dtype=torch.int64)
    return scorer(examples, ranks[0][:, None], None).avx[None]


def mosaics_of(
    images: Tensor, labels: Tensor, confident: Tensor, count: int, seed: int
) -> Iterator[tuple[Tensor, int, Tensor]]:
    """Mosaics (C, 2 H, 2 W) of confidently classified images, the class of each cell, its mask."""
    random = np.random.default_rng(seed)
    tiles = [tuple(random.choice(confident.numpy(), 4, replace=False)) for _ in range(count)]
    classes = [tuple(int(labels[tile]) for tile in of_mosaic) for of_mosaic in tiles]
    dataset: Any = list(zip(images, labels.tolist(), strict=True))
    mosaics = MosaicDataset(dataset, 2, tuple(tiles), tuple(classes))
    return (mosaics[index] for index in range(len(mosaics)))


def mosaic_rows(
    network: zoo.Network, images: Tensor, labels: Tensor, confident: Tensor
) -> list[dict[str, Any]]:
    """The grid pointing game of all maps on mosaics of confidently classified images."""
    rows = []
    mosaics = mosaics_of(images, labels, confident, MOSAICS, seed=0)
    for index, (mosaic, label, region) in enumerate(mosaics):
        number, cell = divmod(index, 4)
        found = maps_of(network, mosaic[None], torch.tensor([label]))
        shares = top_pixels(torch.cat(list(found.values()), 1), region[None])
        rows += [
            {"item": f"mosaic {number}, cell {cell}", "method": method, "grid": float(value)}
            for method, value in zip(found, shares[0], strict=True)
        ]
    return rows


def measure(data: Path, name: str, half: str) -> pd.DataFrame:
    """All rows of one network and one half of the images."""
    network = zoo.load(name)
    network.model.to(memory_format=torch.channels_last)  # faster, and differs by rounding only
    with (data / "labels.csv").open() as file:
        entries = list(csv.DictReader(file))[HALVES[half] :: 2]
    images = torch.stack(
        [network.transform(Image.open(data / entry["file"]).convert("RGB")) for entry in entries]
    )
    labels = torch.tensor([int(entry["imagenet_class"]) for entry in entries])
    with torch.no_grad():
        confidences = torch.cat(
            [network.model(chunk).softmax(1) for chunk in torch.split(images, 10)]
        )
    of_label = confidences.gather(1, labels[:, None])[:, 0]
    rows = mosaic_rows(network, images, labels, (of_label > CONFIDENT).nonzero()[:, 0])
    passes = fixed_size_batches(network.model, BATCH)
    for entry, image, label in zip(entries, images, labels, strict=True):
        rows += image_rows(network, passes, entry["file"], image[None], int(label))
        print(name, entry["file"], flush=True)
    return pd.DataFrame(rows).assign(network=name, half=half)


def comparison(rows: pd.DataFrame) -> pd.DataFrame:
    """Each map and metric of one network: mean, share that beats Grad-CAM, corrected p."""
    found = []
    for method in rows["method"].unique():
        own, tests = {}, {}
        for metric, larger in {**PRIMARY, "avx_ranks": True}.items():
            values = rows.dropna(subset=[metric]).pivot(
                index="item", columns="method", values=metric
            )
            if method not in values:
                continue
            gains = (values[method] - values[REFERENCE]) * (1 if larger else -1)
            own[metric] = {"mean": values[method].mean(), "better": (gains > 0).mean()}
            if metric == "grid":
                gains = gains.groupby(gains.index.str.partition(",").get_level_values(0)).mean()
            if metric in PRIMARY and (gains != 0).any():
                tests[metric] = float(wilcoxon(gains).pvalue)
        corrected = dict(zip(tests, holm(np.array(list(tests.values()))), strict=True))
        found += [
            {"method": method, "metric": metric, **values, "p": corrected.get(metric)}
            for metric, values in own.items()
        ]
    return pd.DataFrame(found).set_index(["method", "metric"])


def table(compared: pd.DataFrame) -> str:
    """Means of every method, and the p of the tests against Grad-CAM, of one network."""
    cells = []
    for method in dict.fromkeys(compared.index.get_level_values("method")):
        texts = []
        for metric in PRIMARY:
            if (method, metric) not in compared.index:
                texts.append("")
                continue
            mean, p_value = compared.loc[(method, metric), ["mean", "p"]]
            tested = "" if pd.isna(p_value) else f" ({p_value:.2g})"
            texts.append(f"{mean:.3f}{tested}")
        cells.append([method, *texts])
    return markdown_table(["map", *(TITLES[metric] for metric in PRIMARY)], cells)


def read_rows() -> pd.DataFrame:
    """The committed rows, some of which have the earlier name of ``n_occlusions``."""
    rows = pd.read_csv(ROWS)
    rows["method"] = rows["method"].str.replace("evidence=", "n_occlusions=")
    return rows


def of_network(rows: pd.DataFrame, network: str, half: str = "held-out") -> pd.DataFrame:
    """The rows of one network and half of the images."""
    return rows[(rows["network"] == network) & (rows["half"] == half)]


def page(rows: pd.DataFrame) -> str:
    """The appendix page, from the rows of the held-out half."""
    parts = [
        "# Several layers: tables",
        "[Conclusions](../several-layers.md). Means on held-out images; in brackets p of "
        "Wilcoxon's test against Grad-CAM, with Holm's correction over the six metrics. The rules "
        "are in `docs/measured/several_layers.py`, and all rows in "
        "[several_layers.csv](../../measured/several_layers.csv).",
    ]
    for name in NETWORKS:
        own = of_network(rows, name)
        n_images = own.loc[own["road"].notna(), "item"].nunique()
        n_maps = own.loc[own["grid"].notna(), "item"].nunique()
        parts += [
            f"## {name.replace('efficientnet-lite', 'EfficientNet-Lite')}",
            f"{n_images} images, {n_maps} maps of mosaics.",
            table(comparison(own)),
        ]
    return "\n\n".join(parts) + "\n"


def main() -> None:
    """Measure, or only write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--network", choices=NETWORKS, default=NETWORKS[0])
    parser.add_argument("--half", choices=HALVES, default="held-out")
    parser.add_argument("--tables", action="store_true", help="only, from the committed rows")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore", category=UserWarning)
    if not arguments.tables:
        new = measure(arguments.data, arguments.network, arguments.half)
        earlier = read_rows() if ROWS.exists() else new[:0]
        same = (earlier["network"] == arguments.network) & (earlier["half"] == arguments.half)
        atomic_write(
            ROWS,
            pd.concat([earlier[~same], new]).to_csv(index=False, float_format="%.5g"),
        )
    atomic_write(PAGE, page(read_rows()))


if __name__ == "__main__":
    main()
