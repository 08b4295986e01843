"""Mean squared error."""

from __future__ import annotations

from torch import Tensor

from captum_advise._utils.checks import check_real, check_same_shape, kind


def mse(images: Tensor, others: Tensor) -> Tensor:
    """Mean squared error on pixels in [0, 1].

    Args:
        images, others: (N, ...) in [0, 1].

    Returns:
        (N,) in [0, 1], 0 for equal images.

    Raises:
        TypeError, ValueError: An argument does not hold real floating-point numbers, or the shapes
            differ.

    Example::

        >>> mse(torch.zeros(1, 3, 2, 2), torch.full((1, 3, 2, 2), 0.5))
        tensor([0.2500])
    """
    check_real(images=images, others=others)
    check_same_shape(images=images, others=others)
    if images.dim() < 2 or not images.is_floating_point() or not others.is_floating_point():
        raise ValueError(
            f"images must be (N, ...) of floating-point numbers, got {kind(images)} of shape "
            f"{tuple(images.shape)}."
        )
    return (images - others).square().flatten(1).mean(1)
