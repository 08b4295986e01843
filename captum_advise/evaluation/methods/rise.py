"""RISE: random masks, weighted by the confidence in the masked images.

Petsiuk, Das and Saenko, "RISE: Randomized Input Sampling for Explanation of Black-box Models",
BMVC 2018.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from captum_advise.evaluation.methods.interface import ClassMaps, Context
from captum_advise.pixels import masked_images

# The paper's: 7 x 7 cells, each of which is shown with probability 0.5.
_CELLS, _SHOWN = 7, 0.5


def rise(
    model: nn.Module,
    layer: nn.Module,
    inputs: Tensor,
    target: Tensor,
    context: Context,
    rise_masks: int,
) -> ClassMaps:
    """RISE, with black where a mask hides the image. One set of masks serves all classes."""
    masks = RandomMasks.draw(rise_masks, inputs.shape[-2:], inputs)
    n_images, n_at_once = len(inputs), max(1, context.internal_batch_size // len(inputs))
    black = context.black(inputs)
    chunks = torch.split(torch.arange(len(masks), device=inputs.device), n_at_once)
    with torch.no_grad():
        confidences = []
        for chunk in chunks:
            hidden = masked_images(inputs[:, None], masks[chunk], black[:, None])
            outputs = model(hidden.flatten(0, 1).to(inputs))
            confidences.append(context.confidence(outputs).view(n_images, len(chunk), -1))
        of_all_classes = torch.cat(confidences, 1)  # (N, masks, K)

    def of_class(classes: Tensor) -> Tensor:
        of_images = torch.arange(n_images, device=inputs.device)
        weights = of_all_classes[of_images, :, classes].float()
        maps = inputs.new_zeros(n_images, *inputs.shape[-2:], dtype=torch.float32)
        for chunk in chunks:
            maps += torch.einsum("nm,mhw->nhw", weights[:, chunk], masks[chunk][:, 0])
        return maps[:, None] / (_SHOWN * len(masks))

    return ClassMaps(of_class(target), of_class)


@dataclass(frozen=True)
class RandomMasks:
    """Random smooth masks, made when they are indexed.

    Attributes:
        cells: (M, 1, 8, 8), 1 where a cell is shown and 0 elsewhere.
        shifts: (M, 2) int64, in pixels: by how much the cells are moved up and to the left.
        size: Height and width of the masks.
    """

    cells: Tensor
    shifts: Tensor
    size: tuple[int, ...]

    @classmethod
    def draw(cls, n_masks: int, size: tuple[int, ...], like: Tensor) -> RandomMasks:
        """Draw masks for the device of a tensor."""
        # On the CPU: one seed gives the same masks on every device.
        drawn = torch.rand(n_masks, 1, _CELLS + 1, _CELLS + 1)
        shifts = (torch.rand(n_masks, 2) * torch.tensor(_cell_size(size))).long()
        return cls((drawn < _SHOWN).float().to(like.device), shifts.to(like.device), tuple(size))

    def __len__(self) -> int:
        return len(self.cells)

    def __getitem__(self, chunk: Tensor) -> Tensor:
        """Masks (M, 1, H, W) in [0, 1] of the given numbers."""
        enlarged = F.interpolate(
            self.cells[chunk],
            [(_CELLS + 1) * side for side in _cell_size(self.size)],
            mode="bilinear",
            align_corners=False,
        )
        rows, columns = (
            self.shifts[chunk, axis, None] + torch.arange(side, device=chunk.device)
            for axis, side in enumerate(self.size)
        )
        of_masks = torch.arange(len(chunk), device=chunk.device)[:, None, None]
        return enlarged[of_masks, 0, rows[:, :, None], columns[:, None, :]][:, None]


def _cell_size(size: tuple[int, ...]) -> list[int]:
    """Height and width of a cell in pixels, rounded up."""
    return [-(-side // _CELLS) for side in size]
