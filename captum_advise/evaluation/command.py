"""``captum-advise evaluate``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table

from captum_advise import zoo
from captum_advise.evaluation.data import pictures
from captum_advise.evaluation.measures import ON_REQUEST, measures
from captum_advise.evaluation.methods import MethodSettings, by_name, names
from captum_advise.evaluation.runner import Evaluation
from captum_advise.evaluation.runner import evaluate as run
from captum_advise.evaluation.scoring import ScoringSettings
from captum_advise.metrics import Protocol

_METHODS = MethodSettings()
_SCORING = ScoringSettings()


def evaluate(
    data: Annotated[
        Path,
        typer.Option(
            help="Folder of pictures, of one folder per class (ImageFolder), or CSV file "
            "(file, class index). Pictures without class are explained for the predicted one."
        ),
    ],
    output: Annotated[Path, typer.Option(help="Folder for the report.")],
    model: Annotated[
        str,
        typer.Option(
            help="Network: a name of the zoo, torchvision/NAME or timm/NAME.",
            autocompletion=lambda: list(zoo.names()),
        ),
    ] = "efficientnet-lite0",
    methods: Annotated[
        str, typer.Option(help=f"Separated by commas, of: {', '.join(names())}.")
    ] = "advise,grad-cam,random,gaussian",
    layer: Annotated[
        str | None, typer.Option(help="Dotted module name; by default the paper's layer.")
    ] = None,
    weights: Annotated[
        str, typer.Option(help='"default", "random", or a state-dict file.')
    ] = "default",
    device: Annotated[
        str, typer.Option(help='"auto" takes a GPU if there is one, under torchrun one each.')
    ] = "auto",
    limit: Annotated[
        int | None, typer.Option(help="So many pictures at most, evenly spaced.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of random maps, of samples, of the bootstrap.")] = 0,
    steps: Annotated[int, typer.Option(help="Of insertion and deletion.")] = _SCORING.steps,
    infidelity: Annotated[bool, typer.Option(help="Measure Captum's infidelity too.")] = False,
    sensitivity: Annotated[
        bool, typer.Option(help="Measure Captum's sensitivity_max too: eleven more maps each.")
    ] = False,
    reference_protocol: Annotated[
        bool, typer.Option(help="Score by the authors' program's reading of the protocol.")
    ] = False,
    integrated_gradients_steps: Annotated[
        int, typer.Option(help="Points on the path of integrated-gradients.")
    ] = _METHODS.integrated_gradients_steps,
    lime_samples: Annotated[
        int, typer.Option(help="Pictures with superpixels left out, per map of lime.")
    ] = _METHODS.lime_samples,
    lime_grid: Annotated[
        int, typer.Option(help="Superpixels of lime, a side.")
    ] = _METHODS.lime_grid,
    occlusion_windows: Annotated[
        int, typer.Option(help="Black windows of occlusion that fit in a side.")
    ] = _METHODS.occlusion_windows,
    smooth_grad_cam_samples: Annotated[
        int, typer.Option(help="Noisy pictures of smooth-grad-cam++.")
    ] = _METHODS.smooth_grad_cam_samples,
    is_cam_samples: Annotated[int, typer.Option(help="Steps of is-cam.")] = _METHODS.is_cam_samples,
    batch_size: Annotated[
        int, typer.Option(help="Masked pictures that go through the network at once.")
    ] = 8,
    compiled: Annotated[
        bool,
        typer.Option("--compile", help="Score maps with the compiled network: pays in long runs."),
    ] = False,
) -> int:
    """Compare explanation methods on a network and pictures.

    Stopped or killed, the same command continues where it was. Under torchrun the processes
    share the pictures.
    """
    try:
        chosen = [name.strip() for name in methods.split(",") if name.strip()]
        by_name(chosen)  # before the network is loaded
        requested = frozenset(
            name for name, asked in zip(ON_REQUEST, (infidelity, sensitivity), strict=True) if asked
        )
        scoring = ScoringSettings(
            steps=steps,
            on_request=requested,
            protocol=Protocol.reference() if reference_protocol else Protocol(),
        )
        method_settings = MethodSettings(
            integrated_gradients_steps=integrated_gradients_steps,
            lime_samples=lime_samples,
            lime_grid=lime_grid,
            occlusion_windows=occlusion_windows,
            smooth_grad_cam_samples=smooth_grad_cam_samples,
            is_cam_samples=is_cam_samples,
        )
        network = zoo.load(model, layer=layer, weights=weights, device=_device(device), seed=seed)
        network.check_layout()
        found = run(
            # Convolutions are faster so, and differ by rounding only.
            network.model.to(memory_format=torch.channels_last),
            network.layer,
            pictures(data, network, limit=limit),
            chosen,
            output,
            pixel_space=network.pixel_space,
            method_settings=method_settings,
            settings=scoring,
            seed=seed,
            internal_batch_size=batch_size,
            compiled=compiled,
            description={"network": model, "weights": weights, "data": str(data)},
        )
        if int(os.getenv("RANK", "0")) == 0:
            _show(found, scoring)
    except KeyboardInterrupt:
        typer.echo("Stopped; the same command continues.", err=True)
        return 130
    # What bad input raises. Anything else is a bug and ends in a traceback.
    except (ValueError, OSError, RuntimeError, ImportError) as error:
        lines = str(error).strip().splitlines()
        typer.echo(f"error: {lines[0] if lines else type(error).__name__}", err=True)
        return 2
    return 0


def _device(asked: str) -> str:
    """The device of this process; under torchrun, ``cuda`` is the GPU of the local rank."""
    name = asked
    if asked == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and torch.cuda.is_available():
        torch.cuda.set_device(int(os.getenv("LOCAL_RANK", "0")) % torch.cuda.device_count())
    return name


def _show(found: Evaluation, scoring: ScoringSettings) -> None:
    console = Console()
    shown = [m for m in measures(scoring.on_request) if m.independent or m.name == "avx"]
    table = Table("method", *(m.heading for m in shown))
    means = found.summary.pivot(index="method", columns="measure", values="mean")
    for method in found.summary["method"].unique():
        table.add_row(method, *(f"{means.loc[method, m.name]:.3f}" for m in shown))
    console.print(table)
    console.print("AVX flatters ADVISE, which chooses by it: see summary.md.")
    if found.evaluated:
        rate = found.evaluated / found.seconds
        console.print(
            f"{found.evaluated} pictures in {found.seconds:.0f} s, {rate:.3g} a second: 50,000 "
            f"would take {50_000 / rate / 3600:.0f} hours on these processes."
        )
    if len(found.failures):
        console.print(
            f"Failed pictures: {len(found.failures)}, see {found.folder / 'failures.csv'}."
        )
    console.print(f"Report: {found.folder / 'summary.md'}")
