"""The result of :func:`captum_advise.explain`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from captum_advise.explanation import Explanation
from captum_advise.pixels import PixelSpace

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from matplotlib.figure import Figure

    from captum_advise.visualization.style import Array


@dataclass(frozen=True)
class Setup:
    """What :func:`captum_advise.explain` found out about a model, or was given.

    Attributes:
        model: The network's name, or the package and class of the model.
        layer: Dotted name of the layer.
        layout: Of the layer's tensor: ``"N x C x H x W"``, ``"N x H x W x C"`` or
            ``"N x tokens x C"``, or the caller's ``reshape_transform``.
        gated_layers: Dotted names of the layers of :class:`captum_advise.GatedGradCam`; empty if
            the network has none.
        input_size: Height and width of the model's inputs.
        transform: Where the transform from images to inputs comes from.
        pixel_space: How the inputs relate to images in [0, 1].
        class_names: K names, in the order of the logits.
        device: Where the model ran.

    Example::

        >>> explanation = explain("cat.jpg", "efficientnet-lite0")
        >>> print(explanation.setup)
        efficientnet-lite0 on cpu, layer bn2 (N x C x H x W), GatedGradCam at blocks.5.0.bn1 +
        blocks.6 + bn2, 1000 classes; inputs of 224 x 224 by the transform of the TensorFlow
        original, mean (0.498, 0.498, 0.498), std (0.502, 0.502, 0.502).
    """

    model: str
    layer: str
    layout: str
    gated_layers: tuple[str, ...]
    input_size: tuple[int, int]
    transform: str
    pixel_space: PixelSpace
    class_names: tuple[str, ...]
    device: str

    def __str__(self) -> str:
        height, width = self.input_size
        mean, std = (
            ", ".join(f"{value:.3g}" for value in values)
            for values in (self.pixel_space.mean, self.pixel_space.std)
        )
        advise = f"GatedGradCam at {' + '.join(self.gated_layers)}, " if self.gated_layers else ""
        return (
            f"{self.model} on {self.device}, layer {self.layer} ({self.layout}), {advise}"
            f"{len(self.class_names)} classes; inputs of {height} x {width} by {self.transform}, "
            f"mean ({mean}), std ({std})."
        )


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class ImageExplanation(Explanation):
    """An :class:`Explanation` that knows its images, the names of its classes, and its setup.

    Attributes:
        images: (N, C, H, W) the explained images in [0, 1], as the model saw them: resized and
            cropped.
        setup: The layer, the transform and all else that was found.
        comparisons: Maps to compare with, by name: ``"Grad-CAM"``, an :class:`Explanation`, and
            ``"GatedGradCam"``, the map of :class:`captum_advise.GatedGradCam` (N, 1, H, W), where
            the model has layers for it.

    Example::

        >>> explanation = explain("cat.jpg", "efficientnet-lite0")
        >>> explanation
        Explanation of 1 example, attributions (1, 1, 7, 7) float32 on cpu
          0: class 285 (Egyptian cat), confidence ...
        Setup: efficientnet-lite0 on cpu, layer bn2 (N x C x H x W), ...
        >>> figure, axes = explanation.plot()
        >>> explanation.comparisons["GatedGradCam"].shape
        torch.Size([1, 1, 224, 224])
    """

    images: Tensor
    setup: Setup
    comparisons: dict[str, Explanation | Tensor]

    def __repr__(self) -> str:
        return f"{super().__repr__()}\nSetup: {self.setup}"

    def describe(self, index: int = 0) -> str:
        """One example in a line: class with its name, confidence, selected units, AVX."""
        text = super().describe(index)
        if self.target is None:
            return text
        number = int(self.target[index])
        named = f"class {number} ({self.setup.class_names[number]})"
        return text.replace(f"class {number}", named, 1)

    def class_name(self, index: int = 0) -> str:
        """Name of the class that is explained for one example."""
        assert self.target is not None  # classifiers only
        return self.setup.class_names[int(self.target[index])]

    def plot(
        self,
        images: Tensor | npt.NDArray[np.floating] | None = None,
        *,
        comparisons: Mapping[str, Explanation | Array] | None = None,
        class_names: Sequence[str] | None = None,
        axes: npt.ArrayLike | None = None,
    ) -> tuple[Figure, npt.NDArray[np.object_]]:
        """Draw the images with their maps, a row per example.

        Args:
            images: As in :meth:`Explanation.plot`; those of the explanation if None.
            comparisons: Maps to draw before these; those of the explanation if None.
            class_names: By class; those of the setup if None.
            axes: Where to draw, N x (2 + comparisons) of them; a new figure if None.

        Returns:
            The figure, and the axes (N, 2 + comparisons).
        """
        return super().plot(
            self.images.clamp(0, 1) if images is None else images,
            comparisons=self.comparisons if comparisons is None else comparisons,
            class_names=class_names or self.setup.class_names,
            axes=axes,
        )

    def to_html(self, images: Array | Sequence[Array] | None = None, **options: Any) -> str:
        """One interactive HTML file, as :meth:`Explanation.to_html` makes it.

        Args:
            images: Those of the explanation if None.
            options: As in :meth:`Explanation.to_html`. ``comparisons`` and ``class_names`` are
                those of the explanation if they are not given.

        Returns:
            The content of the file.
        """
        known = {"comparisons": self.comparisons, "class_names": self.setup.class_names}
        shown = self.images.clamp(0, 1) if images is None else images
        return super().to_html(shown, **(known | options))

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and lists by attribute, without images and comparisons."""
        return {**self._without_images().to_dict(), "setup": asdict(self.setup)}

    def save(self, path: str | Path) -> None:
        """As :meth:`Explanation.save`, without images, comparisons and setup.

        Args:
            path: Taken unchanged; the usual suffix is ``.npz``.
        """
        self._without_images().save(path)

    @classmethod
    def load(cls, path: str | Path, device: torch.device | str = "cpu") -> Explanation:
        """As :meth:`Explanation.load`: an :class:`Explanation`, as files have no images.

        Args:
            path: The file.
            device: Where the tensors go.
        """
        return Explanation.load(path, device)

    def _without_images(self) -> Explanation:
        return Explanation(
            **{field.name: getattr(self, field.name) for field in fields(Explanation)}
        )
