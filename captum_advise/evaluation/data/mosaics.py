"""Mosaics of images of different classes, for the grid pointing game."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from captum_advise._utils.checks import check_count
from captum_advise._utils.errors import reason
from captum_advise._utils.probabilities import default_confidence
from captum_advise.evaluation.data.items import Items
from captum_advise.evaluation.digests import digest


@dataclass(frozen=True)
class MosaicDataset(Dataset[tuple[Tensor, int, Tensor]]):
    """Mosaics of the images of a data set; every cell in turn is to be explained.

    Items are ``(inputs, target, region)``: the mosaic, (C, side*H, side*W), the class of one cell,
    and the pixels of this cell, bool (1, side*H, side*W). The images keep their size. The mosaic of
    item i is ``i // side**2``, and its cell ``i % side**2``, row by row.

    Attributes:
        images: The data set of the images.
        side: A mosaic has ``side`` x ``side`` cells.
        tiles: For each mosaic, the positions of its images in ``images``.
        classes: For each mosaic, the classes of its images.

    Example::

        >>> dataset = [(image, label) for label, image in enumerate(torch.rand(4, 3, 8, 8))]
        >>> mosaics = MosaicDataset(dataset, 2, ((0, 1, 2, 3),), ((0, 1, 2, 3),))
        >>> inputs, target, region = mosaics[3]
        >>> len(mosaics), inputs.shape, target, region[0, :, ::4].tolist()[4]
        (4, torch.Size([3, 16, 16]), 3, [False, False, False, False])
    """

    images: Dataset[Any]
    side: int
    tiles: tuple[tuple[int, ...], ...]
    classes: tuple[tuple[int, ...], ...]
    has_regions = has_cells = True

    def __len__(self) -> int:
        return len(self.tiles) * self.side**2

    def __getitem__(self, index: int) -> tuple[Tensor, int, Tensor]:
        mosaic, cell = divmod(index, self.side**2)
        tiles = [self._items[tile].inputs[0] for tile in self.tiles[mosaic]]
        rows = [torch.cat(tiles[i : i + self.side], 2) for i in range(0, len(tiles), self.side)]
        inputs = torch.cat(rows, 1)
        row, column = divmod(cell, self.side)
        height, width = tiles[0].shape[1:]
        region = torch.zeros(1, *inputs.shape[1:], dtype=torch.bool)
        region[:, row * height : (row + 1) * height, column * width : (column + 1) * width] = True
        return inputs, self.classes[mosaic][cell], region

    @cached_property
    def _items(self) -> Items:
        return Items(self.images)

    @cached_property
    def names(self) -> list[str]:
        """For each item, the number of the mosaic, that of the cell, and the image in the cell."""
        return [
            f"mosaic {mosaic + 1}, cell {cell + 1}: {self._items.names[tile]}"
            for mosaic, tiles in enumerate(self.tiles)
            for cell, tile in enumerate(tiles)
        ]


def mosaic_dataset(
    model: nn.Module,
    images: Dataset[Any],
    *,
    side: int = 2,
    count: int = 20,
    threshold: float = 0.7,
    seed: int = 0,
    confidence: Callable[[Tensor], Tensor] | None = None,
) -> MosaicDataset:
    """Make mosaics for the grid pointing game: images of different classes, side by side.

    Only images whose class has a confidence above ``threshold`` are used. Every cell of a mosaic is
    one item: the mosaic, the class of the cell's image, and the cell as region. A good map of that
    class lies in the cell.

    The first round uses each image at most once, in random order. If mosaics are missing, further
    rounds use the images again, in other combinations. An image in several mosaics counts once in
    :func:`evaluate`, with its mean.

    To evaluate images and mosaics in one run, add the data sets:
    ``evaluate(model, layer, images + mosaics, ...)``.

    Args:
        model: Classifier in eval mode that takes images of any size, such as a convolutional
            network with global pooling.
        images: Items as in :func:`evaluate`. Without a class, the predicted one counts.
        side: A mosaic has ``side`` x ``side`` cells.
        count: The number of mosaics, at most: fewer where a round gives no further one.
        threshold: The confidence in its class that an image must exceed.
        seed: Decides which images are in which mosaic and where.
        confidence: Class scores to probabilities, as in :func:`evaluate`.

    Returns:
        :class:`MosaicDataset`, the same for the same arguments.

    Raises:
        TypeError: ``side``, ``count`` or ``seed`` is not an int.
        ValueError: One of them is too small, there are too few images of different classes, or the
            model does not take a mosaic.

    Example::

        >>> dataset = [(image, label) for label, image in enumerate(torch.rand(8, 3, 8, 8))]
        >>> mosaics = mosaic_dataset(net, dataset, count=2, threshold=0.0)
        >>> len(mosaics), mosaics[0][0].shape
        (8, torch.Size([3, 16, 16]))
    """
    check_count("side", side, at_least=2)
    check_count("count", count, at_least=1)
    check_count("seed", seed, at_least=0)
    to_probabilities = confidence or default_confidence(model)
    parameter = next(model.parameters())
    device, items = parameter.device, Items(images, parameter.dtype)
    n_cells = side**2
    size: torch.Size | None = None

    @cache
    def sure_class(index: int) -> int | None:
        """The class of an image; None if the model is not sure of it."""
        nonlocal size
        try:
            item = items[index]
            with torch.no_grad():
                (probabilities,) = to_probabilities(model(item.inputs.to(device)))
        except Exception:  # which evaluating the image records
            return None
        label = int(probabilities.argmax()) if item.target is None else item.target
        size = size or item.inputs.shape
        is_sure = item.inputs.shape == size and probabilities[label] > threshold
        return label if is_sure else None

    mosaics: dict[frozenset[int], dict[int, int]] = {}  # images to classes with positions
    for number in itertools.count():
        n_before = len(mosaics)
        # More images leave the order of the others.
        prefix = f"{seed} {number} " if number else f"{seed} "
        order = sorted(range(len(items)), key=lambda i: digest(prefix, items.names[i]))
        for mosaic in _round(order, sure_class, n_cells, count - n_before):
            mosaics.setdefault(frozenset(mosaic.values()), mosaic)
        if len(mosaics) in (n_before, count):
            break
    whole = list(mosaics.values())
    if not whole:
        n_classes = len({sure_class(index) for index in order} - {None})
        raise ValueError(
            f"A mosaic of {side} x {side} images needs {n_cells} classes in which the model has a "
            f"confidence above {threshold:g}, and the data have {n_classes}: give more images of "
            "other classes, or leave the mosaics out."
        )
    dataset = MosaicDataset(
        images,
        side,
        tiles=tuple(tuple(mosaic.values()) for mosaic in whole),
        classes=tuple(tuple(mosaic) for mosaic in whole),
    )
    first = dataset[0][0][None].to(parameter)
    try:
        with torch.no_grad():
            model(first)
    # What a network raises for a size that it does not take depends on the network.
    except Exception as error:
        raise ValueError(
            f"The model does not take a mosaic of {first.shape[2]} x {first.shape[3]} pixels "
            f"({reason(error)}): mosaics need a network with global pooling, so leave them out."
        ) from error
    return dataset


def _round(
    order: Sequence[int], sure_class: Callable[[int], int | None], n_cells: int, count: int
) -> list[dict[int, int]]:
    """Up to ``count`` whole mosaics, class to position, with each image in one at most."""
    mosaics: list[dict[int, int]] = [{} for _ in range(count)]
    for index in order:
        if all(len(mosaic) == n_cells for mosaic in mosaics):
            break
        label = sure_class(index)
        for mosaic in mosaics:
            if label is not None and len(mosaic) < n_cells and label not in mosaic:
                mosaic[label] = index
                break
    return [mosaic for mosaic in mosaics if len(mosaic) == n_cells]
