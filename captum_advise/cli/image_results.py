"""What ``captum-advise explain`` writes, under which names, and prints."""

from __future__ import annotations

import html
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from captum_advise import visualization
from captum_advise._version import __version__
from captum_advise.cli.console import show
from captum_advise.cli.image_sources import Source
from captum_advise.visualization.html import filled, template
from captum_advise.visualization.methods import n_units

if TYPE_CHECKING:
    from captum_advise import Explanation
    from captum_advise.metrics import VisualExplainability

COLUMNS = ("image", "class", "confidence", "AVX", "selected")

_TOP = 5  # classes

# How files of ours begin, within so many bytes.
_MARKS = {
    ".png": b"Software\0captum-advise",
    ".json": b'{\n  "captum_advise": ',
    ".html": b'<meta name="generator" content="captum-advise ',
}
_BEGINNING = 4096

_INDEX = "index"


def output_names(sources: Sequence[Source], folder: Path, endings: Sequence[str]) -> list[str]:
    """A name per image: its own, with a number where another or a user's file has it."""
    originals = {source.path.resolve() for source in sources if source.path is not None}
    # On some systems, names in capitals are the same.
    taken = {_INDEX}
    names = []
    for source in sources:
        for name in _numbered(source.stem):
            paths = [folder / f"{name}{ending}" for ending in endings]
            is_free = name.casefold() not in taken and all(map(_may_be_replaced, paths))
            if is_free and originals.isdisjoint(path.resolve() for path in paths):
                break
        taken.add(name.casefold())
        names.append(name)
    return names


def index_name(folder: Path) -> str:
    """The name of the page that lists the results."""
    names = (f"{name}.html" for name in _numbered(_INDEX))
    return next(name for name in names if _may_be_replaced(folder / name))


def _numbered(name: str) -> Iterator[str]:
    yield name
    for number in count(2):
        yield f"{name}-{number}"


def _may_be_replaced(path: Path) -> bool:
    """Whether there is no such file, or one of ours."""
    if not path.is_file():
        return not path.exists()
    # What may not be read is not ours.
    with suppress(OSError), path.open("rb") as file:
        return _MARKS[path.suffix] in file.read(_BEGINNING)
    return False


@dataclass(frozen=True)
class ImageResult:
    """The explanation of one image."""

    shown: str  # in messages and results
    explanation: Explanation  # of one example, with setup and confidences
    how: Mapping[str, Any]  # it was made

    def content(self, ending: str) -> bytes:
        """Of the file with this ending: ``.png``, ``.json`` or ``.html``."""
        if ending == ".json":
            return self.json.encode()
        if ending == ".html":
            return visualization.page(self.explanation, names=[self.shown]).encode()
        from captum_advise.visualization.style import to_png

        return to_png(visualization.panel(self.explanation)[0])

    def row(self) -> tuple[str, ...]:
        """The image in a line of a table, as in :data:`COLUMNS`."""
        avx = _values(self.explanation.metrics).get("avx")
        return (
            self.shown,
            self._target["name"],
            f"{self._target['confidence']:.1%}",
            "-" if avx is None else f"{avx:.3f}",
            self.explanation.describe_selection(),
        )

    def show(self) -> None:
        """Print the prediction and what was found."""
        best, *others = self._top
        show(f"{self.shown}: {_class(best)}")
        for other in others:
            show(f"  {other['confidence']:6.1%}  {other['name']} ({other['index']})")
        if self._target["index"] != best["index"]:
            show(f"  explained: {_class(self._target)}")
        setup = self.explanation.setup
        assert setup is not None
        if setup.gated_layers:
            show(f"  GatedGradCam: from {', '.join(setup.gated_layers)}")
        units = self.explanation.selected_units[0]
        avx = _values(self.explanation.metrics).get("avx")
        show(
            f"  LayerAdvise: {self.explanation.describe_selection()}, {int(units.sum())} of "
            f"{len(units)} units" + (f", AVX {avx:.3f}" if avx is not None else "")
        )

    @cached_property
    def json(self) -> str:
        """All numbers, a field per line, with five significant digits."""
        lines = (
            f"  {json.dumps(key)}: {json.dumps(_rounded(value), allow_nan=False)}"
            for key, value in self._numbers().items()
        )
        return "{\n" + ",\n".join(lines) + "\n}\n"

    def _numbers(self) -> dict[str, Any]:
        explanation = self.explanation
        assert explanation.setup is not None
        setup = asdict(explanation.setup)
        del setup["class_names"]
        selected, relevance = int(explanation.selected[0]), explanation.unit_relevance
        return {
            # By its first field, a file is known to be ours.
            "captum_advise": __version__,
            "image": self.shown,
            "setup": setup,
            "selection": self.how["unit_selection"],
            "activation_range": self.how["activation_range"],
            "predicted": self._top[0],
            "target": self._target,
            "top": self._top,
            "selected": selected if selected >= 0 else None,
            "fallback": bool(explanation.fallback[0]),
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
            "maps": {method: self._map_numbers(method) for method in explanation.maps},
        }

    def _map_numbers(self, method: str) -> dict[str, Any]:
        values = self.explanation.maps[method][0].sum(0)
        metrics = self.explanation.map_metrics.get(method)
        return {
            "size": list(values.shape),
            "units": n_units(self.explanation, method, 0),
            "metrics": _values(metrics),
            "values": values.tolist(),
        }

    @cached_property
    def _top(self) -> list[dict[str, Any]]:
        """The most probable classes."""
        confidences = self.explanation.confidences
        assert confidences is not None
        best = confidences[0].argsort(descending=True, stable=True)[:_TOP]
        return [self._numbers_of_class(index) for index in best.tolist()]

    @cached_property
    def _target(self) -> dict[str, Any]:
        assert self.explanation.target is not None
        return self._numbers_of_class(int(self.explanation.target[0]))

    def _numbers_of_class(self, index: int) -> dict[str, Any]:
        setup, confidences = self.explanation.setup, self.explanation.confidences
        assert setup is not None
        assert confidences is not None
        name, confidence = setup.class_names[index], confidences[0, index].item()
        return {"index": index, "name": name, "confidence": confidence}


def _class(numbers: Mapping[str, Any]) -> str:
    return f"{numbers['name']} ({numbers['index']}), confidence {numbers['confidence']:.1%}"


def _values(metrics: VisualExplainability | None) -> dict[str, Any]:
    """The metrics of one image by their names; those that do not apply are None."""
    if metrics is None:
        return {}
    values = {
        field.name: getattr(metrics, field.name).reshape(()).item() for field in fields(metrics)
    }
    return {key: None if math.isnan(value) else value for key, value in values.items()}


def _rounded(value: Any) -> Any:
    """The same with five significant digits, and null for the numbers that JSON does not have."""
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.5g}") if math.isfinite(value) else None
    return value


def index_page(
    setup: str,
    header: Sequence[str],
    rows: Mapping[str, Sequence[str]],
    failures: Sequence[str],
    *,
    with_pages: bool,
) -> str:
    """A page with what failed, a table of all images, and their panels.

    Args:
        setup: What was done, in a sentence.
        header: Column titles; the first column is the image.
        rows: By the name of an image's results, the cells of its row.
        failures: Why images could not be explained.
        with_pages: Whether there is a NAME.html beside each NAME.png and NAME.json.
    """
    lines, figures = [], []
    for number, (name, (image, *cells)) in enumerate(rows.items(), 1):
        # Names may have bytes that are not text.
        anchor, file, shown = f"image-{number}", quote(os.fsencode(name)), html.escape(image)
        page = f'<a href="{file}.html">page</a>, ' if with_pages else ""
        texts = "".join(f"<td>{html.escape(cell)}</td>" for cell in cells)
        lines.append(f'<tr><td><a href="#{anchor}">{shown}</a></td>{texts}</tr>')
        figures.append(
            f'<figure id="{anchor}"><figcaption>{shown} ({page}<a href="{file}.json">all numbers'
            f'</a>)</figcaption><a href="{file}.png"><img src="{file}.png" loading="lazy" '
            'alt="Image, maps, and the groups of units"></a></figure>'
        )
    failed = "".join(f"<li>{html.escape(text)}</li>" for text in failures)
    title = f"{len(failures)} image{'s' * (len(failures) > 1)} not explained"
    parts = {
        "setup": html.escape(setup),
        "failures": f'<div class="failures"><h2>{title}</h2><ul>{failed}</ul></div>' * bool(failed),
        "heads": "".join(f"<th>{html.escape(cell)}</th>" for cell in header),
        "rows": "\n".join(lines),
        "figures": "\n".join(figures),
    }
    return filled(template("captum_advise.cli", "index_template"), parts)
