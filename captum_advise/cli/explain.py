"""``captum-advise explain``."""

from __future__ import annotations

import errno
import re
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

import captum_advise
from captum_advise._utils.errors import USER_ERRORS, first_line, on_one_line
from captum_advise._utils.io import atomic_write
from captum_advise.cli import options
from captum_advise.cli.console import make_folder, progress, show, show_error, show_message
from captum_advise.cli.image_results import content_of, output_names, show_result
from captum_advise.cli.image_sources import find_sources
from captum_advise.cli.networks import load_network

if TYPE_CHECKING:
    from PIL import Image

    from captum_advise import Explanation, zoo
    from captum_advise.layer_advise import UnitSelection

# \b keeps the lines as they are.
EXAMPLES = """\b
Examples:
  captum-advise explain
  captum-advise explain dog.jpg cat.png photos --output results
  captum-advise explain dog.jpg --html
  captum-advise explain dog.jpg --target "golden retriever"
  captum-advise explain dog.jpg --model resnet50
  captum-advise explain dog.jpg --model timm/resnet18 --layer layer3 --selection 1,2
"""

# What every further file would fail with as well.
_NO_MORE_FILES = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES}


def explain(
    images: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="IMAGE",
            help="Image files, or folders of images. Without one, a photo of a cat from "
            "scikit-image.",
        ),
    ] = None,
    model: options.Model = "efficientnet-lite0",
    layer: options.Layer = None,
    weights: options.Weights = "default",
    target: options.Target = None,
    selection: Annotated[
        str,
        typer.Option(
            metavar="[avx|average_drop|RELEVANCES]",
            help="The units that make the map of LayerAdvise: the group with the highest AVX, the "
            "group with the smallest average drop, or the units with the given relevances, as in 1 "
            "or 1,2.",
        ),
    ] = "avx",
    output: options.Output = Path("advise-output"),
    html: Annotated[
        bool,
        typer.Option("--html", help="Also write NAME.html, a page in one file that works offline."),
    ] = False,
    device: options.Device = "auto",
    verbose: Annotated[
        bool, typer.Option("--verbose", help="Print setup, groups and metrics of each image.")
    ] = False,
) -> int:
    """Explain images: which parts of them speak for the prediction.

    Writes for each image a figure, NAME.png, and all numbers, NAME.json, to the output folder. The
    figure has the map of GatedGradCam, where the network has layers for it, that of LayerAdvise,
    and Grad-CAM. Prints the most probable classes, and which units LayerAdvise selected; for
    several images a line each.
    """
    units = _selection(selection)
    sources, skipped = find_sources(images or (), output)
    network = load_network(model, layer=layer, weights=weights, device=device)
    how = {
        "target": None if target is None else network.class_index(target),
        "unit_selection": units,
        "keep_units": html,
    }
    make_folder(output)
    from captum_advise.density._engine import must_compile  # torch is imported by now

    if sys.stderr.isatty() and must_compile():
        show_message("numba compiles the density kernels, once: about ten seconds")
    if skipped:
        show_message(skipped)
    endings = [".png", ".json", *[".html"] * html]
    named = list(zip(sources, output_names(sources, output, endings), strict=True))
    is_one, done, failed = len(named) == 1, 0, 0
    try:
        for source, name in progress(named, "images", hidden=is_one):
            try:
                explanation = explained(source.open(), network, **how)
                contents = {end: content_of(end, explanation, source.shown) for end in endings}
                paths = [output / f"{name}{ending}" for ending in endings]
                for path in paths:
                    atomic_write(path, contents[path.suffix])
            except USER_ERRORS as error:
                failed += 1
                text, shown = first_line(error), on_one_line(source.shown)
                show_error(text if shown in text else f"{shown}: {text}")
                # Of a write: an image that may not be read is a ValueError.
                number = getattr(error.__cause__, "errno", None)
                if not is_one and isinstance(error, OSError) and number in _NO_MORE_FILES:
                    show_error(f"stopped after {done} of {len(named)} images.")
                    return 1
                continue
            done += 1
            in_one_line = not is_one and not verbose
            show_result(explanation, source.shown, verbose=verbose, in_one_line=in_one_line)
            for path in () if in_one_line else paths:
                show(f"  {path}")
    except KeyboardInterrupt:
        show_message(f"stopped after {done} of {len(named)} images")
        raise
    if not is_one and done:
        show(f"Results: {output}")
    if not is_one and failed:
        show_error(f"{failed} of {len(named)} images could not be explained.")
    return 1 if failed else 0


def explained(image: Image.Image, network: zoo.Network, **how: Any) -> Explanation:
    """As :func:`captum_advise.explain`; a relevance that no unit has is an error."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", ".* have no unit with relevance")
        try:
            return captum_advise.explain(image, network, **how)
        except UserWarning as warning:
            raise ValueError(str(warning)) from None


def _selection(text: str) -> UnitSelection:
    if text in ("avx", "average_drop"):
        return cast("UnitSelection", text)
    if re.fullmatch(r"[0-9]+(,[0-9]+)*", text):
        return [int(relevance) for relevance in text.split(",")]
    raise ValueError(
        f"--selection must be avx, average_drop, or relevances such as 1 or 1,2, not {text!r}."
    )
