"""The images of the page: which ones, and how they are embedded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from captum_advise._core.scoring import as_masks
from captum_advise.evaluation.pictures import as_picture
from captum_advise.evaluation.report.statistics import Comparison, default_baseline
from captum_advise.visualization.heat import heat_colours as colour_map
from captum_advise.visualization.html import data_uri

if TYPE_CHECKING:
    import pandas as pd

# Bounds the size of the page: a map of 224 x 224 takes 2 to 25 kB.
_MOST_MAPS, _FEWEST, _MOST_IMAGES = 240, 4, 24
_SIDE = 224
_WORST = 5  # images of each method and metric


@dataclass(frozen=True)
class ReportImage:
    """An image with its maps, as ``data:`` addresses.

    Attributes:
        index: Its position in the data.
        source: The image.
        maps: For each method its map, enlarged to the image: black is no evidence, white is most.
        width: Of all of them, in pixels.
        height: Likewise.
    """

    index: int
    source: str
    maps: tuple[str, ...]
    width: int
    height: int


def worst_images(results: pd.DataFrame, comparison: Comparison) -> list[int]:
    """The images on which each method loses most against the baseline in faithfulness."""
    baseline = default_baseline(comparison.methods)
    lists = []
    for metric in comparison.metrics:
        if metric.kind != "faithfulness":
            continue
        table = results.pivot(index="index", columns="method", values=metric.name)
        for method in comparison.methods:
            loss = table[baseline] - table[method]
            loss = loss if metric.higher_is_better else -loss
            lists.append(loss[loss > 0].nlargest(_WORST).index.tolist())
    return [index for place in zip_longest(*lists) for index in place if index is not None]


def chosen_images(indices: Sequence[int], worst: Sequence[int], n_methods: int) -> list[int]:
    """The images to embed: half of them evenly spread, then worst cases, the worst first.

    The more methods, the fewer images.
    """
    most = min(_MOST_IMAGES, max(_FEWEST, _MOST_MAPS // n_methods))
    if len(indices) <= most:
        return list(indices)
    spread = [indices[i * len(indices) // (most // 2)] for i in range(most // 2)]
    return sorted(list(dict.fromkeys([*spread, *worst]))[:most])


def embedded(index: int, pixels: Tensor, maps: Mapping[str, Tensor]) -> ReportImage:
    """An image (3, H, W) in [0, 1], and the map (1, 1, h, w) of each method."""
    pictures = [as_picture(pixels)]
    pictures += [as_picture(as_masks(own, pixels.shape[-2:])[0]) for own in maps.values()]
    for picture in pictures:
        picture.thumbnail((_SIDE, _SIDE))
    image, *others = pictures
    return ReportImage(
        index=index,
        source=data_uri(image, quality=82),
        maps=tuple(data_uri(picture, quality=60) for picture in others),
        width=image.width,
        height=image.height,
    )


def heat_colours() -> list[list[int]]:
    """The 256 colours of maps in all figures, red, green and blue in 0 to 255."""
    colours = colour_map()(np.linspace(0, 1, 256))
    return [[int(part) for part in colour] for colour in (255 * colours[:, :3]).round()]
