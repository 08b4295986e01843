"""What :meth:`LayerAdvise.explain` returns."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from captum_advise.files import pack_tensors, unpack_tensors, write_whole
from captum_advise.metrics import VisualExplainability

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from matplotlib.figure import Figure

_KIND = "an explanation of captum-advise, version 1"
_SCORES = tuple(field.name for field in fields(VisualExplainability))
_SHOWN = 10  # examples, where an explanation is printed


@dataclass(frozen=True, eq=False, repr=False)
class Candidate:
    r"""A set of units that could explain one picture.

    Attributes:
        relevance: The relevance score that the units share; None for a set that spans several
            scores.
        units: int64 (U,) indices of the units, in order.
        weights: (U,) what each unit's contribution to the map is multiplied with: 1, but for the
            selection ``"faithfulness"``.
        scores: The protocol's result for the map of these units, every part without dimensions;
            None when it was not computed.
        attributions: (1, \*spatial) the map of these units: the sum of what they contribute, with
            its negative part.
    """

    relevance: int | None
    units: Tensor
    weights: Tensor
    scores: VisualExplainability | None
    attributions: Tensor

    def __repr__(self) -> str:
        return f"Candidate({self.describe()})"

    def describe(self) -> str:
        """Score, number of units and AVX in a few words.

        Example::

            >>> advise = LayerAdvise(net, net.conv4)
            >>> [candidate.describe() for candidate in advise.explain(images).candidates[0]]
            ['score ...: ... units, AVX ..., ...]
        """
        which = "all scores" if self.relevance is None else f"score {self.relevance}"
        if bool((self.weights != 1).any()):
            which += ", weighted"
        count = f"{len(self.units)} unit{'s' * (len(self.units) != 1)}"
        return f"{which}: {count}{_avx(self.scores)}"

    def to(self, device: torch.device | str) -> Candidate:
        """A copy on another device."""
        return Candidate(
            self.relevance,
            self.units.to(device),
            self.weights.to(device),
            None if self.scores is None else self.scores.to(device),
            self.attributions.to(device),
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and lists under the attributes' names."""
        return {
            "relevance": self.relevance,
            "units": self.units.tolist(),
            "weights": self.weights.tolist(),
            "scores": None if self.scores is None else self.scores.to_dict(),
            "attributions": self.attributions.tolist(),
        }


@dataclass(frozen=True, eq=False, repr=False)
class Explanation:
    r"""The map of each of N examples, and how it came about. All tensors are detached.

    Attributes:
        attributions: (N, 1, \*spatial), what :meth:`LayerAdvise.attribute` returns.
        target: int64 (N,) class that is explained ((N, D) for outputs with D dimensions beside
            the batch); None for a forward function with a single score per example.
        confidence: (N,) confidence in the target; None when the outputs are no class scores.
        unit_relevance: int64 (N, C), modes per unit.
        selected: int64 (N,) relevance score that was kept, -1 where the kept units span several.
        unit_weights: (N, C), what each unit's contribution is multiplied with in the kept map: 1
            for kept units and 0 for others, or a number from 0 up under ``"faithfulness"``.
        fallback: bool (N,), where no group of units had a map with any evidence, so that all
            units were kept instead.
        scores: The protocol's result for the kept map; None when it was not computed.
        candidates: Per example, the sets of units that were compared.

    Example::

        >>> LayerAdvise(net, net.conv4).explain(images, target=3)
        Explanation of 2 examples, attributions (2, 1, 8, 8) float32 on cpu
          0: class 3, confidence ...%, relevance score ... kept, ... of 50 units, AVX ...
          1: class 3, confidence ...%, relevance score ... kept, ... of 50 units, AVX ...
    """

    attributions: Tensor
    target: Tensor | None
    confidence: Tensor | None
    unit_relevance: Tensor
    selected: Tensor
    unit_weights: Tensor
    fallback: Tensor
    scores: VisualExplainability | None
    candidates: tuple[tuple[Candidate, ...], ...]

    @property
    def selected_units(self) -> Tensor:
        """Bool (N, C), the units that the kept map is made of."""
        return self.unit_weights > 0

    def __len__(self) -> int:
        return len(self.selected)

    def __repr__(self) -> str:
        maps = self.attributions
        count = f"{len(self)} example{'s' * (len(self) != 1)}"
        kind = f"{tuple(maps.shape)} {str(maps.dtype).removeprefix('torch.')} on {maps.device}"
        lines = [f"Explanation of {count}, attributions {kind}"]
        lines += [f"  {index}: {self.describe(index)}" for index in self._shown()]
        return "\n".join([*lines, *self._more("  ... and {} more")])

    def _repr_html_(self) -> str:
        head = ("", "class", "confidence", "kept", "units", "AVX", "groups")
        rows = []
        for index in self._shown():
            kept = self.selected_units[index]
            cells = (
                str(index),
                "" if self.target is None else str(self.target[index].tolist()),
                "" if self.confidence is None else f"{self.confidence[index].item():.1%}",
                self.kept_in_words(index),
                f"{int(kept.sum())} of {len(kept)}",
                "" if self.scores is None else _avx(self.scores[index]).removeprefix(", AVX "),
                "\n".join(candidate.describe() for candidate in self.candidates[index]),
            )
            rows.append("".join(f"<td>{html.escape(cell)}</td>" for cell in cells))
        # Notebooks align cells to the right and close up lines; pages without a style have no gaps.
        style = "text-align: left; vertical-align: top; padding: 0.3em 1em 0.3em 0"
        title = html.escape(repr(self).partition("\n")[0])
        heads = "".join(f'<th style="{style}">{cell}</th>' for cell in head)
        body = "".join(f"<tr>{row}</tr>" for row in rows).replace(
            "<td>", f'<td style="{style}; white-space: pre-line">'
        )
        more = "".join(f"<p>{text}</p>" for text in self._more("... and {} more"))
        return (
            f"<p>{title}</p><table><thead><tr>{heads}</tr></thead>"
            f"<tbody>{body}</tbody></table>{more}"
        )

    def describe(self, index: int = 0) -> str:
        """One example in a line: class, confidence, which units were kept, AVX."""
        parts = []
        if self.target is not None:
            parts.append(f"class {self.target[index].tolist()}")
        if self.confidence is not None:
            parts.append(f"confidence {self.confidence[index].item():.1%}")
        kept = self.selected_units[index]
        parts += [self.kept_in_words(index), f"{int(kept.sum())} of {len(kept)} units"]
        return ", ".join(parts) + _avx(None if self.scores is None else self.scores[index])

    def kept_scores(self, index: int = 0) -> list[int]:
        """Relevance scores of the units that the map of one example is made of, ascending."""
        units = self.selected_units[index]
        return sorted(set(self.unit_relevance[index][units].tolist()))

    def kept_in_words(self, index: int = 0) -> str:
        """Which units the map of one example is made of, in a few words."""
        if self.fallback[index]:
            return "no group has evidence, all units kept"
        weights = self.unit_weights[index]
        if bool((weights == 1).all()):
            return "all units kept"
        scores = self.kept_scores(index)
        if not scores:
            return "no units kept"
        how = "weighted" if bool(((weights != 0) & (weights != 1)).any()) else "kept"
        return f"relevance score{'s' * (len(scores) > 1)} {', '.join(map(str, scores))} {how}"

    def plot(
        self,
        pictures: Tensor | npt.NDArray[np.floating],
        *,
        class_names: Sequence[str] | None = None,
        axes: npt.ArrayLike | None = None,
    ) -> tuple[Figure, npt.NDArray[np.object_]]:
        """Pictures with their maps over them, a row per example.

        Args:
            pictures: (N, 3 or 1, H, W) tensor or (N, H, W, 3 or 1) array in [0, 1], as
                :meth:`PixelSpace.to_pixels` makes them from model inputs. One without N will do
                for one example.
            class_names: By class.
            axes: Where to draw, N x 2 of them; a new figure if None.

        Returns:
            The figure, and the axes (N, 2).

        Raises:
            ValueError: The pictures do not fit the explanation.

        Example::

            >>> explanation = LayerAdvise(net, net.conv4).explain(images)
            >>> figure, axes = explanation.plot(images)
        """
        from captum_advise.visualization import overlays

        return overlays(pictures, {"ADVISE": self}, class_names=class_names, axes=axes)

    def to(self, device: torch.device | str) -> Explanation:
        """A copy on another device."""
        moved = {
            field.name: getattr(self, field.name).to(device)
            for field in fields(self)
            if isinstance(getattr(self, field.name), Tensor | VisualExplainability)
        }
        candidates = tuple(tuple(c.to(device) for c in found) for found in self.candidates)
        return replace(self, **moved, candidates=candidates)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and lists under the attributes' names, ready for JSON.

        A part that was not computed is None. Numbers that do not apply (the similarity of inputs
        that are no pictures) are NaN.

        Example::

            >>> explanation = LayerAdvise(net, net.conv4).explain(images, target=3)
            >>> explanation.to_dict()["target"]
            [3, 3]
        """
        plain: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Tensor):
                value = value.tolist()
            elif isinstance(value, VisualExplainability):
                value = value.to_dict()
            plain[field.name] = value
        plain["candidates"] = [[c.to_dict() for c in found] for found in self.candidates]
        return plain

    def save(self, path: str | Path) -> None:
        """Write a file that :meth:`load` reads: a NumPy ``.npz`` archive of plain numbers.

        The file appears whole or not at all, and replaces one that is there.

        Args:
            path: Taken as it is; ``.npz`` is a good ending.

        Raises:
            OSError: It cannot be written.

        Example::

            >>> explanation = LayerAdvise(net, net.conv4).explain(images)
            >>> explanation.save("explanation.npz")
            >>> Explanation.load("explanation.npz").selected.equal(explanation.selected)
            True
        """
        tensors = {
            field.name: value
            for field in fields(self)
            if isinstance(value := getattr(self, field.name), Tensor)
        }
        tensors |= _scores_to_tensors("scores.", self.scores)
        tensors |= _candidates_to_tensors(self.candidates)
        write_whole(Path(path), pack_tensors(_KIND, tensors))

    @classmethod
    def load(cls, path: str | Path, device: torch.device | str = "cpu") -> Explanation:
        """Read what :meth:`save` wrote. Nothing in the file is executed.

        Args:
            path: The file.
            device: Where the tensors go.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: The file is truncated, damaged or of another kind.
        """
        tensors = unpack_tensors(Path(path), _KIND)
        try:
            return cls(
                scores=_scores_from_tensors("scores.", tensors),
                candidates=_candidates_from_tensors(tensors),
                **{
                    field.name: tensors.get(field.name)
                    if field.name in ("target", "confidence")
                    else tensors[field.name]
                    for field in fields(cls)
                    if field.name not in ("scores", "candidates")
                },  # type: ignore[arg-type]
            ).to(device)
        except KeyError as error:
            raise ValueError(f"{path} is damaged: it has no part {error}.") from error

    def _shown(self) -> range:
        return range(min(len(self), _SHOWN))

    def _more(self, text: str) -> list[str]:
        hidden = len(self) - len(self._shown())
        return [text.format(hidden)] if hidden else []


def _avx(scores: VisualExplainability | None) -> str:
    # NaN for inputs that are no pictures.
    if scores is None or scores.avx.isnan():
        return ""
    return f", AVX {scores.avx.item():.3f}"


def _scores_to_tensors(prefix: str, scores: VisualExplainability | None) -> dict[str, Tensor]:
    return {} if scores is None else {prefix + name: getattr(scores, name) for name in _SCORES}


def _scores_from_tensors(prefix: str, tensors: dict[str, Tensor]) -> VisualExplainability | None:
    if prefix + "avx" not in tensors:
        return None
    return VisualExplainability(*(tensors[prefix + name] for name in _SCORES))


def _candidates_to_tensors(candidates: tuple[tuple[Candidate, ...], ...]) -> dict[str, Tensor]:
    """All candidates behind each other: few tensors, however many examples there are."""
    flat = [candidate for found in candidates for candidate in found]
    tensors = {
        "per_example": torch.tensor([len(found) for found in candidates]),
        "relevance": torch.tensor([-1 if c.relevance is None else c.relevance for c in flat]),
        "n_units": torch.tensor([len(candidate.units) for candidate in flat]),
        "scored": torch.tensor([candidate.scores is not None for candidate in flat]),
    }
    if flat:
        tensors["units"] = torch.cat([candidate.units for candidate in flat])
        tensors["weights"] = torch.cat([candidate.weights for candidate in flat])
        tensors["attributions"] = torch.stack([candidate.attributions for candidate in flat])
    scored = [candidate.scores for candidate in flat if candidate.scores is not None]
    if scored:
        tensors |= {
            f"scores.{name}": torch.stack([getattr(scores, name) for scores in scored])
            for name in _SCORES
        }
    return {f"candidates.{name}": tensor for name, tensor in tensors.items()}


def _candidates_from_tensors(tensors: dict[str, Tensor]) -> tuple[tuple[Candidate, ...], ...]:
    def part(name: str) -> Tensor:
        return tensors[f"candidates.{name}"]

    scored = _scores_from_tensors("candidates.scores.", tensors)
    relevance, n_units = part("relevance").tolist(), part("n_units").tolist()
    units = torch.split(part("units"), n_units) if n_units else ()
    weights = torch.split(part("weights"), n_units) if n_units else ()
    flat, n_scored = [], 0
    for place, has_scores in enumerate(part("scored").tolist()):
        scores = scored[n_scored] if scored is not None and has_scores else None
        n_scored += has_scores
        flat.append(
            Candidate(
                relevance=None if relevance[place] < 0 else relevance[place],
                units=units[place],
                weights=weights[place],
                scores=scores,
                attributions=part("attributions")[place],
            )
        )
    rest = iter(flat)
    return tuple(tuple(next(rest) for _ in range(n)) for n in part("per_example").tolist())
