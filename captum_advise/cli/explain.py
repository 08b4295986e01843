"""``captum-advise explain``."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from rich.markup import escape
from rich.table import Table

import captum_advise
from captum_advise import visualization, zoo
from captum_advise._utils.errors import USER_ERRORS, first_line
from captum_advise._utils.io import atomic_write
from captum_advise._version import __version__
from captum_advise.cli import options
from captum_advise.cli.console import make_folder, progress, show, show_error
from captum_advise.cli.image_sources import INDEX, Source, find_sources, output_names
from captum_advise.cli.index_page import index_page
from captum_advise.cli.networks import load_network

if TYPE_CHECKING:
    from torch import Tensor

    from captum_advise import Explanation, LayerAdvise, Setup
    from captum_advise.comparisons import Comparisons
    from captum_advise.layer_advise import UnitSelection
    from captum_advise.metrics import VisualExplainability
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
  captum-advise explain dog.jpg --model resnet50 --weights resnet50.pth
  captum-advise explain dog.jpg --model timm/resnet18 --layer layer3 --selection 1,2
"""


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
            help="The units that make the map: the group with the highest AVX, the group with the "
            "smallest average drop, or the units with the given relevances, as in 1 or 1,2.",
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
    min_prominence: Annotated[
        float,
        typer.Option(
            min=0,
            help="The least prominence of a mode, as a share of the density's maximum; 0 counts "
            "every local maximum, as the authors' program does.",
        ),
    ] = 1e-6,
    output: options.Output = Path("advise-output"),
    output_format: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="[text|json]",
            help="What is printed: text, or a JSON list with all numbers of each image.",
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
) -> int:
    """Explain images with ADVISE, and compare with Grad-CAM and GatedGradCam.

    Writes for each image a panel, NAME.png, and all numbers, NAME.json, to the output folder.
    Prints the prediction, the units that ADVISE selected, and how well the maps of ADVISE and
    Grad-CAM explain the prediction (AVX and its parts); for several images a table, and writes a
    page, index.html. GatedGradCam combines several layers; its map is in the panel where the
    network has layers for it.
    """
    if output_format not in ("text", "json"):
        raise ValueError(f"--format must be text or json, not {output_format!r}.")
    sources = find_sources(images or (), output)
    job = _Job.prepare(
        model=model,
        layer=layer,
        weights=weights,
        target=target,
        selection=selection,
        activation_range=activation_range,
        min_prominence=min_prominence,
        device=device,
    )
    make_folder(output)
    endings = [".png", ".json", ".html"] if html else [".png", ".json"]
    run = _Run(job, output, endings, as_json=output_format == "json", is_single=len(sources) == 1)
    named = list(zip(sources, output_names(sources, output), strict=True))
    batches = [named[start : start + batch_size] for start in range(0, len(named), batch_size)]
    try:
        for batch in progress(batches, "batches", hidden=len(named) == 1):
            for name, outcome in job.explain(batch):
                run.add(name, outcome)
    finally:
        # What is done is worth a page, also where the user stops the rest.
        run.finish()
    if run.failures and len(sources) > 1:
        show_error(f"{len(run.failures)} of {len(sources)} images could not be explained.")
    return 1 if run.failures else 0


@dataclass(frozen=True)
class _Failure:
    """An image that could not be explained, and why."""

    shown: str
    text: str


@dataclass(frozen=True)
class _Job:
    """What is the same for every image of a run."""

    network: zoo.Network
    target: int | None
    selection: UnitSelection
    activation_range: ActivationRange
    min_prominence: float

    @classmethod
    def prepare(
        cls,
        *,
        model: str,
        layer: str | None,
        weights: str,
        target: str | None,
        selection: str,
        activation_range: str,
        min_prominence: float,
        device: str,
    ) -> _Job:
        # Quick checks come first.
        units, values = _selection(selection), _activation_range(activation_range)
        network = load_network(model, layer=layer, weights=weights, device=device)
        index = None if target is None else network.class_index(target)
        return cls(network, index, units, values, min_prominence)

    def explain(
        self, batch: Sequence[tuple[Source, str]]
    ) -> Iterator[tuple[str, _Result | _Failure]]:
        """Name and outcome of each image, in order."""
        outcomes: dict[str, _Result | _Failure] = {}
        inputs: dict[str, tuple[str, Tensor]] = {}
        for source, name in batch:
            try:
                inputs[name] = source.shown, self.network.transform(source.open())
            except USER_ERRORS as error:
                outcomes[name] = _failure(source.shown, error)
        outcomes |= self._together(inputs)
        for _, name in batch:
            yield name, outcomes[name]

    def _together(self, inputs: dict[str, tuple[str, Tensor]]) -> dict[str, _Result | _Failure]:
        if not inputs:
            return {}
        try:
            return dict(zip(inputs, self._results(list(inputs.values())), strict=True))
        except USER_ERRORS as error:
            if len(inputs) == 1:
                return {name: _failure(shown, error) for name, (shown, _) in inputs.items()}
        # One image spoils the batch, or the batch is too large: each by itself.
        outcomes: dict[str, _Result | _Failure] = {}
        for name, image in inputs.items():
            outcomes |= self._together({name: image})
        return outcomes

    def _results(self, images: Sequence[tuple[str, Tensor]]) -> list[_Result]:
        import torch

        from captum_advise.comparisons import comparisons_of

        network = self.network
        inputs = torch.stack([tensor for _, tensor in images]).to(network.device)
        with torch.no_grad():
            probabilities = network.model(inputs).softmax(1)
        predicted = probabilities.argmax(1)
        target = predicted if self.target is None else torch.full_like(predicted, self.target)
        advise = captum_advise.LayerAdvise(
            network.model,
            network.layer,
            pixel_space=network.pixel_space,
            reshape_transform=network.reshape_transform,
        )
        explanation = advise.explain(
            inputs,
            target,
            unit_selection=self.selection,
            activation_range=self.activation_range,
            min_prominence=self.min_prominence,
        )
        comparisons = comparisons_of(network, advise, inputs, target)
        pixels = network.pixel_space.to_pixels(inputs)
        return [
            _Result(
                job=self,
                advise=advise,
                inputs=inputs[index : index + 1],
                shown=shown,
                index=index,
                image=pixels[index],
                probabilities=probabilities[index],
                predicted=int(predicted[index]),
                target=int(target[index]),
                explanation=explanation,
                comparisons=comparisons,
            )
            for index, (shown, _) in enumerate(images)
        ]


def _failure(shown: str, error: BaseException) -> _Failure:
    text = first_line(error)
    return _Failure(shown, text if shown in text else f"{shown}: {text}")


@dataclass(frozen=True)
class _Result:
    """One explained image, at an index of the explanations of a batch."""

    job: _Job
    advise: LayerAdvise
    inputs: Tensor
    shown: str
    index: int
    image: Tensor
    probabilities: Tensor
    predicted: int
    target: int
    explanation: Explanation
    comparisons: Comparisons

    @property
    def grad_cam(self) -> Explanation:
        """Grad-CAM's map with its metrics."""
        from captum_advise.comparisons import GRAD_CAM

        return cast("Explanation", self.comparisons[GRAD_CAM])

    def png(self) -> bytes:
        from captum_advise.visualization.style import to_png

        figure, _ = visualization.panel(
            self.image,
            self.explanation,
            self.comparisons,
            index=self.index,
            class_name=self.job.network.class_names[self.target],
        )
        return to_png(figure)

    def html(self) -> bytes:
        from captum_advise.visualization.page import one_example, unit_tensors

        feature_maps, contributions = unit_tensors(self.advise, self.inputs, self.target)
        page = one_example(self.explanation, self.index).to_html(
            self.image,
            feature_maps=feature_maps,
            contributions=contributions,
            comparisons={
                name: one_example(maps, self.index) for name, maps in self.comparisons.items()
            },
            class_names=self.job.network.class_names,
            names=[self.shown],
            activation_range=self.job.activation_range,
        )
        return page.encode()

    def show(self) -> None:
        from captum_advise.comparisons import GRAD_CAM, SEVERAL_LAYERS
        from captum_advise.visualization.maps import LAYER_ADVISE

        show(f"{self.shown}: {self._class(self.predicted)}")
        if self.target != self.predicted:
            show(f"  explained: {self._class(self.target)}")
        units = self.explanation.selected_units[self.index]
        selected = self.explanation.describe_selection(self.index)
        show(f"  {selected}: {int(units.sum())} of {len(units)} units")
        table = Table("", LAYER_ADVISE, GRAD_CAM, "better")
        advise, grad_cam = self._parts(self.explanation), self._parts(self.grad_cam)
        for part, (label, better) in _LABELS.items():
            table.add_row(label, _cell(advise.get(part)), _cell(grad_cam.get(part)), better)
        show(table)
        if SEVERAL_LAYERS in self.comparisons:
            layers = len(self.setup.gated_layers)
            show(f"  {SEVERAL_LAYERS}: a map from {layers} layers, in the panel")

    def row(self) -> tuple[str, ...]:
        """The image in a line of a table, as in ``_COLUMNS``."""
        return (
            self.shown,
            self.job.network.class_names[self.target],
            f"{self.probabilities[self.target].item():.1%}",
            _cell(self._parts(self.explanation).get("avx")),
            self.explanation.describe_selection(self.index),
        )

    @property
    def setup(self) -> Setup:
        """The network in words."""
        from captum_advise.one_call import setup_of

        return setup_of(self.job.network, (self.image.shape[1], self.image.shape[2]))

    def _parts(self, explanation: Explanation) -> dict[str, Any]:
        metrics: VisualExplainability | None = explanation.metrics
        return {} if metrics is None else dict(metrics[self.index].to_dict())

    def _class(self, index: int) -> str:
        name = self.job.network.class_names[index]
        return f"{name} ({index}), confidence {self.probabilities[index].item():.1%}"

    def json(self) -> bytes:
        network, explanation, grad_cam = self.job.network, self.explanation, self.grad_cam
        index, setup = self.index, self.setup
        selected, relevance = int(explanation.selected[index]), explanation.unit_relevance
        numbers = {
            "captum_advise": __version__,
            "image": self.shown,
            "model": network.name,
            "weights": network.weights,
            "layer": network.layer_name,
            "layout": setup.layout,
            "gated_layers": setup.gated_layers,
            "input_size": setup.input_size,
            "transform": setup.transform,
            "pixel_space": {"mean": setup.pixel_space.mean, "std": setup.pixel_space.std},
            "selection": self.job.selection,
            "activation_range": self.job.activation_range,
            "min_prominence": self.job.min_prominence,
            "predicted": self._class_numbers(self.predicted),
            "target": self._class_numbers(self.target),
            "layer-advise": {
                "selected": selected if selected >= 0 else None,
                "units": int(explanation.selected_units[index].sum()),
                "fallback": bool(explanation.fallback[index]),
                "metrics": self._parts(explanation),
            },
            "grad_cam": {
                "units": int(grad_cam.selected_units[index].sum()),
                "metrics": self._parts(grad_cam),
            },
            "groups": [
                {
                    "relevance": candidate.relevance,
                    "units": len(candidate.units),
                    "metrics": {} if candidate.metrics is None else candidate.metrics.to_dict(),
                }
                for candidate in explanation.candidates[index]
            ],
            "unit_relevance": None if relevance is None else relevance[index].tolist(),
            "selected_units": explanation.selected_units[index].nonzero()[:, 0].tolist(),
            "unit_weights": explanation.unit_weights[index].tolist(),
            "attributions": {
                "layer-advise": explanation.attributions[index, 0].tolist(),
                "grad_cam": grad_cam.attributions[index, 0].tolist(),
            },
        }
        lines = (
            f"  {json.dumps(key)}: {json.dumps(_finite(value), allow_nan=False)}"
            for key, value in numbers.items()
        )
        return ("{\n" + ",\n".join(lines) + "\n}\n").encode()

    def _class_numbers(self, index: int) -> dict[str, Any]:
        return {
            "index": index,
            "name": self.job.network.class_names[index],
            "confidence": self.probabilities[index].item(),
        }


_LABELS = {
    "avx": ("AVX", "higher"),
    "average_drop": ("average drop", "lower"),
    "ssim": ("SSIM", "higher"),
    "fsim": ("FSIMc", "higher"),
    "mse": ("MSE", "lower"),
    "class_sensitivity": ("class sensitivity", "lower"),
    "hit": ("hit (top 5)", "yes"),
    "increase_in_confidence": ("increase in confidence", "yes"),
    "average_gain": ("average gain", "higher"),
}


# The files that are written for an image, by how their names end.
_FILES: dict[str, Callable[[_Result], bytes]] = {
    ".png": _Result.png,
    ".json": _Result.json,
    ".html": _Result.html,
}

_COLUMNS = ("image", "class", "confidence", "AVX", "selected")


@dataclass
class _Run:
    """What a run has written and shown so far."""

    job: _Job
    output: Path
    endings: Sequence[str]
    as_json: bool
    is_single: bool
    rows: dict[str, tuple[str, ...]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    texts: list[str] = field(default_factory=list)
    setup: Setup | None = None

    def add(self, name: str, outcome: _Result | _Failure) -> None:
        """Write and show the outcome of one image."""
        if isinstance(outcome, _Result):
            try:
                self._write(name, outcome)
            except USER_ERRORS as error:
                outcome = _failure(outcome.shown, error)
        if isinstance(outcome, _Failure):
            self.failures[outcome.shown] = outcome.text
            show_error(outcome.text)

    def _write(self, name: str, result: _Result) -> None:
        contents = {f"{name}{ending}": _FILES[ending](result) for ending in self.endings}
        paths = [self.output / file for file in contents]
        for path in paths:
            atomic_write(path, contents[path.name])
        is_first, self.setup = not self.rows, result.setup
        self.rows[name] = result.row()
        if self.as_json:
            self.texts.append(contents[f"{name}.json"].decode().rstrip())
            return
        if is_first:
            show(f"Setup: {self.setup}")
        if self.is_single:
            result.show()
            for path in paths:
                show(f"  {path}")

    def finish(self) -> None:
        """Write and show what is about all images."""
        if self.as_json:
            typer.echo(f"[{', '.join(self.texts)}]")
        if self.is_single or not self.rows:
            return
        page = self.output / INDEX
        text = index_page(
            str(self.setup),
            _COLUMNS,
            self.rows,
            self.failures,
            with_pages=".html" in self.endings,
        )
        atomic_write(page, text)
        if not self.as_json:
            table = Table(*_COLUMNS)
            # A name that is too long for the terminal goes on in the next line.
            table.columns[0].overflow = "fold"
            for row in self.rows.values():
                table.add_row(*map(escape, row))
            show(table)
            show(str(page))


def _cell(value: float | bool | None) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.3f}"


def _finite(value: Any) -> Any:
    """The same with None, JSON's null, for the numbers that JSON does not have."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


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
