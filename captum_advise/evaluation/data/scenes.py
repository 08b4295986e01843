"""A data set of scenes: made images in which the class and the mask of each object are known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor
from torch.utils.data import Dataset

from captum_advise import zoo
from captum_advise._utils.checks import check_count
from captum_advise._utils.optional_dependencies import import_optional
from captum_advise.evaluation.data.scene_drawing import SHAPES, Scene, draw_scene
from captum_advise.zoo.scene_networks import SIZE

Split: TypeAlias = Literal["training", "search", "test"]
_SPLITS = {"training": 0, "search": 1, "test": 2}
N_SCENES = 100_000  # of each split and number of objects


def scene(index: int, *, n_objects: int = 2, split: Split = "test") -> Scene:
    """A scene of a split, the same on every machine.

    A scene is a 64 x 64 image with a textured background, one to three distractors of irregular
    shape, and one or two objects of different classes: disc, square, triangle, star, cross, ring,
    crescent, hexagon, arrow or heart, in random colour, size, angle and place.

    Args:
        index: From 0 to 99,999.
        n_objects: 1 or 2.
        split: ``"training"`` for networks, ``"search"`` for choices about methods, ``"test"`` for
            results.

    Returns:
        :class:`Scene` with the image, uint8 (64, 64, 3), the class of each object, and its mask.

    Raises:
        IndexError: There is no such scene.
        TypeError: A number is not an int.
        ValueError: Another number of objects or split.

    Example::

        >>> found = scene(0, split="search")
        >>> found.image.shape, found.classes, found.masks.shape
        ((64, 64, 3), (5, 2), (2, 64, 64))
    """
    check_count("index", index, at_least=0)
    if index >= N_SCENES:
        raise IndexError(f"There are the scenes 0 to {N_SCENES - 1}, not {index}.")
    if n_objects not in (1, 2):
        raise ValueError(f"A scene has 1 or 2 objects, not {n_objects!r}.")
    if split not in _SPLITS:
        raise ValueError(f"split must be one of {', '.join(_SPLITS)}, got {split!r}.")
    return draw_scene((_SPLITS[split], n_objects, index), n_objects)


@dataclass(frozen=True)
class SceneDataset(Dataset[tuple[Tensor, int, Tensor, Tensor]]):
    """Scenes of two objects as inputs of one network; each object in turn is to be explained.

    Items are ``(inputs, target, region, other)``. Inputs are (3, 64, 64), and the target is the
    class of one object. Its pixels and those of the other object are bool (1, 64, 64).

    Attributes:
        network: Its transform makes the inputs.
        indices: The scenes, by index.
        split: Of the scenes.

    Example::

        >>> scenes = SceneDataset(zoo.load("scenes-vit"), indices=(0, 1), split="search")
        >>> len(scenes), scenes.names[3]
        (4, 'object 2: scene 1')
    """

    network: zoo.Network
    indices: tuple[int, ...]
    split: Split = "test"
    has_regions = has_pairs = True

    def __len__(self) -> int:
        return 2 * len(self.indices)

    def __getitem__(self, index: int) -> tuple[Tensor, int, Tensor, Tensor]:
        place, position = divmod(index, 2)
        found = scene(self.indices[place], split=self.split)
        masks = torch.from_numpy(found.masks)[:, None]
        inputs = _inputs(found, self.network)
        return inputs, found.classes[position], masks[position], masks[1 - position]

    @property
    def names(self) -> list[str]:
        """For each item, the number of the object and that of the scene."""
        return [
            f"object {position}: scene {index}" for index in self.indices for position in (1, 2)
        ]


def scene_dataset(network: zoo.Network, *, count: int = 50, split: Split = "test") -> SceneDataset:
    """The first scenes of a split whose two objects a network recognises.

    A scene counts if the classes of its objects are the network's two most probable ones. In the
    others it is not clear what a map should show.

    Args:
        network: A classifier of scenes, such as ``zoo.load("scenes-resnet")``.
        count: The number of scenes.
        split: As in :func:`scene`.

    Raises:
        TypeError: A number is not an int.
        ValueError: The network takes inputs of another size or has other classes, or it recognises
            too few scenes.

    Example::

        >>> dataset = scene_dataset(zoo.load("scenes-resnet"), count=3)
        >>> inputs, target, region, other = dataset[0]
        >>> len(dataset), inputs.shape, region.shape
        (6, torch.Size([3, 64, 64]), torch.Size([1, 64, 64]))
    """
    check_count("count", count, at_least=1)
    if len(network.class_names) != len(SHAPES):
        raise ValueError(
            f"Scenes have {len(SHAPES)} classes, and {network.name} has "
            f"{len(network.class_names)}: take a network that was trained on scenes, such as "
            "scenes-resnet."
        )
    found: list[int] = []
    # About half must be right: by chance, any network of ten classes is right now and then.
    for index in range(min(2 * count + 4, N_SCENES)):
        given = scene(index, split=split)
        inputs = _inputs(given, network)
        with torch.no_grad():
            scores = network.model(inputs[None].to(network.device))[0]
        if set(scores.topk(2).indices.tolist()) == set(given.classes):
            found.append(index)
        if len(found) == count:
            return SceneDataset(network, tuple(found), split)
    raise ValueError(
        f"{network.name} recognises {len(found)} of the first {index + 1} scenes, and {count} were "
        "asked for: take fewer, or a network that was trained on scenes."
    )


def _inputs(given: Scene, network: zoo.Network) -> Tensor:
    image = import_optional("PIL.Image", "zoo").fromarray(given.image)
    inputs: Any = network.transform(image)
    if tuple(inputs.shape[1:]) != (SIZE, SIZE):
        raise ValueError(
            f"Scenes have {SIZE} x {SIZE} pixels, and {network.name} takes "
            f"{' x '.join(map(str, inputs.shape[1:]))}: take a network of this size, such as "
            "scenes-resnet."
        )
    return inputs  # type: ignore[no-any-return]
