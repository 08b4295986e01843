"""Models that return their class scores inside of something else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from captum_advise._utils.probabilities import default_confidence
from captum_advise.targets._wrapper import OutputSelector, Wrapper, select_output


class Output(Wrapper):
    """One tensor of what a model returns: dictionary, tuple, dataclass, Hugging Face output.

    Args:
        model: Takes the inputs, and returns class scores somewhere in its output.
        output: Which tensor: a key, attribute or position, a path of them joined by dots
            (``"predictions.0.logits"``), or a function of what the model returns. None: the
            output itself if it is a tensor, its ``logits`` or ``out``, or its only element.
        confidence: Turns the scores into probabilities: ``torch.sigmoid`` for several independent
            labels or a single logit, ``torch.nn.Identity()`` for probabilities.
            Default: sigmoid for a Hugging Face model of several independent labels
            (``model.config.problem_type``), else softmax over dimension 1

    Raises:
        TypeError, ValueError: When called: the output has no tensor of that name, a name is
            needed, or what it names is not a tensor of real numbers.

    Example::

        >>> class Labelled(torch.nn.Module):
        ...     def forward(self, x):
        ...         return {"logits": net(x), "labels": None}
        >>> wrapped = Output(Labelled(), "logits", confidence=torch.sigmoid)
        >>> LayerAdvise(wrapped, net.conv4).attribute(images, target=3).shape
        torch.Size([2, 1, 8, 8])
    """

    def __init__(
        self,
        model: Callable[..., Any],
        output: OutputSelector = None,
        *,
        confidence: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__(model)
        self.output = output
        self.confidence = default_confidence(model) if confidence is None else confidence

    def forward(self, *inputs: Any) -> Tensor:
        """Inputs and further arguments of the model to its class scores, (N, K) or (N, K, ...)."""
        return select_output(self.model(*inputs), self.output, ("logits", "out"))
