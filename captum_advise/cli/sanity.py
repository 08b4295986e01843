"""``captum-advise sanity``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from captum_advise import zoo
from captum_advise._utils.io import atomic_write
from captum_advise._utils.optional_dependencies import import_optional
from captum_advise.cli import options
from captum_advise.cli.console import make_folder, progress, show
from captum_advise.cli.networks import load_network

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
    output: options.Output = Path("sanity-output"),
) -> int:
    """Test whether maps depend on what the network has learnt.

    Randomises the network block by block, from the top, and compares its maps with those before
    (Adebayo et al. 2018). Maps are of layer-advise, grad-cam, gated-grad-cam if the network has
    layers for it, and edge-detector, which fails. Writes curves and maps (PNG) and sanity.csv.
    """
    import torch

    from captum_advise import evaluation
    from captum_advise.evaluation import sanity_figures as figures
    from captum_advise.evaluation.run.keys import layer_name
    from captum_advise.visualization.style import to_png

    import_optional("pandas", "evaluation")  # before the networks run
    network = load_network(model, layer=layer, weights=weights)
    opened = zoo.example_image() if image is None else zoo.open_image(image)
    inputs = network.transform(opened).unsqueeze(0).contiguous()
    with torch.no_grad():
        predicted = int(network.model(inputs).argmax())
    explained = predicted if target is None else network.class_index(target)
    names = ["gated-grad-cam"] * bool(network.layers)
    methods = evaluation.get_methods([*names, "layer-advise", "grad-cam", "edge-detector"])
    make_folder(output)
    runs = {
        (mode, seed): evaluation.randomize_parameters(
            methods,
            network.model,
            layer_name(network.model, network.layer),
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
    rows = figures.table(runs)
    pixels = network.pixel_space.to_pixels(inputs)[0].clamp(0, 1)
    files = {
        output / "sanity_curves.png": to_png(figures.curves(rows), dpi=110),
        output / "sanity_maps.png": to_png(figures.maps(pixels, runs["cascading", 0]), dpi=110),
        output / "sanity.csv": rows.to_csv(index=False, lineterminator="\r\n"),
    }
    for path, content in files.items():
        atomic_write(path, content)
    show(f"{network.name}, layer {network.layer_name}: {network.class_names[explained]}")
    # After the last step, every block is random.
    is_end = (rows["mode"] == "cascading") & (rows["step"] == rows["step"].max())
    for method, value in rows[is_end].groupby("method", sort=False)["absolute"].mean().items():
        depends = abs(value) < _DEPENDS_BELOW
        verdict = "depends on the parameters" if depends else "does NOT depend on the parameters"
        show(f"{method} {verdict}: with random ones, rank correlation {round(value, 2) or 0:.2f}.")
    for path in files:
        show(f"  {path}")
    return 0
