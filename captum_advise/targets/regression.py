"""Regression: evidence for larger or for smaller values."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

from torch import Tensor

from captum_advise.targets._wrapper import OutputSelector, Wrapper, select_output


class Regression(Wrapper):
    """The values (N, K) that a model predicts, so that maps show what makes them larger or smaller.

    A value has no probability. Its position within ``value_range`` serves as confidence: 1 at the
    end towards which evidence is shown, and 0 at the other.

    Args:
        model: Returns values (N,), (N, 1) or (N, K).
        value_range: The smallest and the largest value that can be expected, such as the range of
            the training data: a pair for all columns.
        evidence_for: ``"larger"`` shows what makes a value larger. ``"smaller"`` shows what makes
            it smaller, and the scores are minus the values.
        output: Which tensor of the model's output, as in :class:`Output`.

    Attributes:
        model: The model.

    Raises:
        TypeError: When called, if the output that is meant is not a tensor of real numbers.
        ValueError: The range is empty, or ``evidence_for`` is neither of the two; when called, the
            values are not (N,) or (N, K).

    Example::

        >>> class Age(torch.nn.Module):
        ...     def forward(self, x):
        ...         return 50 + 10 * net(x)[:, 0]
        >>> age = Regression(Age(), value_range=(0, 100), evidence_for="smaller")
        >>> age(images).shape
        torch.Size([2, 1])
        >>> advise = LayerAdvise(age, net.conv4, confidence=age.confidence)
        >>> advise.attribute(images, target=0).shape
        torch.Size([2, 1, 8, 8])
    """

    def __init__(
        self,
        model: Callable[..., Any],
        value_range: tuple[float, float],
        *,
        evidence_for: Literal["larger", "smaller"] = "larger",
        output: OutputSelector = None,
    ) -> None:
        super().__init__(model)
        smallest, largest = map(float, value_range)
        if not (math.isfinite(smallest) and math.isfinite(largest) and smallest < largest):
            raise ValueError(
                "value_range must be a smaller and a larger number, the range in which the model's "
                f"values are expected, got {value_range!r}."
            )
        if evidence_for not in ("larger", "smaller"):
            raise ValueError(f'evidence_for must be "larger" or "smaller", got {evidence_for!r}.')
        self.value_range = (smallest, largest)
        self.evidence_for = evidence_for
        self.output = output

    def forward(self, *inputs: Any) -> Tensor:
        """Inputs and further arguments of the model to scores (N, K).

        Raises:
            ValueError: The model returns something else than (N,) or (N, K).
        """
        values = select_output(self.model(*inputs), self.output, ("logits", "out"))
        if values.dim() > 2:
            raise ValueError(
                f"A regression returns values (N,) or (N, K), got {tuple(values.shape)}: name "
                "another tensor by `output`, or use targets.Segmentation for one value per pixel."
            )
        values = values[:, None] if values.dim() == 1 else values
        return values if self.evidence_for == "larger" else -values

    def confidence(self, outputs: Tensor) -> Tensor:
        """Position of scores (N, K) within the range: 0 to 1."""
        smallest, largest = self.value_range
        from_end = outputs - smallest if self.evidence_for == "larger" else outputs + largest
        return (from_end / (largest - smallest)).clamp(0, 1)
