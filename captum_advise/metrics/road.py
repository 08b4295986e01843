"""ROAD: the confidence while pixels are removed and imputed, in both orders."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from captum_advise.metrics._linear_imputation import impute
from captum_advise.metrics._maps import check_maps, pixel_ranks, single
from captum_advise.metrics._passes import target_confidences

_SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


class Road(NamedTuple):
    """Result of :func:`road`. For more than one map per input, N is (N, M).

    Attributes:
        value: (N,) mean of ``least_relevant_first`` minus that of ``most_relevant_first``.
        least_relevant_first: (N, S) confidence after each share of pixels has been removed, the
            least relevant ones first.
        most_relevant_first: (N, S) the same, the most relevant ones first.

    Example::

        >>> from captum_advise.metrics import road
        >>> road(net, images, torch.rand(2, 1, 32, 32), torch.tensor([3, 3])).value.shape
        torch.Size([2])
    """

    value: Tensor
    least_relevant_first: Tensor
    most_relevant_first: Tensor


@torch.no_grad()
def road(
    forward_func: Callable[[Tensor], Tensor],
    inputs: Tensor,
    maps: Tensor,
    target: Tensor,
    *,
    shares: Sequence[float] = _SHARES,
    noise: float = 0.01,
    confidence: Callable[[Tensor], Tensor] | None = None,
    internal_batch_size: int = 32,
) -> Road:
    """Confidence with the least relevant pixels removed, minus that with the most relevant ones.

    Noisy linear imputation replaces removed pixels by the weighted mean of their eight neighbours.
    So the shape of the removed region reveals less of the class than with a fixed colour. Each map
    takes 2 S forward passes.

    Source: Rong, Leemann, Borisov, Kasneci and Kasneci, "A Consistent and Efficient Evaluation
    Strategy for Attribution Methods" (ROAD: Remove And Debias), ICML 2022, arXiv 2202.00449.

    Args:
        forward_func, inputs, maps, target, confidence, internal_batch_size: As in
            :func:`captum_advise.metrics.insertion_auc`, also what is refused and warned of.
        shares: The shares of pixels that are removed, S numbers between 0 and 1.
        noise: Standard deviation of the noise that is added to imputed pixels, in the model's
            inputs. The noise at a pixel is the same for all shares and maps of an input.

    Returns:
        :class:`Road`. Its value lies in [-1, 1]; larger is better. Depends on torch's random state
        if there is noise.

    Raises:
        TypeError, ValueError: Likewise, or a share is not between 0 and 1.

    Example::

        >>> result = road(net, images, torch.rand(2, 1, 32, 32), torch.tensor([3, 3]))
        >>> result.value.shape, result.most_relevant_first.shape
        (torch.Size([2]), torch.Size([2, 9]))
    """
    check_maps(inputs, maps, target)
    if not shares or not all(0 < share < 1 for share in shares):
        raise ValueError(f"shares must be numbers between 0 and 1, got {tuple(shares)}.")
    n_examples, n_maps, height, width = maps.shape
    n_pixels = height * width
    ranks = pixel_ranks(maps)
    orders = torch.stack([n_pixels - 1 - ranks, ranks])  # the least and the most relevant first
    # One seed for all devices, whatever the defaults are.
    added = noise * torch.randn(inputs.shape, dtype=torch.float32, device="cpu").to(inputs)

    # Of an image of few pixels, one is left.
    counts = [min(round(share * n_pixels), n_pixels - 1) for share in shares]
    rows = torch.tensor(
        list(itertools.product(range(n_examples), range(n_maps), (0, 1), counts)),
        dtype=torch.int64,
        device=maps.device,
    ).view(-1, 4)

    def imputed_images() -> Iterator[Tensor]:
        # Map by map: rounding depends on the number of images that are imputed together.
        for of_map in torch.split(rows, 2 * len(counts)):
            for part in torch.split(of_map, internal_batch_size):
                example, map_index, order, count = part.T
                known = orders[order, example, map_index][:, None] >= count.view(-1, 1, 1, 1)
                imputed = impute(inputs[example], known)
                yield torch.where(known, imputed, imputed + added[example])

    confidences = target_confidences(
        forward_func, confidence, imputed_images(), rows[:, 0], target, internal_batch_size
    )
    curves = confidences.view(n_examples, n_maps, 2, len(shares))
    least_first, most_first = single(curves[:, :, 0]), single(curves[:, :, 1])
    return Road((least_first - most_first).mean(-1), least_first, most_first)
