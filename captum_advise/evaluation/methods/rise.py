"""RISE: random masks, weighted by the confidence in the masked images.

Petsiuk, Das and Saenko, "RISE: Randomized Input Sampling for Explanation of Black-box Models",
BMVC 2018.
"""

from __future__ import annotations

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
    n_images, size = len(inputs), (inputs.shape[2], inputs.shape[3])
    n_at_once = max(1, context.internal_batch_size // n_images)
    drawn, shifts = draw_cells(rise_masks, size)
    cells = torch.split(drawn.to(inputs.device), n_at_once)
    chunks = list(zip(cells, torch.split(shifts, n_at_once), strict=True))
    black = context.black(inputs)
    confidences = []
    with torch.no_grad():
        for chunk in chunks:
            masks = smooth_masks(*chunk, size)
            hidden = masked_images(inputs[:, None], masks, black[:, None])
            outputs = model(hidden.flatten(0, 1).to(inputs))
            confidences.append(context.confidence(outputs).view(n_images, len(masks), -1))

    def of_class(classes: Tensor) -> Tensor:
        of_images = torch.arange(n_images, device=inputs.device)
        maps = inputs.new_zeros(n_images, *size, dtype=torch.float32)
        for chunk, confidence in zip(chunks, confidences, strict=True):
            weights = confidence[of_images, :, classes].float()
            masks = smooth_masks(*chunk, size)
            maps += torch.einsum("nm,mhw->nhw", weights, masks[:, 0])
        return maps[:, None] / (_SHOWN * rise_masks)

    return ClassMaps(of_class(target), of_class)


def draw_cells(n_masks: int, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Random cells (M, 1, 8, 8), of which 1 is shown and 0 hidden, and shifts (M, 2) in pixels."""
    # On the CPU: one seed gives the same masks on every device.
    cells = torch.rand(n_masks, 1, _CELLS + 1, _CELLS + 1) < _SHOWN
    shifts = torch.rand(n_masks, 2) * torch.tensor(_cell_size(size))
    return cells.float(), shifts.long()


def smooth_masks(cells: Tensor, shifts: Tensor, size: tuple[int, int]) -> Tensor:
    """Masks (M, 1, H, W) in [0, 1]: enlarged cells, moved up and to the left by shifts."""
    enlarged_size = [(_CELLS + 1) * side for side in _cell_size(size)]
    enlarged = F.interpolate(cells, enlarged_size, mode="bilinear", align_corners=False)
    height, width = size
    return torch.stack(
        [
            mask[:, up : up + height, left : left + width]
            for mask, (up, left) in zip(enlarged, shifts.tolist(), strict=True)
        ]
    )


def _cell_size(size: tuple[int, int]) -> list[int]:
    """Height and width of a cell in pixels, rounded up."""
    return [-(-side // _CELLS) for side in size]
