"""``captum-advise sanity``."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from captum_advise import zoo
from captum_advise._utils.io import atomic_write
from captum_advise.cli import options
from captum_advise.cli.console import make_folder, progress, show
from captum_advise.cli.networks import load_network

if TYPE_CHECKING:
    from captum_advise.evaluation.sanity import (
        LabelRandomization,
        ParameterRandomization,
    )

EXAMPLES = """\b
Examples:
  captum-advise sanity
  captum-advise sanity dog.jpg --model resnet50 --seeds 3 --output checks
"""


# Half way between the similarity of unrelated maps and that of the edge detector.
_DEPENDS_BELOW = 0.5


def sanity(
    image: Annotated[
        Path | None,
        typer.Argument(
            metavar="IMAGE", help="Image file. Without one, a photo of a cat from scikit-image."
        ),
    ] = None,
    model: options.Model = "efficientnet-lite0",
    layer: options.Layer = None,
    weights: options.Weights = "default",
    target: options.Target = None,
    seeds: Annotated[int, typer.Option(min=1, help="Random networks per step.")] = 1,
    labels: Annotated[
        bool, typer.Option(help="Compare networks trained on true and on shuffled digits as well.")
    ] = True,
    output: options.Output = Path("sanity-output"),
) -> int:
    """Do maps depend on what the network has learnt? gated-grad-cam, layer-advise, grad-cam, edges.

    Randomises the network's parameters from the top to the bottom, block by block, and compares
    the maps with those of the network as it was (Adebayo et al. 2018). Writes sanity_curves.png,
    sanity_maps.png and sanity.csv. gated-grad-cam takes part where the network has layers for it.
    """
    import torch

    from captum_advise.evaluation import Context, randomize_labels, randomize_parameters
    from captum_advise.evaluation import sanity_figures as figures
    from captum_advise.visualization.style import to_png

    network = load_network(model, layer=layer, weights=weights)
    network.check_layout()
    opened = zoo.example_image() if image is None else zoo.open_image(image)
    inputs = network.transform(opened).unsqueeze(0)
    with torch.no_grad():
        predicted = int(network.model(inputs).argmax())
    explained = predicted if target is None else network.class_index(target)
    methods = _methods(network)
    make_folder(output)
    results = [
        randomize_parameters(
            methods,
            network.model,
            network.layer_name,
            inputs,
            torch.tensor([explained]),
            mode=mode,
            seed=seed,
            context=Context(network.pixel_space),
            progress=lambda steps: progress(steps, "blocks"),
        )
        for mode in ("cascading", "independent")
        for seed in range(seeds)
    ]
    pixels = network.pixel_space.to_pixels(inputs)[0].clamp(0, 1)
    curves, maps = output / "sanity_curves.png", output / "sanity_maps.png"
    atomic_write(curves, to_png(figures.curves(results), dpi=110))
    atomic_write(maps, to_png(figures.maps(pixels, results[0]), dpi=110))
    atomic_write(output / "sanity.csv", _csv(results))
    shuffled = None
    if labels:
        shuffled = randomize_labels(methods)
    show(f"{network.name}, {network.layer_name}: {network.class_names[explained]}")
    _show(list(methods), results, shuffled)
    for path in (curves, maps, output / "sanity.csv"):
        show(f"  {path}")
    return 0


def _methods(network: zoo.Network) -> dict[str, Any]:
    """The methods to check, by name."""
    from captum_advise.evaluation import edge_detector, get_methods

    names = ["gated-grad-cam", "layer-advise", "grad-cam"]
    return {**get_methods(names if network.layers else names[1:]), "edge-detector": edge_detector}


def _show(
    methods: Sequence[str],
    results: Sequence[ParameterRandomization],
    shuffled: LabelRandomization | None,
) -> None:
    table = Table("rank correlation with the original map", *methods)

    def row(label: str, values: Sequence[float]) -> None:
        table.add_row(label, *(f"{value:.2f}" for value in values))

    final: dict[str, float] = {}
    for kind in ("absolute", "signed"):
        name = f"spearman_{kind}"
        for mode in ("cascading", "independent"):
            runs = [result for result in results if result.mode == mode]
            steps = {
                method: [[step.to_dict()[name] for step in run.similarity[method]] for run in runs]
                for method in methods
            }
            ends = [_mean([run[-1] for run in steps[m]]) for m in methods]
            if mode == "cascading":
                row(
                    f"{kind}: the top block random",
                    [_mean([r[0] for r in steps[m]]) for m in methods],
                )
                row(f"{kind}: every block random", ends)
                if kind == "absolute":
                    final = dict(zip(methods, ends, strict=True))
            row(
                f"{kind}: mean over {mode} steps",
                [_mean([value for run in steps[m] for value in run]) for m in methods],
            )
    if shuffled is not None:
        for label, similarity in (
            ("digits: shuffled against true labels", shuffled.similarity),
            ("digits: true against true labels", shuffled.control),
        ):
            row(label, [similarity[m].to_dict()["spearman_absolute"] for m in methods])
    show(table)
    for method, value in final.items():
        depends = abs(value) < _DEPENDS_BELOW
        verdict = "depends on the parameters" if depends else "does NOT depend on the parameters"
        show(f"{method} {verdict}: {value:.2f} when all are random.")
    if shuffled is not None:
        show(
            f"Digits that the networks learnt by heart: {shuffled.accuracy:.1%} with true labels, "
            f"{shuffled.shuffled_accuracy:.1%} with shuffled ones."
        )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _csv(results: Sequence[ParameterRandomization]) -> bytes:
    seeds: dict[str, int] = {}
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(["mode", "seed", "step", "block", "method", "metric", "similarity"])
    for result in results:
        seed = seeds[result.mode] = seeds.get(result.mode, -1) + 1
        for method, similarity in result.similarity.items():
            for step, (block, values) in enumerate(
                zip(result.steps, similarity, strict=True), start=1
            ):
                for metric, value in values.to_dict().items():
                    writer.writerow([result.mode, seed, step, block, method, metric, value])
    return text.getvalue().encode()
