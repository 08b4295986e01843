"""Scenes, made images in which the class and the mask of each object are known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from captum_advise.zoo.scene_networks import SIZE

Coordinates: TypeAlias = NDArray[np.float64]
Inside: TypeAlias = Callable[[Coordinates, Coordinates], NDArray[np.bool_]]

_SAMPLES = 3  # per pixel and side


@dataclass(frozen=True)
class Scene:
    """An image with one or two objects.

    Attributes:
        image: uint8 (64, 64, 3), RGB.
        classes: The class of each object, an index of ``SHAPES``.
        masks: The pixels of each object, bool (objects, 64, 64): those of which it covers at least
            half.

    Example::

        >>> from captum_advise.evaluation import scene
        >>> found = scene(3, n_objects=1, split="search")
        >>> found.image.dtype, len(found.classes), bool(found.masks.any())
        (dtype('uint8'), 1, True)
    """

    image: NDArray[np.uint8]
    classes: tuple[int, ...]
    masks: NDArray[np.bool_]


def draw_scene(seed: tuple[int, ...], n_objects: int) -> Scene:
    """The scene of a seed of non-negative ints, as :func:`captum_advise.evaluation.scene` says.

    Objects neither overlap nor leave the image, and lie over the distractors. NumPy keeps the
    stream of ``RandomState``, so a seed gives the same scene with every version.
    """
    random = np.random.RandomState(np.array(seed, np.uint32))
    canvas = _background(random)
    for _ in range(random.randint(1, 4)):
        centre, radius = random.uniform(0, SIZE, 2), random.uniform(4, 10)
        _paint(canvas, _blob(random), centre, radius, 0.0, random)
    classes = random.permutation(len(SHAPES))[:n_objects]
    masks = np.zeros((n_objects, SIZE, SIZE), bool)
    places = _places(random, n_objects)
    for mask, label, (x, y, radius) in zip(masks, classes, places, strict=True):
        angle = random.uniform(0, 2 * np.pi)
        inside = tuple(SHAPES.values())[label]
        mask[:] = _paint(canvas, inside, np.array([x, y]), radius, angle, random) >= 0.5
    image = np.rint(255 * np.clip(canvas, 0, 1)).astype(np.uint8)
    return Scene(image, tuple(map(int, classes)), masks)


def _background(random: np.random.RandomState) -> NDArray[np.float64]:
    """A colour, plane waves in other colours, and noise: (64, 64, 3)."""
    y, x = np.mgrid[:SIZE, :SIZE] / SIZE
    canvas = np.broadcast_to(random.uniform(0.2, 0.8, 3), (SIZE, SIZE, 3)).copy()
    for _ in range(5):
        frequency, angle, phase = random.uniform([1, 0, 0], [9, np.pi, 2 * np.pi])
        along = np.cos(angle) * x + np.sin(angle) * y
        wave = np.sin(2 * np.pi * frequency * along + phase)
        canvas += wave[..., None] * random.uniform(-0.07, 0.07, 3)
    return canvas + 0.03 * random.standard_normal(canvas.shape)


def _places(random: np.random.RandomState, count: int) -> NDArray[np.float64]:
    """Circles that hold one object each, inside the image and apart: rows of x, y, radius."""
    largest = 15 if count == 1 else 13
    while True:
        radii = random.uniform(8, largest, count)
        centres = radii[:, None] + random.uniform(0, 1, (count, 2)) * (SIZE - 2 * radii[:, None])
        if count == 1 or np.hypot(*(centres[0] - centres[1])) > radii.sum():
            return np.column_stack([centres, radii])


def _paint(
    canvas: NDArray[np.float64],
    inside: Inside,
    centre: NDArray[np.float64],
    radius: float,
    angle: float,
    random: np.random.RandomState,
) -> NDArray[np.float64]:
    """Paint a shape, and return the part of each pixel that it covers, (64, 64)."""
    offsets = (np.arange(SIZE * _SAMPLES) + 0.5) / _SAMPLES
    x, y = (offsets - centre[0]) / radius, (offsets - centre[1]) / radius
    near = np.ix_(abs(y) <= 2, abs(x) <= 2)  # no outline reaches further
    x, y = x[near[1]], y[near[0]]
    cosine, sine = np.cos(angle), np.sin(angle)
    samples = np.zeros((len(offsets), len(offsets)), bool)
    samples[near] = inside(cosine * x + sine * y, cosine * y - sine * x)
    cover: NDArray[np.float64] = samples.reshape(SIZE, _SAMPLES, SIZE, _SAMPLES).mean((1, 3))
    under = canvas[cover > 0].mean(0) if cover.any() else canvas.mean((0, 1))
    while True:
        colour = random.uniform(0, 1, 3)
        if np.linalg.norm(colour - under) > 0.4:
            break
    shade = random.uniform(-0.12, 0.12, 2)
    y, x = np.mgrid[:SIZE, :SIZE]
    light = shade[0] * (x - centre[0]) / radius + shade[1] * (y - centre[1]) / radius
    noise = 0.03 * random.standard_normal((SIZE, SIZE, 3))
    canvas += cover[..., None] * (colour + light[..., None] + noise - canvas)
    return cover


def _blob(random: np.random.RandomState) -> Inside:
    """An irregular outline."""
    orders = np.arange(2, 7)
    amplitudes = random.uniform(-0.3, 0.3, 5)
    phases = random.uniform(0, 2 * np.pi, 5)

    def inside(x: Coordinates, y: Coordinates) -> NDArray[np.bool_]:
        waves = np.cos(np.arctan2(y, x)[..., None] * orders + phases)
        return np.hypot(x, y) <= 0.8 * (1 + waves @ amplitudes)

    return inside


def _polygon(*corners: tuple[float, float]) -> Inside:
    """Inside where a ray crosses an odd number of edges."""

    def inside(x: Coordinates, y: Coordinates) -> NDArray[np.bool_]:
        odd = np.zeros(np.broadcast(x, y).shape, bool)
        for (x0, y0), (x1, y1) in zip(corners, corners[1:] + corners[:1], strict=True):
            if y0 != y1:
                odd ^= ((y0 > y) != (y1 > y)) & (x < x0 + (x1 - x0) * (y - y0) / (y1 - y0))
        return odd

    return inside


def _regular(corners: int, *radii: float) -> Inside:
    """A polygon with corners at equal angles, whose radii take turns."""
    angles = 2 * np.pi * np.arange(corners) / corners
    radius = np.resize(np.array(radii), corners)
    return _polygon(*zip(radius * np.cos(angles), radius * np.sin(angles), strict=True))


def _cross(x: Coordinates, y: Coordinates) -> Any:
    long, wide = np.maximum(abs(x), abs(y)), np.minimum(abs(x), abs(y))
    return (long <= 0.92) & (wide <= 0.28)


def _ring(x: Coordinates, y: Coordinates) -> Any:
    distance = np.hypot(x, y)
    return (distance >= 0.55) & (distance <= 0.95)


def _heart(x: Coordinates, y: Coordinates) -> Any:
    x, y = 1.36 * x, 0.1 - 1.36 * y
    return (x**2 + y**2 - 1) ** 3 <= x**2 * y**3


SHAPES: dict[str, Inside] = {
    "disc": lambda x, y: x**2 + y**2 <= 0.85**2,
    "square": lambda x, y: np.maximum(abs(x), abs(y)) <= 0.7,
    "triangle": _regular(3, 1.0),
    "star": _regular(10, 1.0, 0.42),
    "cross": _cross,
    "ring": _ring,
    "crescent": lambda x, y: (np.hypot(x, y) <= 0.95) & (np.hypot(x - 0.45, y) >= 0.75),
    "hexagon": _regular(6, 0.9),
    "arrow": _polygon(
        (0.95, 0.0), (0.15, 0.75), (0.15, 0.28), (-0.9, 0.28), (-0.9, -0.28), (0.15, -0.28),
        (0.15, -0.75),
    ),
    "heart": _heart,
}  # fmt: skip
