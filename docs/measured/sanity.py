"""The sanity checks of docs/explanation/sanity-checks.md.

    python docs/measured/sanity.py

explains scikit-image's cat with EfficientNet-Lite0 while its parameters are randomised. It writes
``sanity.csv`` and the figures of the page. This takes some three minutes of one thread.
"""

from __future__ import annotations

from pathlib import Path

import torch

from captum_advise import zoo
from captum_advise.evaluation import Context, get_methods, randomize_parameters
from captum_advise.evaluation.sanity_figures import curves, maps, table
from captum_advise.visualization.style import to_png

ROWS = Path(__file__).with_suffix(".csv")
IMAGES = Path(__file__).parents[1] / "images"
N_SEEDS = 3
MODES = ("cascading", "independent")
METHODS = ("layer-advise", "grad-cam", "gated-grad-cam", "edge-detector")


def main() -> None:
    """Measure, write the rows and draw the figures."""
    network = zoo.load("efficientnet-lite0")
    inputs = network.transform(zoo.example_image())[None].contiguous()
    with torch.no_grad():
        target = network.model(inputs).argmax(1)
    runs = {
        (mode, seed): randomize_parameters(
            get_methods(METHODS),
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
    }
    rows = table(runs).round(6)
    # Whether the map has no evidence.
    rows["is_zero"] = [
        bool((runs[row.mode, row.seed].maps[row.method][row.step - 1] == 0).all())
        for row in rows.itertuples()
    ]
    rows.to_csv(ROWS, index=False)
    pixels = network.pixel_space.to_pixels(inputs)[0].clamp(0, 1)
    (IMAGES / "sanity_curves.png").write_bytes(to_png(curves(rows), dpi=110))
    (IMAGES / "sanity_maps.png").write_bytes(to_png(maps(pixels, runs["cascading", 0]), dpi=110))


if __name__ == "__main__":
    main()
