"""Semantic segmentation: class scores of a region."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from captum_advise._utils.checks import check_real
from captum_advise._utils.probabilities import softmax_over_classes
from captum_advise.targets._wrapper import OutputSelector, Wrapper, select_output

_INTERPOLATION = {1: "linear", 2: "bilinear", 3: "trilinear"}


class Segmentation(Wrapper):
    r"""Mean class scores (N, K) over a region of what a segmentation model returns.

    The region must not change while images are masked or perturbed. It is a mask for all images, or
    one per image, which is passed as ``additional_forward_args``. :meth:`predicted_region` makes it
    from the model's own prediction. The mean has the same map as the sum, up to a factor.

    Source: Vinogradova, Dibrov and Myers, "Towards Interpretable Semantic Segmentation via
    Gradient-weighted Class Activation Mapping" (Seg-Grad-CAM), AAAI 2020,
    https://arxiv.org/abs/2002.11434

    Args:
        model: Returns class scores (N, K, \*spatial) of any resolution, as a tensor or in its
            output.
        region: For all images: a mask (\*spatial) of the inputs' size, bool or weights of at least
            zero. None: all pixels.
        output: Which tensor of the model's output, as in :class:`Output`.
        confidence: Turns scores into probabilities: ``torch.sigmoid`` for independent classes or a
            single one, ``torch.nn.Identity()`` for probabilities.
            Default: softmax over dimension 1

    Raises:
        TypeError: The region is of another type; when called, the output that is meant is not a
            tensor of real numbers.
        ValueError: The region has no pixel, or negative or infinite weights; when called, it does
            not fit the inputs, or the output has no classes or no positions.

    Example::

        >>> class Segmenter(torch.nn.Module):
        ...     def forward(self, x):
        ...         return {"out": net.head(net.conv4(x).relu().movedim(1, -1)).movedim(-1, 1)}
        >>> segmentation = Segmentation(Segmenter())
        >>> advise = LayerAdvise(segmentation, net.conv4)
        >>> left_half = torch.arange(32).expand(2, 32, 32) < 16
        >>> advise.attribute(images, target=3, additional_forward_args=left_half).shape
        torch.Size([2, 1, 8, 8])
    """

    region: Tensor | None

    def __init__(
        self,
        model: Callable[..., Any],
        region: Tensor | None = None,
        *,
        output: OutputSelector = None,
        confidence: Callable[[Tensor], Tensor] = softmax_over_classes,
    ) -> None:
        super().__init__(model)
        if region is not None:
            check_real(region=region)
            _check_weights(region[None])
        self.register_buffer("region", region, persistent=False)
        self.output = output
        self.confidence = confidence

    def forward(self, inputs: Tensor, region: Tensor | None = None) -> Tensor:
        r"""Images (N, C, \*spatial) to the mean class scores (N, K) of the region.

        Args:
            inputs: The images.
            region: Masks (N or 1, \*spatial) of the images, instead of the constructor's.
        """
        scores = self._class_scores(inputs)
        weights = self._region_weights(inputs, region)
        if weights is None:
            return scores.flatten(2).mean(2)
        # Sums over many pixels overflow in half precision.
        scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
        scores = _enlarged(scores, inputs.shape[2:]).flatten(2)
        weights = weights.flatten(1).to(scores)
        return (scores @ weights[:, :, None])[:, :, 0] / weights.sum(1, keepdim=True)

    @torch.no_grad()
    def predicted_region(self, inputs: Tensor, target: int | Tensor) -> Tensor:
        r"""The pixels that the model assigns to a class, for ``additional_forward_args``.

        A pixel is assigned to the class with the highest score. If there is one class, or
        ``confidence`` is torch's sigmoid, it is assigned to every class with a probability above
        one half.

        Args:
            inputs: Unmasked images (N, C, \*spatial).
            target: The class, or int64 (N,), one per image.

        Returns:
            bool (N, \*spatial).

        Raises:
            ValueError: The target is not a class, or an image has no pixel of it.
        """
        scores = self._class_scores(inputs)
        n_images, n_classes = scores.shape[:2]
        classes = torch.as_tensor(target, device=scores.device).expand(n_images)
        if classes.is_floating_point() or bool(((classes < 0) | (classes >= n_classes)).any()):
            raise ValueError(
                f"The target must be classes from 0 to {n_classes - 1}, got {target!r}."
            )
        scores = _enlarged(scores, inputs.shape[2:])
        is_exclusive = n_classes > 1 and not _is_sigmoid(self.confidence)
        if not is_exclusive:
            images = torch.arange(n_images, device=scores.device)
            region = self.confidence(scores)[images, classes] > 0.5
        else:
            region = scores.argmax(1) == classes.view(-1, *(1,) * (scores.dim() - 2))
        is_empty = ~region.flatten(1).any(1)
        if bool(is_empty.any()):
            image = int(is_empty.nonzero()[0])
            message = f"The model assigns no pixel of image {image} to class {int(classes[image])}"
            if is_exclusive:
                found = sorted(set(scores[image].argmax(0).flatten().tolist()))
                message += f": it assigns them to the classes {', '.join(map(str, found))}"
            raise ValueError(f"{message}.")
        return region

    def _class_scores(self, inputs: Tensor) -> Tensor:
        scores = select_output(self.model(inputs), self.output, ("logits", "out"))
        if scores.dim() - 2 not in _INTERPOLATION or scores.dim() != inputs.dim():
            raise ValueError(
                "A segmentation model returns class scores N x K with as many spatial dimensions "
                f"as its inputs, got {tuple(scores.shape)} for inputs {tuple(inputs.shape)}: name "
                "another tensor by `output`."
            )
        return scores

    def _region_weights(self, inputs: Tensor, region: Tensor | None) -> Tensor | None:
        """Weights (N or 1, *spatial) of the inputs' size; None for the mean over all pixels."""
        size = tuple(inputs.shape[2:])
        if region is not None:
            check_real(region=region)
            weights = region
        elif self.region is not None:
            weights = self.region[None]
        else:
            return None
        if tuple(weights.shape[1:]) != size or len(weights) not in (1, len(inputs)):
            raise ValueError(
                f"A region is a mask of the inputs' size {size}, one for all images or one per "
                f"image, got {tuple(weights.shape)} for {len(inputs)} images: give the first to "
                "the constructor without a batch dimension, and the second as "
                "additional_forward_args."
            )
        if region is not None:
            _check_weights(region)
        return weights


def _is_sigmoid(confidence: Callable[[Tensor], Tensor]) -> bool:
    functions = (torch.sigmoid, torch.special.expit, F.sigmoid, Tensor.sigmoid)
    return isinstance(confidence, nn.Sigmoid) or confidence in functions


def _enlarged(scores: Tensor, size: torch.Size) -> Tensor:
    """Class scores (N, K, *spatial) at the inputs' size, as is usual before the class is chosen."""
    if scores.shape[2:] == size:
        return scores
    mode = _INTERPOLATION[len(size)]
    return F.interpolate(scores, tuple(size), mode=mode, align_corners=False)


def _check_weights(region: Tensor) -> None:
    """Require masks (N, *spatial) with weights of at least zero, and one above, for each image."""
    weights = region.detach().flatten(1).double()
    total = weights.sum(1)
    if not bool(((weights >= 0).all(1) & (total > 0) & (total < torch.inf)).all()):
        raise ValueError(
            "A region must have at least one pixel and finite weights of at least zero, and one "
            "of the masks does not."
        )
