"""``captum-advise sanity``."""

from __future__ import annotations

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
    import pandas as pd

    from captum_advise.evaluation.sanity import LabelRandomization

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
    import pandas as pd
    import torch

    from captum_advise import evaluation
    from captum_advise.evaluation import sanity_figures as figures
    from captum_advise.visualization.style import to_png

    network = load_network(model, layer=layer, weights=weights)
    opened = zoo.example_image() if image is None else zoo.open_image(image)
    inputs = network.transform(opened).unsqueeze(0).contiguous()
    with torch.no_grad():
        predicted = int(network.model(inputs).argmax())
    explained = predicted if target is None else network.class_index(target)
    names = ["gated-grad-cam"] * bool(network.layers) + ["layer-advise", "grad-cam"]
    methods: dict[str, Any] = {
        **evaluation.get_methods(names),
        "edge-detector": evaluation.edge_detector,
    }
    make_folder(output)
    runs = {
        (mode, seed): evaluation.randomize_parameters(
            methods,
            network.model,
            network.layer_name,
            inputs,
            torch.tensor([explained]),
            mode=mode,
            seed=seed,
            context=evaluation.Context(network.pixel_space),
            reshape_transform=network.reshape_transform,
            progress=lambda steps: progress(steps, "blocks"),
        )
        for mode in ("cascading", "independent")
        for seed in range(seeds)
    }
    rows = pd.DataFrame(
        [
            (mode, seed, step, block, method, metric, value)
            for (mode, seed), run in runs.items()
            for method, similarity in run.similarity.items()
            for step, (block, values) in enumerate(zip(run.steps, similarity, strict=True), start=1)
            for metric, value in values.to_dict().items()
        ],
        columns=["mode", "seed", "step", "block", "method", "metric", "similarity"],
    )
    results = list(runs.values())
    pixels = network.pixel_space.to_pixels(inputs)[0].clamp(0, 1)
    files = {
        output / "sanity_curves.png": to_png(figures.curves(results), dpi=110),
        output / "sanity_maps.png": to_png(figures.maps(pixels, results[0]), dpi=110),
        output / "sanity.csv": rows.to_csv(index=False, lineterminator="\r\n"),
    }
    for path, content in files.items():
        atomic_write(path, content)
    shuffled = evaluation.randomize_labels(methods) if labels else None
    show(f"{network.name}, {network.layer_name}: {network.class_names[explained]}")
    _show(list(methods), rows, shuffled)
    for path in files:
        show(f"  {path}")
    return 0


def _show(methods: list[str], rows: pd.DataFrame, shuffled: LabelRandomization | None) -> None:
    table = Table("rank correlation with the original map", *methods)

    def means(which: str, kind: str = "absolute") -> pd.Series[float]:
        chosen = rows.query(f"{which} and metric == 'spearman_{kind}'")
        return chosen.groupby("method")["similarity"].mean()[methods]

    everything = "mode == 'cascading' and step == step.max()"
    for kind in ("absolute", "signed"):
        for label, which in (
            ("the top block random", "mode == 'cascading' and step == 1"),
            ("every block random", everything),
            ("mean over cascading steps", "mode == 'cascading'"),
            ("mean over independent steps", "mode == 'independent'"),
        ):
            table.add_row(f"{kind}: {label}", *(f"{value:.2f}" for value in means(which, kind)))
    if shuffled is not None:
        for label, similarity in (
            ("digits: shuffled against true labels", shuffled.similarity),
            ("digits: true against true labels", shuffled.control),
        ):
            values = (similarity[method].to_dict()["spearman_absolute"] for method in methods)
            table.add_row(label, *(f"{value:.2f}" for value in values))
    show(table)
    for method, value in means(everything).items():
        depends = abs(value) < _DEPENDS_BELOW
        verdict = "depends on the parameters" if depends else "does NOT depend on the parameters"
        show(f"{method} {verdict}: {value:.2f} when all are random.")
    if shuffled is not None:
        show(
            f"Digits that the networks learnt by heart: {shuffled.accuracy:.1%} with true labels, "
            f"{shuffled.shuffled_accuracy:.1%} with shuffled ones."
        )
