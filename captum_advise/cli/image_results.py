"""What ``captum-advise explain`` writes, under which names, and prints."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from captum_advise import visualization
from captum_advise._version import __version__
from captum_advise.cli.console import show
from captum_advise.cli.image_sources import Source

if TYPE_CHECKING:
    from captum_advise import Explanation

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
    taken: set[str] = set()
    for source in sources:
        for number in count(1):
            name = source.stem if number == 1 else f"{source.stem}-{number}"
            paths = [folder / f"{name}{ending}" for ending in endings]
            # On some systems, names in capitals are the same.
            is_free = name.casefold() not in taken and all(map(_may_be_replaced, paths))
            if is_free and originals.isdisjoint(path.resolve() for path in paths):
                names.append(name)
                taken.add(name.casefold())
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


def content_of(ending: str, explanation: Explanation, shown: str) -> str | bytes:
    """Of an image's file with this ending: ``.png``, ``.json`` or ``.html``."""
    if ending == ".html":
        return visualization.page(explanation, names=[shown])
    if ending == ".json":
        record = replace(explanation, images=None, units=None).to_dict()
        # By its first field, a file is known to be ours.
        return as_json({"captum_advise": __version__, "image": shown, **record}) + "\n"
    from captum_advise.visualization.style import to_png

    return to_png(visualization.gallery(explanation)[0])


def as_json(content: Any) -> str:
    """JSON with five significant digits, and null for NaN and infinity, which JSON has not."""
    short = json.loads(
        json.dumps(content),
        parse_float=lambda number: float(f"{float(number):.5g}"),
        parse_constant=lambda _: None,
    )
    return json.dumps(short)


def show_result(
    explanation: Explanation, shown: str, *, verbose: bool, in_one_line: bool = False
) -> None:
    """Print the prediction and what was found; ``verbose`` adds the setup, groups and metrics."""
    from captum_advise.explanation import metrics_in_words, most_probable

    setup, confidences, target = explanation.setup, explanation.confidences, explanation.target
    assert setup is not None
    assert confidences is not None
    assert target is not None
    ordered = most_probable(confidences[0])
    shares, explained, classes = confidences[0].tolist(), int(target[0]), setup.class_names
    names = {index: f"class {index} ({classes[index]})" for index in (explained, *ordered)}
    units = f"LayerAdvise: {explanation.describe_units()}"
    if in_one_line:
        show(f"{shown}: {names[explained]}, confidence {shares[explained]:.1%}; {units}")
        return
    best, *others = ordered
    show(f"{shown}: {names[best]}, confidence {shares[best]:.1%}")
    for other in others:
        show(f"  {shares[other]:6.1%}  {names[other]}")
    if explained != best:
        show(f"  explained: {names[explained]}, confidence {shares[explained]:.1%}")
    if setup.gated_layers:
        show(f"  GatedGradCam: from {', '.join(setup.gated_layers)}")
    show(f"  {units}")
    if verbose:
        show(f"  setup: {setup}")
        for candidate in explanation.candidates[0]:
            show(f"  {candidate.describe()}")
        metrics = None if explanation.metrics is None else explanation.metrics[0]
        for name, text in metrics_in_words(metrics).items():
            show(f"  {name.replace('_', ' ')}: {text}")
