"""``captum-advise explain``."""

from __future__ import annotations

import errno
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

import captum_advise
from captum_advise._utils.errors import USER_ERRORS, first_line
from captum_advise._utils.io import atomic_write
from captum_advise.cli import options
from captum_advise.cli.console import cell, make_folder, progress, show, show_error, show_message
from captum_advise.cli.image_results import (
    COLUMNS,
    content_of,
    index_name,
    index_page,
    numbers_of,
    output_names,
    row_of,
    show_result,
)
from captum_advise.cli.image_sources import Source, find_sources
from captum_advise.cli.networks import load_network

if TYPE_CHECKING:
    from PIL import Image

    from captum_advise import Explanation, zoo
    from captum_advise.layer_advise import UnitSelection
    from captum_advise.relevance import ActivationRange

# \b keeps the lines as they are.
EXAMPLES = """\b
Examples:
  captum-advise explain
  captum-advise explain dog.jpg cat.png --output results
  captum-advise explain photos --batch-size 16 --device auto
  captum-advise explain "photos/*.jpg" --format json > results.json
  captum-advise explain dog.jpg --html
  captum-advise explain dog.jpg --target "golden retriever"
  captum-advise explain dog.jpg --model resnet50
  captum-advise explain dog.jpg --model timm/resnet18 --layer layer3 --selection 1,2
"""

# What every further file would fail with as well.
_NO_MORE_FILES = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}


def explain(
    images: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="IMAGE",
            help='Image files, folders of images, or patterns such as "photos/*.jpg". Without '
            "one, a photo of a cat from scikit-image.",
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
    activation_range: Annotated[
        str,
        typer.Option(
            metavar="[LOW,HIGH|minmax]",
            help="Count the modes of activations in this range only, or of each unit's activations "
            "mapped onto [0, 1].",
        ),
    ] = "0,1",
    output: options.Output = Path("advise-output"),
    output_format: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="[text|json]",
            help="What is printed: text, or a JSON list with all numbers of each image. With json, "
            "no panels are drawn.",
        ),
    ] = "text",
    html: Annotated[
        bool,
        typer.Option(
            "--html", help="Also write NAME.html: an interactive page in one file, without network."
        ),
    ] = False,
    batch_size: Annotated[
        int, typer.Option(metavar="N", min=1, help="Images that go through the network at once.")
    ] = 8,
    device: options.Device = "auto",
    verbose: Annotated[
        bool, typer.Option("--verbose", help="Print setup, groups and metrics of each image.")
    ] = False,
) -> int:
    """Explain images: which parts of them speak for the prediction.

    Writes for each image a panel, NAME.png, and all numbers, NAME.json, to the output folder. The
    panel has the map of GatedGradCam, where the network has layers for it, that of LayerAdvise, and
    Grad-CAM. Prints the most probable classes, and which units LayerAdvise selected; for several
    images a table, and writes a page, index.html.
    """
    if output_format not in ("text", "json"):
        raise ValueError(f"--format must be text or json, not {output_format!r}.")
    as_json = output_format == "json"
    units, values = _selection(selection), _activation_range(activation_range)
    sources, skipped = find_sources(images or (), output)
    network = load_network(model, layer=layer, weights=weights, device=device)
    how = {
        "target": None if target is None else network.class_index(target),
        "unit_selection": units,
        "activation_range": values,
        "keep_units": html,
    }
    make_folder(output)
    if skipped:
        show_message(skipped)
    endings = [*[".png"][as_json:], ".json", *[".html"][: int(html)]]
    named = list(zip(sources, output_names(sources, output, endings), strict=True))
    run = _Run(output, endings, how, as_json, verbose, len(named))
    starts = range(0, len(named), batch_size)
    try:
        for start in progress(starts, "batches", hidden=len(named) == 1):
            run.add(network, named[start : start + batch_size])
            if run.is_stopped:
                break
    except KeyboardInterrupt:
        show_message(f"stopped after {len(run.rows)} of {len(named)} images")
        raise
    finally:
        # What is done is worth a page, also where the user stops the rest.
        run.finish()
    return 1 if run.failures else 0


def _explained(
    network: zoo.Network, images: dict[str, Image.Image], how: dict[str, Any]
) -> dict[str, Explanation | BaseException]:
    """Explanation or error of each image, by the name of its results."""
    if not images:
        return {}
    try:
        with warnings.catch_warnings():
            # An error here: see check_relevance.
            warnings.filterwarnings("ignore", ".* have no unit with relevance")
            found = captum_advise.explain(list(images.values()), network, **how)
        return {name: found[index] for index, name in enumerate(images)}
    except USER_ERRORS as error:
        if len(images) == 1:
            return dict.fromkeys(images, error)
    # One image spoils the batch, or the batch is too large: each by itself.
    outcomes: dict[str, Explanation | BaseException] = {}
    for name, image in images.items():
        outcomes |= _explained(network, {name: image}, how)
    return outcomes


@dataclass
class _Run:
    """What a run has written and shown so far."""

    output: Path
    endings: Sequence[str]
    how: dict[str, Any]
    as_json: bool
    verbose: bool
    count: int
    rows: dict[str, tuple[str, ...]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    setup: str = ""
    is_stopped: bool = False

    def add(self, network: zoo.Network, batch: Sequence[tuple[Source, str]]) -> None:
        """Explain images, in order, and write and show what comes of each."""
        opened: dict[str, Image.Image] = {}
        outcomes: dict[str, Explanation | BaseException] = {}
        for source, name in batch:
            try:
                opened[name] = source.open()
            except USER_ERRORS as error:
                outcomes[name] = error
        outcomes |= _explained(network, opened, self.how)
        for source, name in batch:
            try:
                outcome = outcomes[name]
                if isinstance(outcome, BaseException):
                    raise outcome
                check_relevance(outcome, self.how["unit_selection"])
                self._write(name, source.shown, outcome)
            except USER_ERRORS as error:
                text = first_line(error)
                self.failures.append(text if source.shown in text else f"{source.shown}: {text}")
                show_error(self.failures[-1])
                cause = error.__cause__
                self.is_stopped = isinstance(cause, OSError) and cause.errno in _NO_MORE_FILES
                if self.is_stopped:
                    return

    def _write(self, name: str, shown: str, explanation: Explanation) -> None:
        numbers = numbers_of(explanation, shown, self.how)
        contents = {ending: content_of(ending, explanation, numbers) for ending in self.endings}
        for ending, content in contents.items():
            atomic_write(self.output / f"{name}{ending}", content)
        is_first, self.setup = not self.rows, str(explanation.setup)
        self.rows[name] = row_of(explanation, numbers)
        if self.as_json:
            self.texts.append(str(contents[".json"]).rstrip())
        elif self.count == 1 or self.verbose:
            show_result(explanation, numbers, verbose=self.verbose)
            for ending in contents:
                show(f"  {self.output / f'{name}{ending}'}")
        elif is_first:
            show(f"Setup: {self.setup}")

    def finish(self) -> None:
        """Write and show what is about all images."""
        if self.as_json:
            typer.echo(f"[{', '.join(self.texts)}]")
        elif self.count > 1 and self.rows:
            table = Table(*COLUMNS)
            # A name that is too long for the terminal goes on in the next line.
            table.columns[0].overflow = "fold"
            for row in self.rows.values():
                table.add_row(*map(cell, row))
            show(table)
            if not self.is_stopped:
                pages = ".html" in self.endings
                path = self.output / index_name(self.output)
                page = index_page(self.setup, self.rows, self.failures, with_pages=pages)
                atomic_write(path, page)
                show(str(path))
        if self.is_stopped and self.count > 1:
            show_error(f"stopped after {len(self.rows)} of {self.count} images.")
        elif self.failures and self.count > 1:
            show_error(f"{len(self.failures)} of {self.count} images could not be explained.")


def check_relevance(explanation: Explanation, selection: UnitSelection) -> None:
    """Raise if no unit has a relevance that was asked for."""
    if isinstance(selection, str) or selection is None or explanation.selected_units.any():
        return
    assert explanation.unit_relevance is not None
    given = sorted(set(explanation.unit_relevance[0].tolist()))
    wanted = [selection] if isinstance(selection, int) else selection
    raise ValueError(
        f"no unit has relevance {' or '.join(map(str, wanted))}: the units have relevance "
        f"{', '.join(map(str, given))}."
    )


def _selection(text: str) -> UnitSelection:
    if text == "avx":
        return "avx"
    if text == "average_drop":
        return "average_drop"
    if re.fullmatch(r"[0-9]+(,[0-9]+)*", text):
        return [int(relevance) for relevance in text.split(",")]
    raise ValueError(
        f"--selection must be avx, average_drop, or relevances such as 1 or 1,2, not {text!r}."
    )


def _activation_range(text: str) -> ActivationRange:
    if text == "minmax":
        return "minmax"
    try:
        low, high = map(float, text.split(","))
    except ValueError:
        raise ValueError(
            f"--activation-range must be minmax or two numbers such as 0,1, not {text!r}."
        ) from None
    return low, high
