"""The command line: ``captum-advise`` and ``python -m captum_advise``."""

from __future__ import annotations

import io
import json
import math
import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import torch
from torch import Tensor

from captum_advise import visualization, zoo
from captum_advise._version import __version__
from captum_advise.explanation import Explanation
from captum_advise.files import write_whole
from captum_advise.layer_advise import LayerAdvise, UnitSelection
from captum_advise.metrics import VisualExplainability
from captum_advise.relevance import ActivationRange

try:
    import typer
    from rich.console import Console
    from rich.table import Table
    from tqdm import tqdm
except ModuleNotFoundError as error:
    # Not an exception: whoever types the command should not see a traceback.
    raise SystemExit(
        f"error: The command line needs the package {error.name}: "
        'pip install "captum-advise[demo]".'
    ) from error

from captum_advise.axioms.command import axioms, sanity
from captum_advise.evaluation.command import evaluate

if TYPE_CHECKING:
    from PIL import Image

# What bad input raises. Anything else is a bug and ends in a traceback.
_USER_ERRORS = (ValueError, OSError, RuntimeError, ImportError)

app = typer.Typer(
    name="captum-advise",
    help="ADVISE: see which part of a picture a network based its prediction on.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: As typed after the program's name; those of the process if None.

    Returns:
        Exit status: 0 when all went well, 1 when a picture could not be explained, 2 when
        nothing could be started.
    """
    for stream in (sys.stdout, sys.stderr):
        # A file name may hold letters that the terminal cannot show.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    with _warnings_in_one_line():
        try:
            status = app(arguments, prog_name="captum-advise", standalone_mode=False)
        except typer.Abort:
            return 130
        except Exception as error:
            # The base class of usage errors moved when typer stopped depending on click.
            if hasattr(error, "format_message"):
                _complain(error.format_message())
                return 2
            raise
    return status or 0


@app.callback(
    invoke_without_command=True,
    # \b keeps the lines as they are.
    epilog="""\b
Examples:
  captum-advise explain dog.jpg
  captum-advise evaluate --data photos --output report
  captum-advise explain --help
  captum-advise --install-completion
""",
)
def _options(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    if version:
        typer.echo(f"captum-advise {__version__}")
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command(
    epilog="""\b
Examples:
  captum-advise explain
  captum-advise explain dog.jpg cat.png --output results
  captum-advise explain dog.jpg --target "golden retriever"
  captum-advise explain dog.jpg --model resnet50 --weights resnet50.pth
  captum-advise explain dog.jpg --model timm/resnet18 --layer layer3 --selection 1,2
"""
)
def explain(
    images: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="IMAGE", help="Picture files. Without one, a cat from scikit-image."
        ),
    ] = None,
    model: Annotated[
        str,
        typer.Option(
            help=f"The network: {', '.join(zoo.names())}, torchvision/NAME or timm/NAME.",
            autocompletion=lambda: list(zoo.names()),
        ),
    ] = "efficientnet-lite0",
    layer: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The layer, by its dotted module name.",
            show_default="the network's own",
        ),
    ] = None,
    weights: Annotated[
        str,
        typer.Option(
            metavar="[default|random|PATH]",
            help="Pretrained weights, none, or a state-dict file (.pth, .pt, .safetensors).",
        ),
    ] = "default",
    target: Annotated[
        str | None,
        typer.Option(
            metavar="CLASS",
            help="The class to explain: its index, its name, or the beginning of its name.",
            show_default="the predicted class",
        ),
    ] = None,
    selection: Annotated[
        str,
        typer.Option(
            metavar="[explainability|confidence|faithfulness|SCORES]",
            help="Which units make the map: the group with the highest AVX, the group with the "
            "smallest average drop, the set that gains most over Grad-CAM in AVX, insertion and "
            "deletion, or those with the given relevance scores, as in 1 or 1,2.",
        ),
    ] = "explainability",
    activation_range: Annotated[
        str,
        typer.Option(
            metavar="[unit|minmax]",
            help="Score units on those activations that lie in [0, 1], or stretch each unit's "
            "activations to [0, 1] first.",
        ),
    ] = "unit",
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FOLDER", help="For the results.")
    ] = Path("advise-output"),
    device: Annotated[
        str, typer.Option(metavar="DEVICE", help="cpu, cuda, cuda:1, mps, ...")
    ] = "cpu",
) -> int:
    """Explain pictures with ADVISE, beside Grad-CAM.

    Prints, per picture, the prediction, the units that ADVISE kept, and how well the two maps
    explain the prediction (AVX and its parts). Writes a panel, NAME.png, and all numbers,
    NAME.json, to the output folder.
    """
    sources = [_Source(str(path), path.stem, path) for path in images or ()]
    try:
        job = _Job.prepare(
            model=model,
            layer=layer,
            weights=weights,
            target=target,
            selection=selection,
            activation_range=activation_range,
            device=device,
        )
        _make(output)
    except _USER_ERRORS as error:
        _complain(_sentence(error))
        return 2
    if not sources:
        sources = [_Source("chelsea (from scikit-image)", "chelsea", None)]
    names = _output_names(sources, output)
    console = Console()
    failures = 0
    # None: a bar only on a terminal.
    for source, name in tqdm(
        list(zip(sources, names, strict=True)),
        desc="pictures",
        leave=False,
        disable=None if len(sources) > 1 else True,
    ):
        try:
            result = job.explain(source)
            panel, numbers = output / f"{name}.png", output / f"{name}.json"
            write_whole(panel, result.png())
            write_whole(numbers, result.json())
        except _USER_ERRORS as error:
            failures += 1
            text = _sentence(error)
            _complain(text if source.shown in text else f"{source.shown}: {text}")
            continue
        with tqdm.external_write_mode(file=sys.stdout):
            result.show(console)
            for written in (panel, numbers):
                console.print(f"  {written}", markup=False, highlight=False, soft_wrap=True)
    if failures and len(sources) > 1:
        _complain(f"{failures} of {len(sources)} pictures could not be explained.")
    return 1 if failures else 0


app.command(
    epilog="""\b
Examples:
  captum-advise evaluate --data photos --output report
  captum-advise evaluate --data imagenet/val --model resnet50 --output report \\
    --methods advise,grad-cam,layer-cam,random
  torchrun --nproc-per-node 4 -m captum_advise evaluate --data photos --output report
"""
)(evaluate)

app.command(
    epilog="""\b
Examples:
  captum-advise sanity
  captum-advise sanity dog.jpg --model resnet50 --seeds 3 --output checks
"""
)(sanity)

app.command(
    epilog="""\b
Examples:
  captum-advise axioms captum.attr:LayerGradCam
  captum-advise axioms captum_advise:LayerAdvise --argument unit_selection=1 \\
    --argument activation_range=minmax --axiom rescaled_units
  captum-advise axioms --markdown
"""
)(axioms)


@dataclass(frozen=True)
class _Source:
    """Where a picture comes from; without a path, from scikit-image."""

    shown: str
    stem: str
    path: Path | None

    def open(self) -> Image.Image:
        if self.path is not None:
            return zoo.open_picture(self.path)
        from PIL import Image
        from skimage import data

        return Image.fromarray(data.chelsea())  # type: ignore[no-untyped-call, unused-ignore]


@dataclass(frozen=True)
class _Job:
    """What is the same for every picture of a run."""

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
        # What is quick to check comes first.
        units, values = _selection(selection), _activation_range(activation_range)
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
        grad_cam = advise.explain(
            inputs,
            target,
            unit_selection=None,
            # Every unit counts, whatever its relevance: the cheapest estimate will do.
            n_bandwidths=2,
        )
        return _Result(
            job=self,
            shown=source.shown,
            picture=network.pixel_space.to_pixels(inputs)[0],
            probabilities=probabilities,
            predicted=predicted,
            target=target,
            explanation=explanation,
            grad_cam=grad_cam,
        )


@dataclass(frozen=True)
class _Result:
    """One explained picture."""

    job: _Job
    shown: str
    picture: Tensor
    probabilities: Tensor
    predicted: int
    target: int
    explanation: Explanation
    grad_cam: Explanation

    def png(self) -> bytes:
        figure, _ = visualization.panel(
            self.picture,
            self.explanation,
            self.grad_cam,
            class_name=self.job.network.class_names[self.target],
        )
        content = io.BytesIO()
        figure.savefig(content, format="png", dpi=150)
        return content.getvalue()

    def show(self, console: Console) -> None:
        def line(text: str) -> None:
            console.print(text, markup=False, highlight=False, soft_wrap=True)

        line(f"{self.shown}: {self._class(self.predicted)}")
        if self.target != self.predicted:
            line(f"  explained: {self._class(self.target)}")
        units = self.explanation.selected_units[0]
        kept = self.explanation.kept_in_words()
        line(f"  {kept}: {int(units.sum())} of {len(units)} units")
        table = Table("", "ADVISE", "Grad-CAM", "better")
        advise, grad_cam = _parts(self.explanation.scores), _parts(self.grad_cam.scores)
        for part, (label, better) in _LABELS.items():
            table.add_row(label, _cell(advise.get(part)), _cell(grad_cam.get(part)), better)
        console.print(table)

    def _class(self, index: int) -> str:
        name = self.job.network.class_names[index]
        return f"{name} ({index}), confidence {self.probabilities[index].item():.1%}"

    def json(self) -> bytes:
        network, explanation, grad_cam = self.job.network, self.explanation, self.grad_cam
        selected = int(explanation.selected[0])
        numbers = {
            "captum_advise": __version__,
            "picture": self.shown,
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
                "scores": _parts(explanation.scores),
            },
            "grad_cam": {
                "units": int(grad_cam.selected_units[0].sum()),
                "scores": _parts(grad_cam.scores),
            },
            "groups": [
                {
                    "relevance": candidate.relevance,
                    "units": len(candidate.units),
                    "scores": {} if candidate.scores is None else candidate.scores.to_dict(),
                }
                for candidate in explanation.candidates[0]
            ],
            "unit_relevance": explanation.unit_relevance[0].tolist(),
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
}


def _parts(scores: VisualExplainability | None) -> dict[str, Any]:
    return {} if scores is None else dict(scores[0].to_dict())


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
        return [int(score) for score in text.split(",")]
    raise ValueError(
        "--selection must be explainability, confidence, faithfulness, or relevance scores such "
        f"as 1 or 1,2, not {text!r}."
    )


def _activation_range(text: str) -> ActivationRange:
    if text == "unit":
        return "unit"
    if text == "minmax":
        return "minmax"
    raise ValueError(f"--activation-range must be unit or minmax, not {text!r}.")


def _output_names(sources: Sequence[_Source], folder: Path) -> list[str]:
    """A name per picture; those that are alike, or would replace a picture, get a number."""
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


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(f"The output folder {folder} cannot be made: {error.strerror}.") from error


def _complain(text: str) -> None:
    with tqdm.external_write_mode(file=sys.stderr):
        typer.echo(f"error: {text}", err=True)


def _sentence(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


@contextmanager
def _warnings_in_one_line() -> Iterator[None]:
    def show(message: Warning | str, *_where: object) -> None:
        with tqdm.external_write_mode(file=sys.stderr):
            typer.echo(f"warning: {' '.join(str(message).split())}", err=True)

    with warnings.catch_warnings():
        warnings.showwarning = show  # type: ignore[assignment]
        yield
