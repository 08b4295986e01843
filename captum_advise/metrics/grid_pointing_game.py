"""Grid pointing game: whether a map of a mosaic of images marks the image of its class."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from captum_advise._utils.checks import check_count, check_real
from captum_advise.metrics._maps import check_finite, numbers, single
from captum_advise.metrics.energy_pointing_game import mass_share
from captum_advise.metrics.top_pixels import top_share


class GridPointing(NamedTuple):
    """Result of :func:`grid_pointing_game`. For more than one map per mosaic, N is (N, M).

    Attributes:
        mass: (N,) share of the map's positive mass that lies in the cell, in [0, 1].
        top: (N,) share of the map's highest pixels that lie in the cell, in [0, 1]. They are as
            many as the cell has.

    Example::

        >>> from captum_advise.metrics import grid_pointing_game
        >>> result = grid_pointing_game(torch.rand(2, 1, 8, 8), torch.tensor([0, 3]))
        >>> result.mass.shape, result.top.shape
        (torch.Size([2]), torch.Size([2]))
    """

    mass: Tensor
    top: Tensor


def grid_pointing_game(maps: Tensor, cells: Tensor, *, side: int = 2) -> GridPointing:
    """How much of each map of a mosaic lies in the cell whose class the map explains.

    Böhle, Fritz and Schiele, "Convolutional Dynamic Alignment Networks for Interpretable
    Classifications", CVPR 2021. A map that is sharpened, by a power for example, puts a larger
    share of its mass into the cell where it is highest anyway. The share of the highest pixels
    depends on their order alone.

    Args:
        maps: (N, M, H, W), M maps for each mosaic. Negative values count as zero in the mass.
        cells: (N,) int64, the cell of the class that is explained, from 0, row by row.
        side: The mosaic has ``side`` x ``side`` cells of equal size.

    Returns:
        :class:`GridPointing`; larger is better, and chance is ``1 / side**2``. Pixels that are tied
        at the limit of the highest ones count in equal parts.

    Raises:
        TypeError: An argument is not a real tensor, ``cells`` is not int64, or ``side`` not an int.
        ValueError: The shapes do not fit, ``side`` does not divide the maps' size, a cell is out of
            range, or the maps are not finite.

    Example::

        >>> maps = torch.zeros(1, 1, 4, 4)
        >>> maps[0, 0, :2, 2:] = torch.tensor([[3.0, 3.0], [3.0, 0.0]])
        >>> maps[0, 0, 3, 0] = 1.0
        >>> grid_pointing_game(maps, torch.tensor([1]))
        GridPointing(mass=tensor([0.9000]), top=tensor([0.7500]))
    """
    check_real(maps=maps, cells=cells)
    check_count("side", side, at_least=2)
    if cells.dtype != torch.int64:
        raise TypeError(f"cells must be of torch.int64, got {cells.dtype}.")
    if maps.dim() != 4 or not maps.numel() or cells.shape != maps.shape[:1]:
        raise ValueError(
            "maps must be (N, M, H, W) and cells (N,), got "
            f"{tuple(maps.shape)} and {tuple(cells.shape)}."
        )
    check_finite(maps)
    maps = numbers(maps)
    height, width = maps.shape[2:]
    if height % side or width % side:
        raise ValueError(
            f"Maps of {height} x {width} pixels cannot be divided into {side} x {side} cells of "
            "equal size: resize them first."
        )
    if not bool(((cells >= 0) & (cells < side**2)).all()):
        raise ValueError(f"cells must be from 0 to {side**2 - 1}.")
    masks = cell_masks(cells, side, height, width)
    top = top_share(maps, masks, height * width // side**2)
    return GridPointing(single(mass_share(maps, masks)), single(top))


def cell_masks(cells: Tensor, side: int, height: int, width: int) -> Tensor:
    """The pixels of cells (N,) of a mosaic, bool (N, 1, H, W)."""
    row = torch.arange(height, device=cells.device) * side // height
    column = torch.arange(width, device=cells.device) * side // width
    return (row[:, None] * side + column) == cells.view(-1, 1, 1, 1)
