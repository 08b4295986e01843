"""The images that a report shows, with their maps."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from captum_advise._utils.optional_dependencies import import_optional
from captum_advise.evaluation.data.items import Items
from captum_advise.evaluation.run.image_evaluator import ImageEvaluator
from captum_advise.evaluation.run.results import StoredRun
from captum_advise.pixels import resolve_pixel_space


@dataclass(frozen=True)
class ShownImages:
    """Images of a run with the maps that were evaluated.

    Maps that took many forward passes are stored. The others are made again.

    Attributes:
        evaluator: Makes maps.
        items: The images.
        run: What is stored.
    """

    evaluator: ImageEvaluator
    items: Items
    run: StoredRun

    def __call__(self, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        """The image (3, H, W) in [0, 1] at a position, and each method's map (1, 1, h, w)."""
        item = self.items[index].to(self.evaluator.device)
        stored = {method: self.run.kept_map(index, method) for method in self.evaluator.methods}
        others = [method for method, picture in stored.items() if picture is None]
        made = self.evaluator.maps(item, others)
        maps = {
            method: made[method].cpu() if picture is None else _as_map(picture)
            for method, picture in stored.items()
        }
        inputs = item.inputs
        pixels = resolve_pixel_space(self.evaluator.context.pixel_space, inputs).to_pixels(inputs)
        return pixels[0].clamp(0, 1).expand(3, -1, -1).float().cpu(), maps


def _as_map(picture: bytes) -> Tensor:
    pillow = import_optional("PIL.Image", "evaluation")
    with pillow.open(io.BytesIO(picture)) as image:
        return torch.from_numpy(np.asarray(image).astype(np.float32))[None, None]
