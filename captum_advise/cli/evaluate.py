"""``captum-advise evaluate``."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from captum_advise import evaluation
from captum_advise.cli import options
from captum_advise.cli.console import show, show_message
from captum_advise.cli.networks import load_network

EXAMPLES = """\b
Examples:
  captum-advise evaluate --data photos --output report
  captum-advise evaluate --data imagenet/val --model resnet50 --output report \\
    --methods layer-advise,grad-cam,layer-cam,random
  captum-advise evaluate --data photos --output report --metrics road,insertion_black,avx
  captum-advise evaluate --data scenes --model scenes-vit --output report
  torchrun --nproc-per-node 4 -m captum_advise evaluate --data photos --output report
"""

_DEFAULT = ("gated-grad-cam", "layer-advise", "grad-cam", "random", "gaussian")


def evaluate(
    data: Annotated[
        Path,
        typer.Option(
            help="Folder of images, or of one folder per class (ImageFolder), or CSV file with "
            "the columns file and class. A class is an index, a name, or a WordNet id. For images "
            "without a class, the predicted one is explained. Or the word scenes: made images of "
            "two objects whose masks are known, for the networks scenes-*."
        ),
    ],
    output: options.Output,
    model: options.Model = "efficientnet-lite0",
    methods: Annotated[
        str | None,
        typer.Option(
            help="Names separated by commas. captum_advise.evaluation.list_methods() lists them, "
            "and so does a name that is unknown.",
            show_default=",".join(_DEFAULT),
        ),
    ] = None,
    layer: options.Layer = None,
    weights: options.Weights = "default",
    device: options.Device = "auto",
    limit: Annotated[
        int | None, typer.Option(min=1, help="At most this many images, evenly spaced.")
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, help="Seed of random maps, of samples and of the bootstrap.")
    ] = 0,
    steps: Annotated[int, typer.Option(min=1, help="Steps of insertion and deletion.")] = 32,
    metrics: Annotated[
        str,
        typer.Option(
            help="Names separated by commas; default and all stand for several. A name that is "
            "unknown lists them."
        ),
    ] = "default",
    mosaics: Annotated[
        int | None,
        typer.Option(
            min=2,
            metavar="N",
            help="Add the grid pointing game on mosaics of N x N of the images; the network must "
            "take images of any size.",
            show_default="no mosaics",
        ),
    ] = None,
    n_mosaics: Annotated[int, typer.Option(min=1, help="How many mosaics, at most.")] = 20,
    reference_protocol: Annotated[
        bool, typer.Option(help="Compute AVX as the ADVISE authors' program does.")
    ] = False,
    settings_of_methods: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=NUMBER",
            help="A setting of a method, as rise_masks=1000; may be repeated.",
        ),
    ] = None,
    batch_size: Annotated[
        int, typer.Option(min=1, help="Masked images that go through the network at once.")
    ] = 8,
    recompute: Annotated[
        list[str] | None,
        typer.Option(
            metavar="METHOD",
            help="Compute the rows of a method again, as after a change of a file that it reads; "
            "may be repeated.",
        ),
    ] = None,
    prune: Annotated[
        bool,
        typer.Option("--prune", help="At the end, delete the rows that are not of this command."),
    ] = False,
) -> int:
    """Compare explanation methods on a network and images.

    Stopped or killed, the same command continues where it was. Methods, images and metrics can be
    added, and settings changed and changed back: only what is missing is computed. Under torchrun
    the processes share the images. Ends with status 1 if some images failed.
    """
    from captum_advise.evaluation.columns import get_metrics
    from captum_advise.evaluation.methods.registry import parse_settings
    from captum_advise.metrics import AVXProtocol

    # Quick checks come before the network is loaded.
    chosen = list(_DEFAULT) if methods is None else _names(methods)
    wanted = _names(metrics)
    own_settings = parse_settings(settings_of_methods or [])
    compared = evaluation.get_methods(chosen, own_settings)
    if not compared:
        raise ValueError("Name at least one method, with --methods.")
    get_metrics(wanted)
    protocol = AVXProtocol.reference() if reference_protocol else AVXProtocol()
    try:
        network = load_network(model, layer=layer, weights=weights, device=device, seed=seed)
        if methods is None and not network.layers:
            del compared[_DEFAULT[0]]
            show_message(
                f"{_DEFAULT[0]} is left out: {network.name} has no layer with twice the resolution "
                f"of {network.layer_name}."
            )
        dataset: Any
        if str(data) == "scenes" and not data.exists():
            if mosaics is not None:
                raise ValueError("Scenes say where their objects are: leave --mosaics out.")
            dataset = evaluation.scene_dataset(network, count=limit or 50)
        else:
            dataset = evaluation.image_dataset(data, network, limit=limit)
        items: Any = dataset
        if mosaics is not None:
            items += evaluation.mosaic_dataset(
                network.model, dataset, side=mosaics, count=n_mosaics, seed=seed
            )
        result = evaluation.evaluate(
            network.model,
            network.layer,
            items,
            compared,
            output,
            metrics=wanted,
            pixel_space=network.pixel_space,
            reshape_transform=network.reshape_transform,
            settings=evaluation.MetricSettings(steps=steps, protocol=protocol),
            seed=seed,
            internal_batch_size=batch_size,
            recompute=recompute or (),
            prune=prune,
            progress=sys.stderr.isatty(),
        )
    except KeyboardInterrupt:
        without = ", without --recompute," if recompute else ""
        show_message(f"Stopped; the same command{without} continues.")
        return 130
    # Under torchrun, the process with another status than 0 ends the others: only the first has it.
    if int(os.getenv("RANK", "0")) != 0:
        return 0
    # What was reused, what was computed, and why.
    reasons = ", ".join(f"{reason}: {number}" for reason, number in result.reasons.items())
    rows = f"{result.reused} reused, {result.computed} computed{f' ({reasons})' * bool(reasons)}"
    show(f"Rows: {rows}.")
    if len(result.failures):
        show(f"Failed images: {len(result.failures)}, see {result.folder / 'failures.csv'}.")
    show(f"Report: {result.folder / 'report.html'}")
    return 1 if len(result.failures) else 0


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]
