"""What ``captum-advise explain`` writes, under which names, and prints."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from captum_advise import visualization
from captum_advise._version import __version__
from captum_advise.cli.console import show
from captum_advise.cli.image_sources import Source
from captum_advise.visualization.html import finite
from captum_advise.visualization.methods import n_units

if TYPE_CHECKING:
    from captum_advise import Explanation
    from captum_advise.metrics import VisualExplainability

_TOP = 5  # classes

# How files of ours begin, within so many bytes.
_MARKS = {
    ".png": b"Software\0captum-advise",
    ".json": b'{"captum_advise": ',
    ".html": b'<meta name="generator" content="captum-advise ',
}
_BEGINNING = 4096


def output_names(sources: Sequence[Source], folder: Path, endings: Sequence[str]) -> list[str]:
    """A name per image: its own, with a number where another or a user's file has it."""
    originals = {source.path.resolve() for source in sources if source.path is not None}
    names: list[str] = []
    for source in sources:
        # On some systems, names in capitals are the same.
        taken = {name.casefold() for name in names}
        for number in count(1):
            name = source.stem if number == 1 else f"{source.stem}-{number}"
            paths = [folder / f"{name}{ending}" for ending in endings]
            is_free = name.casefold() not in taken and all(map(_may_be_replaced, paths))
            if is_free and originals.isdisjoint(path.resolve() for path in paths):
                names.append(name)
                break
    return names


def _may_be_replaced(path: Path) -> bool:
    """Whether there is no such file, or one of ours."""
    if not path.is_file():
        return not path.exists()
    # What may not be read is not ours.
    with suppress(OSError), path.open("rb") as file:
        return _MARKS[path.suffix] in file.read(_BEGINNING)
    return False


def numbers_of(explanation: Explanation, shown: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """All numbers of the explanation of one image, as in its JSON file.

    Args:
        explanation: Of one example, with setup and confidences.
        shown: The image, in messages and results.
        options: Of :func:`captum_advise.explain`.
    """
    setup, confidences, target = explanation.setup, explanation.confidences, explanation.target
    assert setup is not None
    assert confidences is not None
    assert target is not None
    names, of_classes = setup.class_names, confidences[0]
    best = of_classes.argsort(descending=True, stable=True)[:_TOP].tolist()
    of_target, *top = (
        {"index": index, "name": names[index], "confidence": of_classes[index].item()}
        for index in (int(target[0]), *best)
    )
    selected, relevance = int(explanation.selected[0]), explanation.unit_relevance
    return {
        # By its first field, a file is known to be ours.
        "captum_advise": __version__,
        "image": shown,
        "setup": {key: part for key, part in asdict(setup).items() if key != "class_names"},
        "selection": options["unit_selection"],
        "predicted": top[0],
        "target": of_target,
        "top": top,
        "selected": selected if selected >= 0 else None,
        "fallback": bool(explanation.fallback[0]),
        "unexplained": bool(explanation.unexplained[0]),
        "selected_units": explanation.selected_units[0].nonzero()[:, 0].tolist(),
        "unit_relevance": None if relevance is None else relevance[0].tolist(),
        "groups": [
            {
                "relevance": candidate.relevance,
                "units": len(candidate.units),
                "metrics": _values(candidate.metrics),
            }
            for candidate in explanation.candidates[0]
        ],
        "maps": {
            method: {
                "size": list(maps.shape[2:]),
                "units": n_units(explanation, method, 0),
                "metrics": _values(explanation.map_metrics.get(method)),
                "values": maps[0].sum(0).tolist(),
            }
            for method, maps in explanation.maps.items()
        },
    }


def _values(metrics: VisualExplainability | None) -> Any:
    """The metrics of one image by their names; those that do not apply are None."""
    return finite({name: value.item() for name, value in vars(metrics).items()} if metrics else {})


def content_of(ending: str, explanation: Explanation, numbers: Mapping[str, Any]) -> str | bytes:
    """Of an image's file with this ending: ``.png``, ``.json`` or ``.html``."""
    if ending == ".html":
        return visualization.page(explanation, names=[numbers["image"]])
    if ending == ".json":
        return json.dumps(finite(numbers, digits=5)) + "\n"
    from captum_advise.visualization.style import to_png

    return to_png(visualization.panel(explanation)[0])


def show_line(explanation: Explanation, numbers: Mapping[str, Any]) -> None:
    """Print the class that is explained, and what was found, in a line."""
    show(f"{numbers['image']}: {_class(numbers['target'])}; {explanation.describe_units()}")


def show_result(explanation: Explanation, numbers: Mapping[str, Any], *, verbose: bool) -> None:
    """Print the prediction and what was found; ``verbose`` adds the setup, groups and metrics."""
    best, *others = numbers["top"]
    show(f"{numbers['image']}: {_class(best)}")
    for other in others:
        show(f"  {other['confidence']:6.1%}  {other['name']} ({other['index']})")
    if numbers["target"]["index"] != best["index"]:
        show(f"  explained: {_class(numbers['target'])}")
    if layers := numbers["setup"]["gated_layers"]:
        show(f"  GatedGradCam: from {', '.join(layers)}")
    show(f"  LayerAdvise: {explanation.describe_units()}")
    if verbose:
        show(f"  setup: {explanation.setup}")
        for candidate in explanation.candidates[0]:
            show(f"  {candidate.describe()}")
        for name, value in numbers["maps"]["layer-advise"]["metrics"].items():
            show(f"  {name.replace('_', ' ')}: {value if value is None else f'{value:.3f}'}")


def _class(numbers: Mapping[str, Any]) -> str:
    return f"{numbers['name']} ({numbers['index']}), confidence {numbers['confidence']:.1%}"
