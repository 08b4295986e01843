"""Layouts of layers that are not N x C x H x W: values for ``reshape_transform``."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeAlias

from torch import Tensor

__all__ = ["Tokens", "channels_last"]

ReshapeTransform: TypeAlias = Callable[[Tensor], Tensor]


def channels_last(features: Tensor) -> Tensor:
    r"""Move units from the last dimension to the second, for Swin, DaViT and similar networks.

    Args:
        features: (N, \*spatial, C), to (N, C, \*spatial), a view.

    Example::

        >>> channels_last(torch.zeros(2, 7, 7, 768)).shape
        torch.Size([2, 768, 7, 7])
    """
    return features.movedim(-1, 1)


@dataclass(frozen=True)
class Tokens:
    """Rearrange the tokens (N, T, C) of a transformer as a map of its patches (N, C, H, W).

    Args:
        n_prefix: How many tokens before the patches to leave out: 1 for a class token, more for
            distillation or register tokens.
        size: (H, W), rows and columns of patches. None: the attributions of this package take
            the grid whose aspect is that of the image; called alone, a square.

    Raises:
        ValueError: When called, if the remaining tokens do not fill that grid.

    Example::

        >>> Tokens(n_prefix=1)(torch.zeros(2, 197, 768)).shape
        torch.Size([2, 768, 14, 14])
    """

    n_prefix: int = 0
    size: tuple[int, int] | None = None

    def for_image(self, n_tokens: int, height: int, width: int) -> Tokens:
        """The same with the grid of patches that fits an image best, unless ``size`` is given.

        Args:
            n_tokens: Of the layer, T.
            height, width: Of the image.
        """
        patches = n_tokens - self.n_prefix
        if self.size is not None or patches < 1:
            return self
        grids = ((rows, patches // rows) for rows in range(1, patches + 1) if not patches % rows)
        # Patches are square, or nearly so where images are padded.
        best = min(grids, key=lambda grid: abs(math.log(height * grid[1] / (width * grid[0]))))
        return replace(self, size=best)

    def __call__(self, features: Tensor) -> Tensor:
        """Tokens (N, T, C) to (N, C, H, W)."""
        patches = features.shape[1] - self.n_prefix if features.dim() == 3 else -1
        side = math.isqrt(max(patches, 0))
        height, width = self.size or (side, side)
        if patches < 1 or patches != height * width:
            grid = "a square" if self.size is None else f"{height} x {width}"
            raise ValueError(
                f"A layer of shape {tuple(features.shape)} does not hold {self.n_prefix} tokens "
                f"before {grid} of patches: give n_prefix and size, (N, tokens, C) is needed."
            )
        patches_last = features[:, self.n_prefix :].transpose(1, 2)
        return patches_last.reshape(*patches_last.shape[:2], height, width)
