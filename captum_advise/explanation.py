"""The result of :meth:`LayerAdvise.explain`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from captum_advise import _explanation_io
from captum_advise._explanation_io import MOST_SHOWN, avx_in_words
from captum_advise._utils.records import TensorRecord
from captum_advise.metrics import VisualExplainability

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from matplotlib.figure import Figure

    from captum_advise.relevance import ActivationRange
    from captum_advise.visualization.style import Array


@dataclass(frozen=True, eq=False, repr=False)
class Candidate(TensorRecord):
    r"""Units whose map could explain one example.

    Attributes:
        relevance: The relevance that the units share; None if they have several.
        units: int64 (U,) indices of the units, in order.
        weights: (U,) factor of each unit's contribution to the map: 1.
        metrics: The protocol's result for the map of these units, without dimensions; None if it
            was not computed.
        attributions: (1, \*spatial) the map of these units: the sum of their contributions,
            including its negative part.
    """

    relevance: int | None
    units: Tensor
    weights: Tensor
    metrics: VisualExplainability | None
    attributions: Tensor

    def __repr__(self) -> str:
        return f"Candidate({self.describe()})"

    def describe(self) -> str:
        """Relevance, number of units and AVX in a few words.

        Example::

            >>> advise = LayerAdvise(net, net.conv4)
            >>> [candidate.describe() for candidate in advise.explain(images).candidates[0]]
            ['relevance ...: ... units, AVX ..., ...]
        """
        which = "several relevances" if self.relevance is None else f"relevance {self.relevance}"
        if bool((self.weights != 1).any()):
            which += ", weighted"
        count = f"{len(self.units)} unit{'s' * (len(self.units) != 1)}"
        return f"{which}: {count}{avx_in_words(self.metrics)}"


@dataclass(frozen=True, eq=False, repr=False)
class Explanation(TensorRecord):
    r"""The maps of N examples, and how they came about. All tensors are detached.

    Attributes:
        attributions: (N, 1, \*spatial), what :meth:`LayerAdvise.attribute` returns.
        target: int64 (N,) class that is explained ((N, D) for outputs with D dimensions after the
            batch); None for a forward function with a single output per example.
        confidence: (N,) confidence in the target; None when the outputs are not class scores.
        unit_relevance: int64 (N, C), modes per unit; None for ``unit_selection=None``, which does
            not use it.
        selected: int64 (N,) relevance of the selected group, -1 where the selected units have
            several.
        unit_weights: (N, C), factor of each unit's contribution to the map: 1 for selected units
            and 0 for others.
        fallback: bool (N,), whether no group of units had a map with any evidence, so that all
            units were selected instead.
        metrics: The protocol's result for the map; None if it was not computed.
        candidates: Per example, the candidates that were compared.

    Example::

        >>> LayerAdvise(net, net.conv4).explain(images, target=3)
        Explanation of 2 examples, attributions (2, 1, 8, 8) float32 on cpu
          0: class 3, confidence ...%, relevance ... selected, ... of 50 units, AVX ...
          1: class 3, confidence ...%, relevance ... selected, ... of 50 units, AVX ...
    """

    attributions: Tensor
    target: Tensor | None
    confidence: Tensor | None
    unit_relevance: Tensor | None
    selected: Tensor
    unit_weights: Tensor
    fallback: Tensor
    metrics: VisualExplainability | None
    candidates: tuple[tuple[Candidate, ...], ...]

    @property
    def selected_units(self) -> Tensor:
        """Bool (N, C), the units with a weight above zero."""
        return self.unit_weights > 0

    def __len__(self) -> int:
        return len(self.selected)

    def __repr__(self) -> str:
        maps = self.attributions
        count = f"{len(self)} example{'s' * (len(self) != 1)}"
        kind = f"{tuple(maps.shape)} {str(maps.dtype).removeprefix('torch.')} on {maps.device}"
        lines = [f"Explanation of {count}, attributions {kind}"]
        shown = min(len(self), MOST_SHOWN)
        lines += [f"  {index}: {self.describe(index)}" for index in range(shown)]
        if shown < len(self):
            lines.append(f"  ... and {len(self) - shown} more")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return _explanation_io.html_table(self)

    def describe(self, index: int = 0) -> str:
        """One example in a line: class, confidence, selected units, AVX."""
        parts = []
        if self.target is not None:
            parts.append(f"class {self.target[index].tolist()}")
        if self.confidence is not None:
            parts.append(f"confidence {self.confidence[index].item():.1%}")
        selected = self.selected_units[index]
        parts.append(self.describe_selection(index))
        parts.append(f"{int(selected.sum())} of {len(selected)} units")
        metrics = None if self.metrics is None else self.metrics[index]
        return ", ".join(parts) + avx_in_words(metrics)

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
        weights = self.unit_weights[index]
        if bool((weights == 1).all()):
            return "all units selected"
        relevances = self.selected_relevances(index)
        if not relevances:
            return "no units selected"
        is_weighted = bool(((weights != 0) & (weights != 1)).any())
        how = "weighted" if is_weighted else "selected"
        return f"relevance {', '.join(map(str, relevances))} {how}"

    def plot(
        self,
        images: Tensor | npt.NDArray[np.floating],
        *,
        comparisons: Mapping[str, Explanation | Array] | None = None,
        class_names: Sequence[str] | None = None,
        axes: npt.ArrayLike | None = None,
    ) -> tuple[Figure, npt.NDArray[np.object_]]:
        """Draw the images with their maps, a row per example.

        Args:
            images: (N, 3 or 1, H, W) tensor or (N, H, W, 3 or 1) array in [0, 1], as
                :meth:`PixelSpace.to_pixels` makes them from model inputs. For one example, N may
                be left out.
            comparisons: Maps to draw before these, by their names, as in :meth:`to_html`.
            class_names: By class.
            axes: Where to draw, N x (2 + comparisons) of them; a new figure if None.

        Returns:
            The figure, and the axes (N, 2 + comparisons).

        Raises:
            ValueError: The images do not fit the explanation.

        Example::

            >>> explanation = LayerAdvise(net, net.conv4).explain(images)
            >>> figure, axes = explanation.plot(images)
        """
        # Imported here: matplotlib is an optional dependency.
        from captum_advise.visualization.maps import LAYER_ADVISE, overlays

        named = {**(comparisons or {}), LAYER_ADVISE: self}
        return overlays(images, named, class_names=class_names, axes=axes)

    def to_html(
        self,
        images: Array | Sequence[Array],
        *,
        feature_maps: Tensor | None = None,
        contributions: Tensor | None = None,
        comparisons: Mapping[str, Explanation | Array] | None = None,
        class_names: Sequence[str] | None = None,
        names: Sequence[str] | None = None,
        n_bandwidths: int = 10,
        activation_range: ActivationRange = (0.0, 1.0),
    ) -> str:
        r"""One interactive HTML file: maps, metrics and units of each example.

        The file holds everything that it shows and loads nothing from a network. It shows the map
        of each candidate with its metrics, compared with other maps. With the units' tensors it
        also shows which units contribute at a position, and the activations and the density of
        each unit. The file stays below about 3 MB for up to 20 small images: where a layer has too
        many units, it holds those with the most evidence.

        Args:
            images: (N, 3 or 1, H, W) tensor or (N, H, W, 3 or 1) array in [0, 1], as
                :meth:`PixelSpace.to_pixels` makes them from model inputs, or a sequence of images.
                For one example, N may be left out.
            feature_maps: (N, C, h, w) output of the layer.
            contributions: (N, C, h, w) what each unit contributes to the map of all units, from
                :meth:`LayerAdvise.attribute` with ``unit_selection=None`` and
                ``attr_dim_summation=False``. Goes together with ``feature_maps``.
            comparisons: Maps to compare with, by their names: (N, h, w) or (N, C, h, w), which
                are summed over C, or explanations, whose metrics are shown too. The default is
                Grad-CAM, the sum of ``contributions``.
            class_names: By class.
            names: Of the N images, such as their file names.
            n_bandwidths: As in :meth:`LayerAdvise.explain`, for the densities.
            activation_range: Likewise.

        Returns:
            The content of the file.

        Raises:
            ValueError: An argument does not fit the explanation, or is not finite.

        Example::

            >>> from captum.attr import LayerActivation
            >>> advise = LayerAdvise(net, net.conv4)
            >>> explanation = advise.explain(images)
            >>> html = explanation.to_html(
            ...     images,
            ...     feature_maps=LayerActivation(net, net.conv4).attribute(images),
            ...     contributions=advise.attribute(
            ...         images, explanation.target, unit_selection=None, attr_dim_summation=False
            ...     ),
            ... )
            >>> Path("explanation.html").write_text(html, encoding="utf-8") > 10_000
            True
        """
        # Imported here: matplotlib is an optional dependency.
        from captum_advise.visualization.page import page

        return page(
            self,
            images,
            feature_maps=feature_maps,
            contributions=contributions,
            comparisons=comparisons,
            class_names=class_names,
            names=names,
            n_bandwidths=n_bandwidths,
            activation_range=activation_range,
        )

    def save(self, path: str | Path) -> None:
        """Write a file that :meth:`load` reads: a NumPy ``.npz`` archive of plain numbers.

        The write is atomic and replaces an existing file.

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
        _explanation_io.save(self, Path(path))

    @classmethod
    def load(cls, path: str | Path, device: torch.device | str = "cpu") -> Explanation:
        """Read a file that :meth:`save` wrote. Nothing in the file is executed.

        Args:
            path: The file.
            device: Where the tensors go.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: The file is truncated, damaged or of another kind.
        """
        attributes, candidates = _explanation_io.load(
            Path(path), [field.name for field in fields(cls)]
        )
        return cls(
            **attributes,
            candidates=tuple(
                tuple(Candidate(**candidate) for candidate in of_example)
                for of_example in candidates
            ),
        ).to(device)
