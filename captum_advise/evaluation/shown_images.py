"""The images that a report shows, with their maps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from captum_advise.evaluation.image_evaluation import MANY_PASSES, ImageEvaluator
from captum_advise.evaluation.items import name_of
from captum_advise.evaluation.methods.saved_maps import read_map
from captum_advise.evaluation.store import Image, RunFolder, as_field
from captum_advise.pixels import resolve_pixel_space

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class ShownImages:
    """Images of a run with the maps that were evaluated.

    Maps that took many forward passes are read from the run's folder. The others are made again.

    Attributes:
        evaluator: Makes maps.
        dataset: The images.
        folder: The run's.
        results: One row per image and method.
    """

    evaluator: ImageEvaluator
    dataset: Dataset[Any]
    folder: RunFolder
    results: pd.DataFrame

    def explained(self, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        """The image (3, H, W) in [0, 1] at a position, and each method's map (1, 1, h, w)."""
        item = self.dataset[index]
        inputs = (item[0] if isinstance(item, tuple | list) else item)[None]
        inputs = inputs.to(next(self.evaluator.model.parameters()).device)
        name = name_of(self.dataset, index)
        rows = self.results[self.results["index"] == index].set_index("method")
        maps = {
            method: self._kept(name, method, rows.loc[method]) for method in self.evaluator.methods
        }
        others = [method for method, own in maps.items() if own is None]
        made = self.evaluator.maps(name, inputs, int(rows["target"].iloc[0]), others)
        pixels = resolve_pixel_space(self.evaluator.context.pixel_space, inputs).to_pixels(inputs)
        return (
            pixels[0].clamp(0, 1).expand(3, -1, -1).cpu(),
            {method: made[method].cpu() if own is None else own for method, own in maps.items()},
        )

    def _kept(self, name: str, method: str, row: pd.Series[Any]) -> Tensor | None:
        """The map in the run's folder, if it is there and whole."""
        if not row["forward_passes"] > MANY_PASSES:
            return None
        # Not the table's name, which is changed where it is not UTF-8.
        image = Image(as_field(name), str(row["content"]))
        try:
            return torch.from_numpy(read_map(self.folder.map_file(image, method)))[None, None]
        except ValueError:
            return None
