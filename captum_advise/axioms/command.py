"""``captum-advise axioms`` and ``captum-advise sanity``."""

from __future__ import annotations

import csv
import importlib
import io
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import torch
import typer
from captum.attr import LayerGradCam
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from captum_advise import axioms as library
from captum_advise import zoo
from captum_advise.axioms.method import Method
from captum_advise.files import write_whole
from captum_advise.layer_advise import LayerAdvise

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from captum_advise.axioms.sanity import LabelRandomization, MapMethod, ParameterRandomization

_EXAMPLES = 25
# Half way between what unrelated maps score and what the edge detector does.
_DEPENDS_BELOW = 0.5
_USER_ERRORS = (ValueError, TypeError, OSError, RuntimeError, ImportError)


def axioms(
    method: Annotated[
        str | None,
        typer.Argument(
            metavar="MODULE:NAME",
            help="A layer attribution, or a function (model, layer) that makes one. Without it, "
            "ADVISE and Captum's methods, as in the documentation.",
        ),
    ] = None,
    argument: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=JSON", help="Of its attribute method; may be repeated."),
    ] = None,
    axiom: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Only this axiom; may be repeated."),
    ] = None,
    spatial_dims: Annotated[str, typer.Option(help="Which inputs it takes.")] = "1,2,3",
    channels: Annotated[str, typer.Option(help="Which numbers of channels.")] = "1,2,3",
    examples: Annotated[int, typer.Option(min=1, help="Tried per axiom.")] = _EXAMPLES,
    markdown: Annotated[bool, typer.Option(help="Print the table as Markdown.")] = False,
) -> int:
    """Search for counterexamples to the axioms of attribution.

    The same examples every time. Ends with status 1 if the given method fails an axiom, or if a
    known one differs from what is known of it.
    """
    try:
        known = library.AXIOMS  # which names the extra where a package is missing
        unknown = set(axiom or ()) - set(known)
        if unknown:
            raise ValueError(
                f"There is no axiom {sorted(unknown)[0]!r}; they are {', '.join(known)}."
            )
        tried = [known[name] for name in axiom or known]
        if method is None:
            references = library.REFERENCES
        else:
            references = (
                library.Reference(
                    Method(
                        method,
                        _imported(method),
                        dict(_argument(text) for text in argument or ()),
                        _numbers(spatial_dims),
                        _numbers(channels),
                    ),
                    {},
                ),
            )
        found: dict[str, dict[str, bool]] = {}
        surprises = 0
        jobs = [(reference, one) for reference in references for one in tried]
        for reference, one in tqdm(jobs, desc="axioms", leave=False, disable=None):
            with _examples(examples):
                counterexample = library.violation(one, reference.method)
            holds = counterexample is None
            found.setdefault(reference.method.name, {})[one.name] = holds
            if holds == (one.name in reference.does_not_hold):
                surprises += 1
                typer.echo(
                    f"{one.name}: {counterexample or 'no counterexample, though one is known'}\n",
                    err=True,
                )
    except _USER_ERRORS as error:
        return _failed(error)
    if markdown:
        from captum_advise.axioms.reference import markdown_table

        typer.echo(markdown_table(found))
    else:
        table = Table("axiom", *found)
        for one in tried:
            table.add_row(
                one.name, *("yes" if column[one.name] else "no" for column in found.values())
            )
        Console().print(table)
        if method is None:
            return 1 if surprises else 0
        typer.echo(f"{method} fulfils {len(tried) - surprises} of {len(tried)} axioms.")
    return 1 if surprises else 0


def sanity(
    image: Annotated[
        Path | None,
        typer.Argument(metavar="IMAGE", help="A picture. Without it, a cat from scikit-image."),
    ] = None,
    model: Annotated[
        str,
        typer.Option(
            help="Network: a name of the zoo, torchvision/NAME or timm/NAME.",
            autocompletion=lambda: list(zoo.names()),
        ),
    ] = "efficientnet-lite0",
    layer: Annotated[
        str | None, typer.Option(help="Dotted module name; by default the paper's layer.")
    ] = None,
    weights: Annotated[
        str, typer.Option(help='"default", "random", or a state-dict file.')
    ] = "default",
    target: Annotated[
        str | None, typer.Option(help="Class to explain, by default the predicted one.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Random networks per step.")] = 1,
    labels: Annotated[
        bool, typer.Option(help="Compare networks trained on true and on shuffled digits as well.")
    ] = True,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FOLDER", help="For the results.")
    ] = Path("sanity-output"),
) -> int:
    """Do maps depend on what the network has learnt? ADVISE and Grad-CAM beside an edge detector.

    Randomises the network's parameters from the top to the bottom, block by block, and compares
    the maps with those of the network as it was (Adebayo et al. 2018). Writes sanity_curves.png,
    sanity_maps.png and sanity.csv.
    """
    try:
        from captum_advise.axioms import figures
        from captum_advise.axioms.sanity import (
            edge_detector,
            randomize_labels,
            randomize_parameters,
        )

        network = zoo.load(model, layer=layer, weights=weights)
        network.check_layout()
        picture = _chelsea() if image is None else zoo.open_picture(image)
        inputs = network.transform(picture).unsqueeze(0)
        with torch.no_grad():
            predicted = int(network.model(inputs).argmax())
        explained = predicted if target is None else network.class_index(target)
        methods: dict[str, MapMethod] = {
            "ADVISE": Method(
                "ADVISE",
                lambda model, layer: LayerAdvise(model, layer, pixel_space=network.pixel_space),
            ),
            "Grad-CAM": Method("Grad-CAM", LayerGradCam),
            "edge detector": edge_detector,
        }
        output.mkdir(parents=True, exist_ok=True)
        results = [
            randomize_parameters(
                methods,
                network.model,
                network.layer_name,
                inputs,
                torch.tensor([explained]),
                mode=mode,
                seed=seed,
                progress=lambda steps: tqdm(steps, desc="blocks", leave=False, disable=None),
            )
            for mode in ("cascading", "independent")
            for seed in range(seeds)
        ]
        pixels = network.pixel_space.to_pixels(inputs)[0].clamp(0, 1)
        curves, maps = output / "sanity_curves.png", output / "sanity_maps.png"
        write_whole(curves, _png(figures.curves(results)))
        write_whole(maps, _png(figures.maps(pixels, results[0])))
        write_whole(output / "sanity.csv", _csv(results))
        shuffled = None
        if labels:
            digits: dict[str, MapMethod] = {**methods, "ADVISE": Method("ADVISE", LayerAdvise)}
            shuffled = randomize_labels(digits)
    except _USER_ERRORS as error:
        return _failed(error)
    typer.echo(f"{network.name}, {network.layer_name}: {network.class_names[explained]}")
    _show(list(methods), results, shuffled)
    for path in (curves, maps, output / "sanity.csv"):
        typer.echo(f"  {path}")
    return 0


def _show(
    methods: Sequence[str],
    results: Sequence[ParameterRandomization],
    shuffled: LabelRandomization | None,
) -> None:
    console = Console()
    table = Table("rank correlation with the original map", *methods)

    def row(label: str, values: Sequence[float]) -> None:
        table.add_row(label, *(f"{value:.2f}" for value in values))

    final: dict[str, float] = {}
    for kind in ("absolute", "signed"):
        name = f"spearman_{kind}"
        for mode in ("cascading", "independent"):
            runs = [result for result in results if result.mode == mode]
            steps = {
                method: [[step.to_dict()[name] for step in run.similarity[method]] for run in runs]
                for method in methods
            }
            ends = [_mean([run[-1] for run in steps[m]]) for m in methods]
            if mode == "cascading":
                row(
                    f"{kind}: the top block random",
                    [_mean([r[0] for r in steps[m]]) for m in methods],
                )
                row(f"{kind}: every block random", ends)
                if kind == "absolute":
                    final = dict(zip(methods, ends, strict=True))
            row(
                f"{kind}: mean over {mode} steps",
                [_mean([value for run in steps[m] for value in run]) for m in methods],
            )
    if shuffled is not None:
        for label, found in (
            ("digits: shuffled against true labels", shuffled.similarity),
            ("digits: true against true labels", shuffled.control),
        ):
            row(label, [found[m].to_dict()["spearman_absolute"] for m in methods])
    console.print(table)
    for method, value in final.items():
        depends = abs(value) < _DEPENDS_BELOW
        verdict = "depends on the parameters" if depends else "does NOT depend on the parameters"
        typer.echo(f"{method} {verdict}: {value:.2f} when all are random.")
    if shuffled is not None:
        typer.echo(
            f"Digits known by heart: {shuffled.accuracy:.1%} of true labels, "
            f"{shuffled.shuffled_accuracy:.1%} of shuffled ones."
        )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _png(figure: Figure) -> bytes:
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=110)
    return content.getvalue()


def _csv(results: Sequence[ParameterRandomization]) -> bytes:
    seen: dict[str, int] = {}
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(["mode", "seed", "step", "block", "method", "measure", "similarity"])
    for result in results:
        seed = seen[result.mode] = seen.get(result.mode, -1) + 1
        for method, similarity in result.similarity.items():
            for step, (block, found) in enumerate(
                zip(result.steps, similarity, strict=True), start=1
            ):
                for measure, value in found.to_dict().items():
                    writer.writerow([result.mode, seed, step, block, method, measure, value])
    return text.getvalue().encode()


def _chelsea() -> Any:
    from PIL import Image
    from skimage import data

    return Image.fromarray(data.chelsea())  # type: ignore[no-untyped-call, unused-ignore]


@contextmanager
def _examples(number: int) -> Iterator[None]:
    """The same number of examples, and the same examples, whatever profile is in force."""
    import hypothesis

    before = hypothesis.settings.get_current_profile_name()
    hypothesis.settings.register_profile(
        "captum-advise", derandomize=True, max_examples=number, deadline=None
    )
    hypothesis.settings.load_profile("captum-advise")
    try:
        yield
    finally:
        hypothesis.settings.load_profile(before)


def _imported(text: str) -> Any:
    module, _, name = text.partition(":")
    if not name:
        raise ValueError(
            f"{text!r} does not name a method: give MODULE:NAME, as in captum.attr:LayerGradCam."
        )
    try:
        return getattr(importlib.import_module(module), name)
    except AttributeError as error:
        raise ValueError(f"The module {module} has no {name}.") from error


def _argument(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"--argument takes NAME=JSON, as in n_steps=8, got {text!r}.")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value  # a bare word is text


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise ValueError(f"Give numbers separated by commas, as in 1,2, got {text!r}.") from None


def _failed(error: BaseException) -> int:
    lines = str(error).strip().splitlines()
    typer.echo(f"error: {lines[0] if lines else type(error).__name__}", err=True)
    return 2
