"""An explanation: the maps of some images, and how they came about."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from captum_advise._core.unit_choice import SEVERAL, Candidates
from captum_advise._utils.io import atomic_write
from captum_advise._utils.records import TensorRecord, mapped, pack, unpack
from captum_advise.metrics import VisualExplainability
from captum_advise.pixels import PixelSpace

__all__ = ["Candidate", "Explanation", "Setup", "Units"]

# The methods whose maps an explanation holds; GatedGradCam's comes first where there is one.
GATED_GRAD_CAM, LAYER_ADVISE, GRAD_CAM = "gated-grad-cam", "layer-advise", "grad-cam"

_FILE = "an explanation of captum-advise, version 4"
_MOST_SHOWN = 10  # examples, where an explanation is printed
_MOST_PROBABLE = 5  # classes, where their confidences are shown


@dataclass(frozen=True, eq=False, repr=False)
class Candidate(TensorRecord):
    r"""Units whose map could explain one example.

    Attributes:
        relevance: The relevance that the units share; None if they have several.
        units: int64 (U,) indices of the units, in order.
        metrics: The protocol's result for their map, without dimensions; None if not computed.
        attributions: (1, \*spatial) their map: the sum of their contributions, including its
            negative part.

    Example::

        >>> LayerAdvise(net, net.conv4).explain(images).candidates[0]
        (Candidate(relevance ...: ... units, AVX ...), ...)
    """

    relevance: int | None
    units: Tensor
    metrics: VisualExplainability | None
    attributions: Tensor

    def __repr__(self) -> str:
        return f"Candidate({self.describe()})"

    def describe(self) -> str:
        """Relevance, number of units and AVX in a few words."""
        which = "several relevances" if self.relevance is None else f"relevance {self.relevance}"
        count = f"{len(self.units)} unit{'s' * (len(self.units) != 1)}"
        return f"{which}: {count}{avx_in_words(self.metrics)}"


@dataclass(frozen=True, eq=False)
class Units(TensorRecord):
    r"""The units of a layer, C per example.

    Attributes:
        feature_maps: (N, C, \*spatial) their activations.
        contributions: (N, C, \*spatial) what each adds to the map of all units: its mean gradient
            times its activations.
        densities: float64 (N, C, P) the density of each unit's P activations, on P equally spaced
            points of [0, 1]; NaN where it is undefined.
        ranges: (N, C, 2) the activations that 0 and 1 of the densities stand for.

    Example::

        >>> units = LayerAdvise(net, net.conv4).explain(images, keep_units=True).units
        >>> units.feature_maps.shape, units.densities.shape
        (torch.Size([2, 50, 8, 8]), torch.Size([2, 50, 64]))
    """

    feature_maps: Tensor
    contributions: Tensor
    densities: Tensor
    ranges: Tensor


@dataclass(frozen=True)
class Setup:
    """What :func:`captum_advise.explain` found out about a model, or was given.

    Attributes:
        model: The network's name, or the package and class of the model.
        layout: Of the layer's tensor, in words.
        input_size: Height and width of the model's inputs.
        transform: Where the transform from images to inputs comes from.
        weights: As in :class:`captum_advise.zoo.Network`.
        layer: Dotted name of the layer.
        gated_layers: Dotted names of the layers of :class:`captum_advise.GatedGradCam`.
        pixel_space: How the inputs relate to images in [0, 1].
        class_names: K names, in the order of the logits.
        device: Where the model ran.

    Example::

        >>> explanation = explain("cat.jpg", "efficientnet-lite0")
        >>> print(explanation.setup)
        efficientnet-lite0 on cpu, layer bn2 (N x C x H x W), GatedGradCam at blocks.5.0.bn1 +
        blocks.6 + bn2, 1000 classes; inputs of 224 x 224 by the transform of the TensorFlow
        original, mean (0.498, 0.498, 0.498), std (0.502, 0.502, 0.502).
    """

    model: str
    weights: str
    layer: str
    layout: str
    gated_layers: tuple[str, ...]
    input_size: tuple[int, int]
    transform: str
    pixel_space: PixelSpace
    class_names: tuple[str, ...]
    device: str

    def __str__(self) -> str:
        height, width = self.input_size
        mean, std = (
            ", ".join(f"{value:.3g}" for value in values)
            for values in (self.pixel_space.mean, self.pixel_space.std)
        )
        gated = f"GatedGradCam at {' + '.join(self.gated_layers)}, " if self.gated_layers else ""
        return (
            f"{self.model} on {self.device}, layer {self.layer} ({self.layout}), {gated}"
            f"{len(self.class_names)} classes; inputs of {height} x {width} by {self.transform}, "
            f"mean ({mean}), std ({std})."
        )


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Explanation(TensorRecord):
    r"""The maps of N examples, and how they came about. All tensors are detached.

    Attributes:
        maps: By the method's name, (N, 1, h, w) or of other spatial dimensions, of the size of the
            layer or of the image. The recommended one comes first: ``"gated-grad-cam"`` (from
            :func:`captum_advise.explain`, where the network has layers for it),
            ``"layer-advise"``, ``"grad-cam"``.
        map_metrics: By the method's name, the protocol's result for its map, where it was computed.
        attributions: (N, 1, \*spatial) the map of ``"layer-advise"``, with its negative part: what
            :meth:`LayerAdvise.attribute` returns. The attributes that follow are about it.
        target: int64 (N,) class that is explained ((N, D) for outputs with D dimensions after the
            batch); None for a forward function with a single output per example.
        confidence: (N,) confidence in the target; None when the outputs are not class scores.
        confidences: (N, K) confidence in each class; likewise.
        unit_relevance: int64 (N, C), modes per unit; None for ``unit_selection=None``.
        selected: int64 (N,) relevance of the selected group, -1 where units of several relevances
            are selected.
        selected_units: bool (N, C), the units that make the map.
        fallback: bool (N,), whether no group of units had a map with any evidence, so that all
            units were selected instead.
        unexplained: bool (N,), whether several groups were compared, and all have AVX 0 (average
            drop 1). The one with the lowest relevance is selected then.
        metrics: The protocol's result for the map; None if it was not computed.
        candidates: Per example, the candidates that were compared.
        images: (N, 1 or 3, H, W) the explained images in [0, 1], as the model saw them; None where
            inputs are not images.
        units: The units of the layer; None if they were not kept.
        setup: What :func:`captum_advise.explain` found out about the model; None without it.

    Example::

        >>> LayerAdvise(net, net.conv4).explain(images, target=3)
        Explanation of 2 examples, attributions (2, 1, 8, 8) float32 on cpu
          0: class 3, confidence ...%, relevance ... selected, ... of 50 units, AVX ...
          1: ...
    """

    maps: dict[str, Tensor]
    map_metrics: dict[str, VisualExplainability] = field(default_factory=dict)
    attributions: Tensor
    target: Tensor | None
    confidence: Tensor | None
    confidences: Tensor | None
    unit_relevance: Tensor | None
    selected: Tensor
    selected_units: Tensor
    fallback: Tensor
    unexplained: Tensor
    metrics: VisualExplainability | None
    candidates: tuple[tuple[Candidate, ...], ...]
    images: Tensor | None = None
    units: Units | None = None
    setup: Setup | None = None

    def __len__(self) -> int:
        return len(self.attributions)

    def __getitem__(self, index: int) -> Explanation:
        """The explanation of one of the examples, as a batch of one."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"There is no example {index}: the explanation has {len(self)}.")
        at = slice(index % len(self), index % len(self) + 1)
        bare: Explanation = mapped(replace(self, candidates=()), lambda tensor: tensor[at])
        return replace(bare, candidates=self.candidates[at])

    def __repr__(self) -> str:
        shape, dtype = tuple(self.attributions.shape), str(self.attributions.dtype)
        lines = [
            f"Explanation of {len(self)} example{'s' * (len(self) != 1)}, attributions {shape} "
            f"{dtype.removeprefix('torch.')} on {self.attributions.device}"
        ]
        shown = min(len(self), _MOST_SHOWN)
        lines += [f"  {index}: {self.describe(index)}" for index in range(shown)]
        if shown < len(self):
            lines.append(f"  ... and {len(self) - shown} more")
        if self.setup is not None:
            lines += [f"Maps: {', '.join(self.maps)}", f"Setup: {self.setup}"]
        return "\n".join(lines)

    def class_name(self, index: int = 0) -> str | None:
        """The name, or else the number, of the class that is explained; None without classes."""
        if self.target is None:
            return None
        target: Any = self.target[index].tolist()
        if self.setup is None or not isinstance(target, int):
            return f"class {target}"
        return self.setup.class_names[target]

    def describe(self, index: int = 0) -> str:
        """One example in a line: class, confidence, selected units, AVX."""
        parts = []
        if self.target is not None:
            number, name = self.target[index].tolist(), self.class_name(index)
            parts.append(f"class {number} ({name})" if self.setup else f"class {number}")
        if self.confidence is not None:
            parts.append(f"confidence {self.confidence[index].item():.1%}")
        return ", ".join([*parts, self.describe_units(index)])

    def describe_units(self, index: int = 0) -> str:
        """The selected units of one example, how many they are, and their AVX."""
        selected = self.selected_units[index]
        metrics = None if self.metrics is None else self.metrics[index]
        count = f"{int(selected.sum())} of {len(selected)} units"
        return f"{self.describe_selection(index)}, {count}{avx_in_words(metrics)}"

    def selected_relevances(self, index: int = 0) -> list[int]:
        """Relevances of the selected units of one example, ascending; none if not computed."""
        if self.unit_relevance is None:
            return []
        units = self.selected_units[index]
        return sorted(set(self.unit_relevance[index][units].tolist()))

    def describe_selection(self, index: int = 0) -> str:
        """The selected units of one example in a few words."""
        if self.fallback[index]:
            return "no group has evidence, all units selected"
        if self.selected_units[index].all():
            return "all units selected"
        relevances = self.selected_relevances(index)
        if not relevances:
            return "no units selected"
        selection = f"relevance {', '.join(map(str, relevances))} selected"
        if self.unexplained[index]:
            return f"{selection}, no group explains the prediction"
        return selection

    def save(self, path: str | Path) -> None:
        """Write all of it to a file that :meth:`load` reads: a NumPy ``.npz`` archive.

        The archive holds plain numbers, and the setup as JSON. The write is atomic and replaces an
        existing file.

        Args:
            path: Taken unchanged; the usual suffix is ``.npz``.

        Raises:
            OSError: It cannot be written.

        Example::

            >>> explanation = LayerAdvise(net, net.conv4).explain(images)
            >>> explanation.save("explanation.npz")
            >>> Explanation.load("explanation.npz").selected.equal(explanation.selected)
            True
        """
        atomic_write(Path(path), pack(_FILE, self))

    @classmethod
    def load(cls, path: str | Path) -> Explanation:
        """Read a file that :meth:`save` wrote, to the CPU. Nothing in the file is executed.

        Args:
            path: The file.

        Raises:
            FileNotFoundError, ValueError: There is no such file, or it is truncated, damaged or of
                another kind.
        """
        return unpack(Path(path), _FILE, _from_parts)


def _from_parts(parts: dict[str, Any]) -> Explanation:
    """An explanation of what a file holds: dicts in place of records."""
    metrics, units, setup = parts["metrics"], parts["units"], parts["setup"]
    for candidate in (one for of_example in parts["candidates"] for one in of_example):
        if candidate["metrics"] is not None:
            candidate["metrics"] = VisualExplainability(**candidate["metrics"])
    if setup is not None:
        setup = Setup(**{**setup, "pixel_space": PixelSpace(**setup["pixel_space"])})
    known = {
        "map_metrics": {k: VisualExplainability(**m) for k, m in parts["map_metrics"].items()},
        "metrics": None if metrics is None else VisualExplainability(**metrics),
        "candidates": tuple(tuple(Candidate(**one) for one in c) for c in parts["candidates"]),
        "units": None if units is None else Units(**units),
        "setup": setup,
    }
    return Explanation(**{**parts, **known})


def avx_in_words(metrics: VisualExplainability | None) -> str:
    """``", AVX 0.812"``, or nothing where there is no AVX."""
    # NaN for inputs that are not images.
    if metrics is None or metrics.avx.isnan():
        return ""
    return f", AVX {metrics.avx.item():.3f}"


def metrics_in_words(metrics: VisualExplainability | None) -> dict[str, str]:
    """The metrics of one example that apply to it, as texts."""
    values = {} if metrics is None else metrics.to_dict()
    return {
        name: ("no", "yes")[value] if isinstance(value, bool) else f"{value:.3f}"
        for name, value in values.items()
        if value == value
    }


def most_probable(confidences: Tensor) -> list[int]:
    """The most probable classes of one example, from its confidences (K,)."""
    ordered: list[int] = confidences.argsort(descending=True, stable=True).tolist()
    return ordered[:_MOST_PROBABLE]


def candidates_of_examples(
    candidates: Candidates, metrics: VisualExplainability | None
) -> tuple[tuple[Candidate, ...], ...]:
    """The candidates of each example, with their metrics."""
    of_example: list[list[Candidate]] = [[] for _ in candidates.fallback]
    for pair, (which, example) in enumerate(candidates.pairs.tolist()):
        relevance = candidates.relevance[which]
        of_example[example].append(
            Candidate(
                relevance=None if relevance == SEVERAL else relevance,
                units=candidates.units[which, example].nonzero().squeeze(1),
                metrics=None if metrics is None else metrics[pair],
                attributions=candidates.maps[which, example],
            )
        )
    return tuple(map(tuple, of_example))
