"""How `GatedGradCam` uses occluded images: the search for its constants.

    python docs/measured/occlusions.py --data FOLDER
    python docs/measured/occlusions.py --tables

FOLDER holds labels.csv (file, imagenet_class) and the images. Rows go to occlusions.csv beside this
file, and the tables are printed.

Only images of the search half are used, at even places of labels.csv, with EfficientNet-Lite0 and
labels as targets. The first 16 of them compare all variants, without ROAD. The next 20 compare two
variants that had done well, and 6 mosaics of images with a confidence above 0.7 three. Insertion
and deletion have 10 steps; ROAD removes 10, 30, 50, 70 and 90%. Tests are Wilcoxon's, two-sided,
against `GatedGradCam` without evidence, uncorrected.
"""

from __future__ import annotations

import argparse
import csv
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import pandas as pd
import torch
from captum.attr import LayerGradCam
from markdown_table import markdown_table
from PIL import Image
from scipy.stats import wilcoxon
from several_layers import mosaics_of
from torch import Tensor

from captum_advise import GatedGradCam, zoo
from captum_advise._core import occlusion_evidence as occlusion
from captum_advise._utils.io import atomic_write
from captum_advise.metrics import road, top_pixels
from captum_advise.metrics.insertion_deletion import blurred, curves_between
from captum_advise.pixels import black, masked_images, normalize_maps, upsample_maps

ROWS = Path(__file__).with_suffix(".csv")
STEPS, SHARES, BATCH = 10, (0.1, 0.3, 0.5, 0.7, 0.9), 32
SEARCHED, CHECKED, MOSAICS, CONFIDENT = slice(0, 16), slice(16, 36), 6, 0.7
CURVES = {
    "insertion": ("blurred", "whole"),
    "insertion_black": ("black", "whole"),
    "deletion": ("whole", "black"),
    "deletion_blurred": ("whole", "blurred"),
}
# Metric to its title, and to whether larger is better.
METRICS = {
    "insertion": ("insertion ↑", True),
    "insertion_black": ("insertion from black ↑", True),
    "deletion": ("deletion ↓", False),
    "deletion_blurred": ("deletion to blurred ↓", False),
    "road": ("ROAD ↑", True),
    "grid": ("grid pointing, top quarter ↑", True),
}
REFERENCE = "no evidence"
COMBINATIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "prior * (0.2 + 0.8 E)": lambda prior, evidence: prior * (0.2 + 0.8 * evidence),
    "prior + E": lambda prior, evidence: prior + evidence,
    "sqrt(prior * E)": lambda prior, evidence: (prior * evidence).sqrt(),
    "E": lambda prior, evidence: evidence,
}


@dataclass(frozen=True)
class Variant:
    """A way to correct a map with ``n`` occluded images."""

    combination: str
    n: int
    of_logs: bool = True
    noise: float = 1.0
    length: float = 0.1

    def __str__(self) -> str:
        parts = [
            f"{self.combination}, {self.n}",
            "" if self.of_logs else "losses of confidence",
            "" if self.noise == 1 else f"noise {self.noise:g}",
            "" if self.length == 0.1 else f"length {self.length:g}",
        ]
        return ", ".join(filter(None, parts))

    def __call__(self, run: Callable[[Tensor], Tensor], prior: Tensor, case: Case) -> Tensor:
        """The corrected map (1, 1, H, W) of a prior in [0, 1]."""
        constants = {"_NOISE": self.noise, "_LENGTH_SCALE": self.length}
        with mock.patch.multiple(occlusion, **constants), torch.no_grad():
            regions = occlusion.occlusions(self.n, tuple(prior.shape[2:]))
            fill = torch.where(regions.is_blurred[:, None, None, None], case.blur, case.dark)
            occluded = masked_images(case.image, 1 - regions.hidden, fill).split(BATCH)
            confidences = torch.cat([run(part).softmax(1) for part in occluded])[:, case.label]
            # The regression takes logarithms.
            values = confidences if self.of_logs else confidences.exp()
            evidence = occlusion.occlusion_evidence(prior, values[None], regions)
        return COMBINATIONS[self.combination](prior, evidence)


@dataclass(frozen=True)
class Case:
    """An image (1, C, H, W), a class, and the two images that hide regions."""

    image: Tensor
    label: int
    dark: Tensor
    blur: Tensor

    @classmethod
    def of(cls, network: zoo.Network, image: Tensor, label: int) -> Case:
        """The case of an image (C, H, W)."""
        dark = black(image[None], network.pixel_space).expand_as(image[None])
        return cls(image[None], label, dark, blurred(image[None]))


TIMES, PLUS, ROOT, ALONE = COMBINATIONS
VARIANTS = (
    Variant(TIMES, 32),
    Variant(TIMES, 64),
    Variant(PLUS, 32),
    Variant(PLUS, 64),
    Variant(PLUS, 64, length=0.15),
    Variant(ROOT, 32),
    Variant(ROOT, 64),
    Variant(ROOT, 64, noise=0.3),
    Variant(ROOT, 64, of_logs=False),
    Variant(ALONE, 64),
)
CHECKED_VARIANTS = (Variant(TIMES, 32), Variant(PLUS, 32))


def maps_of(
    network: zoo.Network,
    run: Callable[[Tensor], Tensor],
    case: Case,
    variants: tuple[Variant, ...],
) -> dict[str, Tensor]:
    """Maps (1, 1, H, W) by name: Grad-CAM, `GatedGradCam` without evidence, and variants."""
    size = (case.image.shape[2], case.image.shape[3])
    coarse = LayerGradCam(network.model, network.layer).attribute(case.image, case.label).detach()
    prior = normalize_maps(
        GatedGradCam(network.model, network.layers).attribute(case.image, case.label)
    )
    return {
        "grad-cam": upsample_maps(normalize_maps(coarse.relu()), size),
        REFERENCE: prior,
        **{str(variant): variant(run, prior, case) for variant in variants},
    }


def image_rows(
    network: zoo.Network,
    run: Callable[[Tensor], Tensor],
    case: Case,
    variants: tuple[Variant, ...],
    with_road: bool,
) -> list[dict[str, Any]]:
    """The metrics of all maps of one image."""
    found = maps_of(network, run, case, variants)
    maps, target = torch.cat(list(found.values()), 1), torch.tensor([case.label])
    curves = curves_between(
        run,
        {"whole": case.image, "blurred": case.blur, "black": case.dark},
        list(CURVES.values()),
        maps,
        target,
        steps=STEPS,
        confidence=lambda outputs: outputs.softmax(1),
        internal_batch_size=BATCH,
    )
    values = {
        metric: torch.trapezoid(curve, dx=1 / STEPS)[0]
        for metric, curve in zip(CURVES, curves, strict=True)
    }
    if with_road:
        torch.manual_seed(0)
        of_road = road(run, case.image, maps, target, shares=SHARES, internal_batch_size=BATCH)
        values["road"] = of_road.value.view(-1)
    return [
        {"map": name, **{metric: float(value[i]) for metric, value in values.items()}}
        for i, name in enumerate(found)
    ]


def mosaic_rows(
    network: zoo.Network, images: Tensor, labels: Tensor, confident: Tensor
) -> list[dict[str, Any]]:
    """The grid pointing game on mosaics of confidently classified images."""
    rows = []
    mosaics = mosaics_of(images, labels, confident, MOSAICS, seed=1)
    for index, (mosaic, label, region) in enumerate(mosaics):
        number, cell = divmod(index, 4)
        found = maps_of(network, network.model, Case.of(network, mosaic, label), CHECKED_VARIANTS)
        shares = top_pixels(torch.cat(list(found.values()), 1), region[None])
        rows += [
            {"part": "mosaics", "item": f"{number}, cell {cell}", "map": name, "grid": value}
            for name, value in zip(found, shares[0].tolist(), strict=True)
        ]
        print(f"mosaic {number}, cell {cell}", flush=True)
    return rows


def measure(data: Path) -> pd.DataFrame:
    """All rows."""
    network = zoo.load("efficientnet-lite0")
    compiled = torch.compile(network.model, dynamic=False, options={"freezing": True})

    def run(inputs: Tensor) -> Tensor:
        # Compiled code is for one batch size.
        missing = inputs[:1].expand(BATCH - len(inputs), -1, -1, -1)
        with torch.no_grad():
            return compiled(torch.cat([inputs, missing]).contiguous())[: len(inputs)]

    with (data / "labels.csv").open() as file:
        entries = list(csv.DictReader(file))[0::2]
    images = torch.stack(
        [network.transform(Image.open(data / entry["file"]).convert("RGB")) for entry in entries]
    )
    labels = torch.tensor([int(entry["imagenet_class"]) for entry in entries])
    with torch.no_grad():
        confidences = torch.cat([network.model(chunk).softmax(1) for chunk in images.split(10)])
    confident = confidences.gather(1, labels[:, None])[:, 0] > CONFIDENT
    rows = mosaic_rows(network, images, labels, confident.nonzero()[:, 0])
    for part, places, variants in (
        ("searched", SEARCHED, VARIANTS),
        ("checked", CHECKED, CHECKED_VARIANTS),
    ):
        for index in range(len(entries))[places]:
            case, item = Case.of(network, images[index], int(labels[index])), entries[index]["file"]
            of_image = image_rows(network, run, case, variants, part == "checked")
            rows += [{"part": part, "item": item, **row} for row in of_image]
            print(item, flush=True)
    return pd.DataFrame(rows)


def table(rows: pd.DataFrame) -> str:
    """Means of every map; share of items on which it is better, and p, against the reference."""
    metrics = [metric for metric in METRICS if metric in rows and rows[metric].notna().any()]
    cells = []
    for name in rows["map"].unique():
        texts = []
        for metric in metrics:
            values = rows.pivot(index="item", columns="map", values=metric)
            text = f"{values[name].mean():.3f}"
            if name != REFERENCE:
                gains = (values[name] - values[REFERENCE]) * (1 if METRICS[metric][1] else -1)
                text += f", {(gains > 0).mean():.0%}"
                if metric == "grid":
                    gains = gains.groupby(gains.index.str.partition(",").get_level_values(0)).mean()
                text += f", p {wilcoxon(gains).pvalue:.2g}"
            texts.append(text)
        cells.append([name, *texts])
    return markdown_table(["map", *(METRICS[metric][0] for metric in metrics)], cells)


def tables(rows: pd.DataFrame) -> str:
    """The tables, from the rows."""
    texts = [
        "Means; the share of items on which the map is better than `GatedGradCam` without "
        "occlusion; p of Wilcoxon's test, uncorrected. `prior` is that map, and E the loss of "
        "confidence per hidden position, both stretched to [0, 1]; the number is that of occluded "
        "images.",
    ]
    for part, title in (
        ("searched", "Images on which variants were compared"),
        ("checked", "Further images of the search half"),
        ("mosaics", "Mosaics of the search half"),
    ):
        own = rows[rows["part"] == part]
        both = own["map"].isin([REFERENCE, *map(str, CHECKED_VARIANTS)])
        texts += [f"## {title}", f"n = {own['item'].nunique()}.", table(own)]
        if part == "checked":
            first = rows[(rows["part"] == "searched") & rows["map"].isin(own.loc[both, "map"])]
            pooled = pd.concat([first, own[both]]).drop(columns=["road", "grid"])
            texts += ["## All these images", f"n = {pooled['item'].nunique()}.", table(pooled)]
    return "\n\n".join(texts)


def main() -> None:
    """Measure, or only write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--tables", action="store_true", help="only, from the committed rows")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore", category=UserWarning)
    if not arguments.tables:
        atomic_write(ROWS, measure(arguments.data).to_csv(index=False, float_format="%.5g"))
    print(tables(pd.read_csv(ROWS)))


if __name__ == "__main__":
    main()
