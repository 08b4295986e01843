"""Infidelity under Gaussian noise."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from captum.metrics import infidelity as captum_infidelity
from torch import Tensor

from captum_advise._utils.checks import check_class_range, check_count
from captum_advise.metrics._maps import check_maps
from captum_advise.metrics._passes import warn_if_unsteady


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
        forward_func, inputs, target, internal_batch_size: As in
            :func:`captum_advise.metrics.insertion_auc`, also what is refused and warned of.
        maps: (N, 1, H, W).
        noise: Standard deviation of the noise, in the model's inputs.
        n_perturb_samples: How many noisy images are compared per example.

    Returns:
        (N,) at least zero, smaller is better. Depends on torch's random state.

    Raises:
        TypeError, ValueError: Likewise, or there is more than one map for an input.

    Example::

        >>> infidelity(net, images, torch.rand(2, 1, 32, 32), torch.tensor([3, 3])).shape
        torch.Size([2])
    """
    check_maps(inputs, maps, target)
    if maps.shape[1] != 1:
        raise ValueError(f"infidelity takes one map for each input, got {maps.shape[1]}.")

    check_count("n_perturb_samples", n_perturb_samples, at_least=1)
    check_count("internal_batch_size", internal_batch_size, at_least=1)
    warn_if_unsteady(forward_func)

    def in_batches(images: Tensor) -> Tensor:
        outputs = torch.cat(
            [forward_func(part) for part in torch.split(images, internal_batch_size)]
        )
        check_class_range(target, outputs.shape[1])
        return outputs

    def perturb(originals: Tensor) -> tuple[Tensor, Tensor]:
        # All samples of an image at once, so that they depend on nothing but the seed and the
        # image's position. On the CPU in single precision: the same for all devices and defaults.
        shape = (n_perturb_samples, *originals.shape[1:])
        drawn = [
            torch.randn(shape, dtype=torch.float32, device="cpu")
            for _ in range(len(originals) // n_perturb_samples)
        ]
        change = noise * torch.cat(drawn).to(originals)
        return change, originals - change

    values = [inputs.new_zeros(0)]
    n_at_once = max(1, internal_batch_size // n_perturb_samples)
    for examples in torch.split(torch.arange(len(inputs), device=inputs.device), n_at_once):
        if len(examples):
            part = inputs[examples]
            found = captum_infidelity(
                in_batches,
                perturb,
                part,
                maps[examples].expand_as(part),
                target=target[examples],
                n_perturb_samples=n_perturb_samples,
                normalize=True,
            )
            values.append(cast(Tensor, found))
    # Captum expands a square into a polynomial, which rounding can bring below zero.
    return torch.cat(values).clamp(min=0)
