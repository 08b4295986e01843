"""Class selection: which output a target means, in every form that Captum accepts."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Target:
    """One output per example."""

    index: Tensor  # int64 (N, D), in each dimension after the batch, the class first

    @property
    def classes(self) -> Tensor:
        """int64 (N,): the class, or zeros where there is one output per example."""
        if self.index.shape[1]:
            return self.index[:, 0]
        return self.index.new_zeros(len(self.index))

    def public(self) -> Tensor | None:
        """int64 (N,) classes or (N, D) indices; None where there is one output per example."""
        if self.index.shape[1] == 0:
            return None
        return self.index[:, 0] if self.index.shape[1] == 1 else self.index

    def class_rows(self, values: Tensor) -> Tensor:
        """Values of all classes (N, K) at the target; ``values`` has the shape of the outputs."""
        if values.dim() == 1:
            return values[:, None]
        if values.dim() == 2:
            return values
        examples = torch.arange(len(values), device=values.device)
        return values.transpose(0, 1)[(slice(None), examples, *self.index[:, 1:].T)].T

    def with_classes(self, classes: Tensor) -> Target:
        """The same positions with other classes (N,)."""
        return Target(torch.cat([classes[:, None], self.index[:, 1:]], 1))

    def of(self, outputs: Tensor) -> Tensor:
        """The outputs (N,) of the examples."""
        return outputs[(torch.arange(len(outputs), device=outputs.device), *self.index.T)]

    def __getitem__(self, examples: Tensor) -> Target:
        """The targets of some examples."""
        return Target(self.index[examples])


def resolve_target(outputs: Tensor, target: Any) -> Target:
    """Resolve a target. None on a classifier means the predicted class of each example."""
    n_examples, *dims = outputs.shape
    if target is None and len(dims) == 1 and dims[0] > 1:
        return Target(outputs.detach().argmax(1, keepdim=True))
    rows = _rows(target, n_examples)
    if len(rows) != n_examples:
        raise ValueError(f"There are {n_examples} examples but {len(rows)} targets.")
    padded = [row + (0,) * (len(dims) - len(row)) for row in rows]
    index = torch.tensor(padded, dtype=torch.int64, device="cpu").reshape(n_examples, -1)
    for row in rows[:1]:
        if len(row) > len(dims) or any(size != 1 for size in dims[len(row) :]):
            raise ValueError(
                f"The outputs have shape {tuple(outputs.shape)}: a target must name one of them "
                f"per example, by {len(dims)} indices, and {target!r} does not."
            )
    if dims == [1] and bool((index > 0).any()):
        raise ValueError(
            f"The outputs have one column, the score of the positive class, and target {target!r} "
            "names another: use target=0, and for the negative class a forward_func that returns "
            "the negative score, as in lambda inputs: -model(inputs)."
        )
    sizes = torch.tensor(dims, dtype=torch.int64, device="cpu")
    if bool(((index >= sizes) | (index < -sizes)).any()):
        raise ValueError(
            f"Target {target!r} is out of range for outputs of shape {tuple(outputs.shape)}."
        )
    return Target(torch.where(index < 0, index + sizes, index).to(outputs.device))


def _rows(target: Any, n_examples: int) -> list[tuple[int, ...]]:
    """One tuple of indices per example."""
    if isinstance(target, np.ndarray | np.integer):
        target = torch.tensor(target, device="cpu")
    if isinstance(target, Tensor):
        if target.is_floating_point() or target.dim() > 1:
            raise ValueError(
                "A target tensor holds integers, one class for all examples or one per example, "
                f"got {target.dtype} of shape {tuple(target.shape)}; a region of a segmentation is "
                "explained by captum_advise.targets.Segmentation(model, mask)."
            )
        flat = target.reshape(-1).tolist()
        return [(value,) for value in (flat * n_examples if len(flat) == 1 else flat)]
    if target is None:
        return [()] * n_examples
    if isinstance(target, int | tuple):
        return [_index_tuple(target)] * n_examples
    if isinstance(target, list):
        return [_index_tuple(element) for element in target]
    raise TypeError(
        "A target is an int, a tuple of ints, a tensor or a list of them, got "
        f"{type(target).__name__}."
    )


def _index_tuple(value: Any) -> tuple[int, ...]:
    try:
        # Also Python ints from NumPy's, and from tensors of one.
        return tuple(map(operator.index, value if isinstance(value, tuple) else (value,)))
    except TypeError as error:
        raise TypeError(f"A target is made of ints, got {value!r}.") from error
