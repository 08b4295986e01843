"""``captum-advise explain``."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import torch
import typer
from rich.table import Table
from torch import Tensor

from captum_advise import visualization, zoo
from captum_advise._utils.errors import USER_ERRORS, first_line
from captum_advise._utils.io import atomic_write
from captum_advise._version import __version__
from captum_advise.cli import options
from captum_advise.cli.console import make_folder, progress, show, show_error
from captum_advise.explanation import Explanation
from captum_advise.layer_advise import LayerAdvise, UnitSelection
from captum_advise.metrics import VisualExplainability
from captum_advise.relevance import ActivationRange
from captum_advise.visualization.style import to_png

if TYPE_CHECKING:
    from PIL import Image

# \b keeps the lines as they are.
EXAMPLES = """\b
Examples:
  captum-advise explain
  captum-advise explain dog.jpg cat.png --output results
  captum-advise explain dog.jpg --target "golden retriever"
  captum-advise explain dog.jpg --model resnet50 --weights resnet50.pth
  captum-advise explain dog.jpg --model timm/resnet18 --layer layer3 --selection 1,2
"""


def explain(
    images: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="IMAGE", help="Image files. Without one, a photo of a cat from scikit-image."
        ),
    ] = None,
    model: options.Model = "efficientnet-lite0",
    layer: options.Layer = None,
    weights: options.Weights = "default",
    target: options.Target = None,
    selection: Annotated[
        str,
        typer.Option(
            metavar="[explainability|confidence|faithfulness|RELEVANCES]",
            help="The units that make the map: the group with the highest AVX, the group with the "
            "smallest average drop, the candidate that gains most over Grad-CAM in AVX, insertion "
            "and deletion, or the units with the given relevances, as in 1 or 1,2.",
        ),
    ] = "explainability",
    activation_range: Annotated[
        str,
        typer.Option(
            metavar="[unit|minmax]",
            help="Count the modes of activations in [0, 1] only, or map each unit's activations "
            "to [0, 1] first.",
        ),
    ] = "unit",
    output: options.Output = Path("advise-output"),
    device: options.Device = "cpu",
) -> int:
    """Explain images with ADVISE, and compare with Grad-CAM.

    Prints for each image the prediction, the units that ADVISE selected, and how well the two maps
    explain the prediction (AVX and its parts). Writes a panel, NAME.png, and all numbers,
    NAME.json, to the output folder.
    """
    sources = [_Source(str(path), path.stem, path) for path in images or ()]
    job = _Job.prepare(
        model=model,
        layer=layer,
        weights=weights,
        target=target,
        selection=selection,
        activation_range=activation_range,
        device=device,
    )
    make_folder(output)
    if not sources:
        sources = [_Source("chelsea (from scikit-image)", "chelsea", None)]
    names = _output_names(sources, output)
    failures = 0
    pairs = list(zip(sources, names, strict=True))
    for source, name in progress(pairs, "images", hidden=len(pairs) == 1):
        try:
            result = job.explain(source)
            panel, numbers = output / f"{name}.png", output / f"{name}.json"
            atomic_write(panel, result.png())
            atomic_write(numbers, result.json())
        except USER_ERRORS as error:
            failures += 1
            text = first_line(error)
            show_error(text if source.shown in text else f"{source.shown}: {text}")
            continue
        result.show()
        show(f"  {panel}")
        show(f"  {numbers}")
    if failures and len(sources) > 1:
        show_error(f"{failures} of {len(sources)} images could not be explained.")
    return 1 if failures else 0


@dataclass(frozen=True)
class _Source:
    """Where an image comes from: a file, or scikit-image if there is no path."""

    shown: str
    stem: str
    path: Path | None

    def open(self) -> Image.Image:
        return zoo.example_image() if self.path is None else zoo.open_image(self.path)


@dataclass(frozen=True)
class _Job:
    """What is the same for every image of a run."""

    network: zoo.Network
    target: int | None
    selection: UnitSelection
    activation_range: ActivationRange
    device: str

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
        device: str,
    ) -> _Job:
        # Quick checks come first.
        units, values = _selection(selection), _activation_range(activation_range)
        device = options.resolve_device(device)
        network = zoo.load(model, layer=layer, weights=weights, device=device)
        index = None if target is None else network.class_index(target)
        return cls(network, index, units, values, device)

    def explain(self, source: _Source) -> _Result:
        network = self.network
        inputs = network.transform(source.open()).unsqueeze(0).to(self.device)
        with torch.no_grad():
            probabilities = network.model(inputs).softmax(1)[0]
        predicted = int(probabilities.argmax())
        target = predicted if self.target is None else self.target
        advise = LayerAdvise(
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
        )
        grad_cam = advise.explain(inputs, target, unit_selection=None)
        return _Result(
            job=self,
            shown=source.shown,
            image=network.pixel_space.to_pixels(inputs)[0],
            probabilities=probabilities,
            predicted=predicted,
            target=target,
            explanation=explanation,
            grad_cam=grad_cam,
        )


@dataclass(frozen=True)
class _Result:
    """One explained image."""

    job: _Job
    shown: str
    image: Tensor
    probabilities: Tensor
    predicted: int
    target: int
    explanation: Explanation
    grad_cam: Explanation

    def png(self) -> bytes:
        figure, _ = visualization.panel(
            self.image,
            self.explanation,
            self.grad_cam,
            class_name=self.job.network.class_names[self.target],
        )
        return to_png(figure)

    def show(self) -> None:
        show(f"{self.shown}: {self._class(self.predicted)}")
        if self.target != self.predicted:
            show(f"  explained: {self._class(self.target)}")
        units = self.explanation.selected_units[0]
        selected = self.explanation.describe_selection()
        show(f"  {selected}: {int(units.sum())} of {len(units)} units")
        table = Table("", "ADVISE", "Grad-CAM", "better")
        advise, grad_cam = _parts(self.explanation.metrics), _parts(self.grad_cam.metrics)
        for part, (label, better) in _LABELS.items():
            table.add_row(label, _cell(advise.get(part)), _cell(grad_cam.get(part)), better)
        show(table)

    def _class(self, index: int) -> str:
        name = self.job.network.class_names[index]
        return f"{name} ({index}), confidence {self.probabilities[index].item():.1%}"

    def json(self) -> bytes:
        network, explanation, grad_cam = self.job.network, self.explanation, self.grad_cam
        selected, relevance = int(explanation.selected[0]), explanation.unit_relevance
        numbers = {
            "captum_advise": __version__,
            "image": self.shown,
            "model": network.name,
            "weights": network.weights,
            "layer": network.layer_name,
            "selection": self.job.selection,
            "activation_range": self.job.activation_range,
            "predicted": self._class_numbers(self.predicted),
            "target": self._class_numbers(self.target),
            "advise": {
                "selected": selected if selected >= 0 else None,
                "units": int(explanation.selected_units[0].sum()),
                "fallback": bool(explanation.fallback[0]),
                "metrics": _parts(explanation.metrics),
            },
            "grad_cam": {
                "units": int(grad_cam.selected_units[0].sum()),
                "metrics": _parts(grad_cam.metrics),
            },
            "groups": [
                {
                    "relevance": candidate.relevance,
                    "units": len(candidate.units),
                    "metrics": {} if candidate.metrics is None else candidate.metrics.to_dict(),
                }
                for candidate in explanation.candidates[0]
            ],
            "unit_relevance": None if relevance is None else relevance[0].tolist(),
            "selected_units": explanation.selected_units[0].nonzero()[:, 0].tolist(),
            "unit_weights": explanation.unit_weights[0].tolist(),
            "attributions": {
                "advise": explanation.attributions[0, 0].tolist(),
                "grad_cam": grad_cam.attributions[0, 0].tolist(),
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


def _parts(metrics: VisualExplainability | None) -> dict[str, Any]:
    return {} if metrics is None else dict(metrics[0].to_dict())


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
    if text == "explainability":
        return "explainability"
    if text == "confidence":
        return "confidence"
    if text == "faithfulness":
        return "faithfulness"
    if re.fullmatch(r"[0-9]+(,[0-9]+)*", text):
        return [int(relevance) for relevance in text.split(",")]
    raise ValueError(
        "--selection must be explainability, confidence, faithfulness, or relevances such "
        f"as 1 or 1,2, not {text!r}."
    )


def _activation_range(text: str) -> ActivationRange:
    if text == "unit":
        return "unit"
    if text == "minmax":
        return "minmax"
    raise ValueError(f"--activation-range must be unit or minmax, not {text!r}.")


def _output_names(sources: Sequence[_Source], folder: Path) -> list[str]:
    """A name per image. One that is taken, or would replace an input image, gets a number."""
    originals = {source.path.resolve() for source in sources if source.path is not None}
    taken: set[str] = set()
    names = []
    for source in sources:
        name, number = source.stem, 1
        while name.casefold() in taken or (folder / f"{name}.png").resolve() in originals:
            number += 1
            name = f"{source.stem}-{number}"
        taken.add(name.casefold())
        names.append(name)
    return names
