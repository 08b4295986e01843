"""``captum-advise evaluate``."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from captum_advise import evaluation
from captum_advise.cli import options
from captum_advise.cli.console import show, show_message
from captum_advise.cli.networks import load_network
from captum_advise.evaluation.columns import METRICS, MOSAIC_METRICS, ON_REQUEST

if TYPE_CHECKING:
    import pandas as pd

    from captum_advise.evaluation import Evaluation, SavedMaps
    from captum_advise.evaluation.methods import MethodLike

# The others are in the report.
_SHOWN = ("insertion", "deletion", "road", *ON_REQUEST, "pointing", "grid_top", "avx")

EXAMPLES = """\b
Examples:
  captum-advise evaluate --data photos --output report
  captum-advise evaluate --data imagenet/val --model resnet50 --output report \\
    --methods layer-advise,grad-cam,layer-cam,random
  captum-advise evaluate --data photos --output report --maps mine=maps
  captum-advise evaluate --data photos --output checks --methods grad-cam --check-metrics
  torchrun --nproc-per-node 4 -m captum_advise evaluate --data photos --output report
"""


def evaluate(
    data: Annotated[
        Path,
        typer.Option(
            help="Folder of images, or of one folder per class (ImageFolder), or CSV file with "
            "the columns file and class. A class is an index, a name, or a WordNet id. For images "
            "without class, the predicted one is explained. A CSV file can also say where objects "
            "are: by the columns x0, y0, x1, y1 in pixels, or by mask."
        ),
    ],
    output: options.Output,
    model: options.Model = "efficientnet-lite0",
    methods: Annotated[
        str,
        typer.Option(
            help="Names separated by commas. captum_advise.evaluation.list_methods() lists them, "
            "and so does a name that is unknown."
        ),
    ] = "gated-grad-cam,layer-advise,grad-cam,random,gaussian",
    maps: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=FOLDER",
            help="Add a method whose maps are files in a folder, named like the images: .npy, .npz "
            "or grey .png. May be given several times.",
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
    infidelity: Annotated[bool, typer.Option(help="Add Captum's infidelity.")] = False,
    sensitivity: Annotated[
        bool, typer.Option(help="Add Captum's sensitivity_max: eleven more maps per image.")
    ] = False,
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
    check_metrics: Annotated[
        bool,
        typer.Option(
            "--check-metrics",
            help="Do not compare methods, but degrade the map of the first of --methods, and show "
            "which metrics notice.",
        ),
    ] = False,
    reference_protocol: Annotated[
        bool, typer.Option(help="Use the protocol as the authors' program reads it.")
    ] = False,
    integrated_gradients_steps: Annotated[
        int, typer.Option(min=1, help="Points on the path of integrated-gradients.")
    ] = 32,
    expected_gradients_samples: Annotated[
        int, typer.Option(min=1, help="Points on the paths of expected-gradients.")
    ] = 32,
    smooth_grad_samples: Annotated[
        int, typer.Option(min=1, help="Noisy images per map of smooth-grad.")
    ] = 32,
    rise_masks: Annotated[int, typer.Option(min=1, help="Random masks per map of rise.")] = 4000,
    lime_samples: Annotated[
        int,
        typer.Option(
            min=1, help="Images with superpixels left out, per map of lime and kernel-shap."
        ),
    ] = 1000,
    lime_grid: Annotated[
        int, typer.Option(min=1, help="Superpixels of lime and kernel-shap along each side.")
    ] = 8,
    occlusion_windows: Annotated[
        int, typer.Option(min=1, help="Black windows of occlusion that fit along each side.")
    ] = 7,
    smooth_grad_cam_samples: Annotated[
        int, typer.Option(min=1, help="Noisy images per map of smooth-grad-cam++.")
    ] = 4,
    is_cam_samples: Annotated[int, typer.Option(min=1, help="Steps of is-cam.")] = 10,
    batch_size: Annotated[
        int, typer.Option(min=1, help="Masked images that go through the network at once.")
    ] = 8,
    compiled: Annotated[
        bool,
        typer.Option("--compile", help="Compile the network for the metrics: pays in long runs."),
    ] = False,
    bf16: Annotated[
        bool,
        typer.Option("--bf16", help="Run the network in bfloat16 for the metrics, by autocast."),
    ] = False,
    restart: Annotated[
        bool,
        typer.Option("--restart", help="Begin anew: delete the results of the run in the output."),
    ] = False,
    recompute: Annotated[
        bool,
        typer.Option(
            "--recompute",
            help="Accept other settings than the run's in the output, and compute again the rows "
            "that depend on them.",
        ),
    ] = False,
) -> int:
    """Compare explanation methods on a network and images.

    Stopped or killed, the same command continues where it was. Methods and images can be added:
    only what is missing is computed. Images that have changed are evaluated again. Under torchrun
    the processes share the images. Ends with status 1 if some images failed.
    """
    import torch

    from captum_advise.evaluation.data import check_output
    from captum_advise.evaluation.metric_checks import checked
    from captum_advise.metrics import AVXProtocol

    chosen = [name.strip() for name in methods.split(",") if name.strip()]
    # Quick checks come before the network is loaded.
    saved = _saved_maps(maps or [])
    compared: dict[str, MethodLike] = {
        **(evaluation.get_methods(chosen) if chosen else {}),
        **saved,
    }
    for name in set(chosen) & set(saved):
        raise ValueError(f"{name} is the name of a method: give its maps another name.")
    if not compared:
        raise ValueError("Name at least one method, with --methods or --maps.")
    if check_metrics and saved:
        raise ValueError(
            "--check-metrics degrades the map of the first of --methods: leave --maps out."
        )
    check_output(output, data)
    settings = evaluation.MetricSettings(
        steps=steps,
        on_request=frozenset(
            name for name, asked in zip(ON_REQUEST, (infidelity, sensitivity), strict=True) if asked
        ),
        protocol=AVXProtocol.reference() if reference_protocol else AVXProtocol(),
    )
    method_settings = evaluation.MethodSettings(
        integrated_gradients_steps=integrated_gradients_steps,
        expected_gradients_samples=expected_gradients_samples,
        smooth_grad_samples=smooth_grad_samples,
        rise_masks=rise_masks,
        lime_samples=lime_samples,
        lime_grid=lime_grid,
        occlusion_windows=occlusion_windows,
        smooth_grad_cam_samples=smooth_grad_cam_samples,
        is_cam_samples=is_cam_samples,
    )
    try:
        network = load_network(model, layer=layer, weights=weights, device=device, seed=seed)
        network.check_layout()
        # Convolutions are faster so, and differ by rounding only.
        fast = network.model.to(memory_format=torch.channels_last)
        dataset = evaluation.image_dataset(data, network, limit=limit)
        arguments: dict[str, Any] = {
            "pixel_space": network.pixel_space,
            "method_settings": method_settings,
            "settings": settings,
            "seed": seed,
            "internal_batch_size": batch_size,
            "compiled": compiled,
            "bf16": bf16,
            "mosaics": mosaics,
            "n_mosaics": n_mosaics,
            "description": {"network": model},
            "restart": restart,
            "recompute": recompute,
            "progress": sys.stderr.isatty(),
        }
        table = None
        if check_metrics:
            result, table = checked(
                fast, network.layer, dataset, output, method=chosen[0], **arguments
            )
        else:
            result = evaluation.evaluate(
                fast, network.layer, dataset, compared, output, **arguments
            )
    except KeyboardInterrupt:
        without = ", without --restart," if restart else ""
        show_message(f"Stopped; the same command{without} continues.")
        return 130
    # Under torchrun, the process with another status than 0 ends the others: only the first has it.
    if int(os.getenv("RANK", "0")) != 0:
        return 0
    if table is None:
        _show(result)
    else:
        _show_checks(result, table)
    return 1 if len(result.failures) else 0


def _saved_maps(options: Sequence[str]) -> dict[str, SavedMaps]:
    """The methods that ``--maps`` adds."""
    saved: dict[str, SavedMaps] = {}
    for option in options:
        name, separator, folder = (part.strip() for part in option.partition("="))
        if not (name and separator and folder):
            raise ValueError(f"--maps takes NAME=FOLDER, got {option!r}.")
        if name in saved:
            raise ValueError(f"--maps names {name} twice: give each folder its own name.")
        saved[name] = evaluation.SavedMaps(Path(folder))
    return saved


def _show(result: Evaluation) -> None:
    means = result.summary.pivot(index="method", columns="metric", values="mean")
    shown = [m for m in (*METRICS, *MOSAIC_METRICS) if m.name in means and m.name in _SHOWN]
    table = Table("method", *(metric.heading for metric in shown))
    for method in result.summary["method"].unique():
        values = (f"{means.loc[method, metric.name]:.3f}" for metric in shown)
        table.add_row(escape(method), *values)
    show(table)
    show("AVX favours ADVISE, which selects by it: see summary.md.")
    _show_course(result)
    show(f"Report: {result.folder / 'report.html'}")


def _show_checks(result: Evaluation, checks: pd.DataFrame) -> None:
    from captum_advise.evaluation.metric_checks import NOTE, SECTIONS

    for section in SECTIONS:
        table = Table("metric", *section.changes, title=section.title)
        for row in section.rows(checks):
            table.add_row(*row)
        show(table)
        show(section.text)
    show(NOTE)
    _show_course(result)
    show(f"Report: {result.folder / 'metric_checks.md'}")


def _show_course(result: Evaluation) -> None:
    """What was reused, how long it took, and what failed."""
    if result.reused or result.extended or result.changed or result.left_out:
        show(_continued(result))
    # What only some methods took is not the time of a run.
    if result.evaluated and not result.extended:
        rate = result.evaluated / result.seconds
        images = "1 image" if result.evaluated == 1 else f"{result.evaluated} images"
        show(
            f"{images} in {result.seconds:.0f} s, {rate:.3g} a second: 50,000 "
            f"would take {50_000 / rate / 3600:.0f} hours on these processes."
        )
    if len(result.failures):
        show(f"Failed images: {len(result.failures)}, see {result.folder / 'failures.csv'}.")


def _continued(result: Evaluation) -> str:
    """What a run that continues has taken from the earlier one."""
    text = f"Images: {result.reused} reused from the earlier run, {result.evaluated} evaluated now"
    details = []
    if result.extended:
        details.append(f"{result.extended} only with the methods that are new")
    if result.changed:
        have = "it has" if result.changed == 1 else "they have"
        details.append(f"{result.changed} because {have} changed")
    if details:
        text += f" ({', '.join(details)})"
    if result.left_out:
        are = "it is" if result.left_out == 1 else "they are"
        text += f", {result.left_out} left out because {are} not in the data"
    return f"{text}."
