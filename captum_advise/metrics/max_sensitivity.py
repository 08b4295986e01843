"""Max-sensitivity: how far small noise moves a map."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from captum.metrics import sensitivity_max as captum_sensitivity_max
from torch import Tensor

from captum_advise._utils.checks import check_int64


def sensitivity_max(
    explain: Callable[[Tensor, Tensor], Tensor],
    inputs: Tensor,
    target: Tensor,
    *,
    perturb_radius: float = 0.02,
    n_perturb_samples: int = 10,
) -> Tensor:
    """Captum's ``sensitivity_max`` (Yeh et al., NeurIPS 2019): how far small noise moves a map.

    Args:
        explain: (P, C, H, W) inputs and (P,) targets to maps.
        inputs: (N, C, H, W) model inputs.
        target: (N,) int64 classes.
        perturb_radius: Largest change of any value, in the model's inputs.
        n_perturb_samples: How many noisy images are explained per example.

    Returns:
        (N,) largest change relative to the map, in the Euclidean norm; at least zero, smaller is
        better. Depends on torch's random state.

    Raises:
        TypeError, ValueError: The target does not hold one int64 class for each input.

    Example::

        >>> grad_cam = LayerGradCam(net, net.conv4)
        >>> sensitivity_max(grad_cam.attribute, images, torch.tensor([3, 3])).shape
        torch.Size([2])
    """
    check_int64(target)
    if target.shape != inputs.shape[:1]:
        raise ValueError(
            f"target must hold one class per example, ({len(inputs)},), got {tuple(target.shape)}."
        )

    def explanation(images: tuple[Tensor, ...], target: Tensor) -> tuple[Tensor, ...]:
        # Captum repeats several classes for the noisy images, but not a single one. A tuple,
        # because Captum would take the rows of a tensor for several explanations. A copy, as
        # models may change their inputs in place, and Captum uses them again.
        return (explain(images[0].clone(), target.expand(len(images[0]))),)

    return cast(
        Tensor,
        captum_sensitivity_max(
            explanation,
            inputs,
            perturb_radius=perturb_radius,
            n_perturb_samples=n_perturb_samples,
            target=target,
        ),
    )
