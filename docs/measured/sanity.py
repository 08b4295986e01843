"""The sanity checks of docs/explanation/sanity-checks.md.

    python docs/measured/sanity.py

explains scikit-image's cat with EfficientNet-Lite0 while its parameters are randomised, and digits
with networks of true and of shuffled labels. It writes ``sanity.csv`` and the figures of the page.
This takes some five minutes of one thread.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from captum_advise import zoo
from captum_advise.evaluation import (
    Context,
    MapSimilarity,
    ParameterRandomization,
    edge_detector,
    get_methods,
    randomize_labels,
    randomize_parameters,
)
from captum_advise.evaluation.sanity_figures import curves, maps
from captum_advise.visualization.style import to_png

ROWS = Path(__file__).with_suffix(".csv")
IMAGES = Path(__file__).parents[1] / "images"
N_SEEDS = 3
MODES = ("cascading", "independent")
METHODS = {
    **get_methods(["layer-advise", "grad-cam", "gated-grad-cam"]),
    "edge-detector": edge_detector,
}
COLUMNS = ("check", "seed", "step", "block", "method", "absolute", "signed", "is_zero")


def correlations(similarity: MapSimilarity) -> tuple[float, float]:
    """Means of the rank correlations of absolute and of signed maps."""
    values = similarity.to_dict()
    return round(values["spearman_absolute"], 6), round(values["spearman_signed"], 6)


def of_parameters(runs: list[ParameterRandomization]) -> Iterator[tuple[object, ...]]:
    """A row for each random network and method. ``is_zero`` says that the map has no evidence."""
    for number, run in enumerate(runs):
        for method, similarity in run.similarity.items():
            steps = zip(run.steps, similarity, run.maps[method], strict=True)
            for step, (block, values, attributions) in enumerate(steps, start=1):
                seed, is_zero = number % N_SEEDS, bool((attributions == 0).all())
                yield run.mode, seed, step, block, method, *correlations(values), is_zero


def of_labels() -> Iterator[tuple[object, ...]]:
    """A row for each method: networks of shuffled labels, and others of true labels."""
    result = randomize_labels(METHODS)
    for check, similarity in (("shuffled", result.similarity), ("true", result.control)):
        for method, values in similarity.items():
            yield f"digits, {check} labels", 0, 0, "", method, *correlations(values), False


def randomized(
    network: zoo.Network, inputs: Tensor, target: Tensor
) -> list[ParameterRandomization]:
    """The maps of random networks, of each mode and seed."""
    return [
        randomize_parameters(
            METHODS,
            network.model,
            network.layer_name,
            inputs,
            target,
            mode=mode,
            seed=seed,
            context=Context(network.pixel_space),
        )
        for mode in MODES
        for seed in range(N_SEEDS)
    ]


def main() -> None:
    """Measure, write the rows and draw the figures."""
    network = zoo.load("efficientnet-lite0")
    inputs = network.transform(zoo.example_image())[None].contiguous()
    with torch.no_grad():
        target = network.model(inputs).argmax(1)
    runs = randomized(network, inputs, target)
    rows = pd.DataFrame([*of_parameters(runs), *of_labels()], columns=COLUMNS)
    rows.to_csv(ROWS, index=False)
    pixels = network.pixel_space.to_pixels(inputs)[0].clamp(0, 1)
    (IMAGES / "sanity_curves.png").write_bytes(to_png(curves(runs), dpi=110))
    (IMAGES / "sanity_maps.png").write_bytes(to_png(maps(pixels, runs[0]), dpi=110))


if __name__ == "__main__":
    main()
