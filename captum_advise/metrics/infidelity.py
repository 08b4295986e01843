"""Infidelity under Gaussian noise."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from captum.metrics import infidelity as captum_infidelity
from torch import Tensor

from captum_advise._utils.checks import check_class_range
from captum_advise.metrics._maps import check_maps


def infidelity(
    forward_func: Callable[[Tensor], Tensor],
    inputs: Tensor,
    maps: Tensor,
    target: Tensor,
    *,
    noise: float = 0.1,
    n_perturb_samples: int = 10,
    internal_batch_size: int = 32,
) -> Tensor:
    """Captum's ``infidelity`` (Yeh et al., NeurIPS 2019) of a map, under Gaussian noise.

    The map is the attribution of every channel. It is scaled to the best fit
    (``normalize=True``), because maps have no scale of their own.

    Args:
        forward_func: (M, C, H, W) inputs to class scores (M, K).
        inputs: (N, C, H, W) model inputs.
        maps: (N, 1, H, W).
        target: (N,) int64 classes.
        noise: Standard deviation of the noise, in the model's inputs.
        n_perturb_samples: How many noisy images are compared per example.
        internal_batch_size: How many images go through the model at once.

    Returns:
        (N,) at least zero, smaller is better. Depends on torch's random state.

    Raises:
        TypeError: The maps are not a real tensor, or the target not an int64 one.
        ValueError: There is not one map of the inputs' size for each input, it is not finite, or a
            class is out of range.

    Example::

        >>> from captum_advise.pixels import upsample_maps
        >>> maps = upsample_maps(LayerGradCam(net, net.conv4).attribute(images, 3), (32, 32))
        >>> infidelity(net, images, maps, torch.tensor([3, 3])).shape
        torch.Size([2])
    """
    check_maps(inputs, maps, target)
    if maps.shape[1] != 1:
        raise ValueError(f"infidelity takes one map for each input, got {maps.shape[1]}.")

    def checked_forward(images: Tensor) -> Tensor:
        outputs = forward_func(images)
        check_class_range(target, outputs.shape[1])
        return outputs

    def perturb(originals: Tensor) -> tuple[Tensor, Tensor]:
        change = noise * torch.randn(originals.shape).to(originals)  # one seed for all devices
        return change, originals - change

    values = captum_infidelity(
        checked_forward,
        perturb,
        inputs,
        maps.expand_as(inputs),
        target=target,
        n_perturb_samples=n_perturb_samples,
        max_examples_per_batch=min(
            max(internal_batch_size, len(inputs)), len(inputs) * n_perturb_samples
        ),
        normalize=True,
    )
    # Captum expands a square into a polynomial, which rounding can bring below zero.
    return cast(Tensor, values).clamp(min=0)
