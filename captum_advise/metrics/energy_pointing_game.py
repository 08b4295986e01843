"""Energy-based pointing game: the share of a map's mass that lies on the object."""

from __future__ import annotations

from torch import Tensor

from captum_advise.metrics._maps import check_regions, floating, single


def energy_pointing_game(
    maps: Tensor, regions: Tensor, other_regions: Tensor | None = None
) -> Tensor:
    """The share of the positive mass of each map that lies in the region. Larger is better.

    A map that is sharpened, by a power for example, gets a larger share without pointing better.

    Source: Wang, Wang, Du, Yang, Zhang, Ding, Mardziel and Hu, "Score-CAM: Score-Weighted Visual
    Explanations for Convolutional Neural Networks", CVPR Workshops 2020.

    Args:
        maps, regions: As in :func:`captum_advise.metrics.pointing_game`, also what is refused.
            Negative values count as zero.
        other_regions: Where an object of another class is. Only mass in one of the two regions
            counts then, so the share says whether a map tells the classes apart.

    Returns:
        (N,) in [0, 1], or (N, M) for more than one map; zero without mass.

    Example::

        >>> left_half = (torch.arange(8) < 4).expand(1, 1, 8, 8)
        >>> energy_pointing_game(torch.ones(1, 1, 8, 8), left_half)
        tensor([0.5000])
    """
    check_regions(maps, regions)
    # In double precision, as sums over many pixels.
    mass = maps.double().clamp(min=0)
    if other_regions is not None:
        check_regions(maps, other_regions)
        mass = mass * (regions | other_regions)
    total = mass.sum((2, 3))
    inside = (mass * regions).sum((2, 3)) / total.where(total > 0, 1.0)
    return single(inside.to(floating(maps)))
