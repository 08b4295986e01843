"""Model inputs, images and masks: from a coarse map to a masked image."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from captum_advise._utils.checks import check_real

__all__ = ["PixelSpace", "masked_images", "normalize_maps", "upsample_maps"]

# Of interpolation, by the number of spatial dimensions.
_MODES = {1: "linear", 2: "bicubic", 3: "trilinear"}


@dataclass(frozen=True)
class PixelSpace:
    """How model inputs relate to images with values in [0, 1].

    ``pixels = inputs * std + mean``, channel by channel, which is the inverse of
    torchvision's ``Normalize(mean, std)``.

    Args:
        mean: One value per channel, in pixels (0 is black, 1 is white).
        std: One positive value per channel, in pixels.
        is_bgr: Whether inputs have blue first and red last. Images always have red first.

    Raises:
        TypeError: ``mean`` or ``std`` is not a sequence of numbers.
        ValueError: They differ in length or are empty, or a ``std`` is not positive. The methods:
            a tensor is not (N, C, H, W) with as many channels.

    Example::

        >>> PixelSpace.imagenet().from_pixels(torch.zeros(1, 3, 2, 2)).shape
        torch.Size([1, 3, 2, 2])
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    is_bgr: bool = False

    def __post_init__(self) -> None:
        for name in ("mean", "std"):
            # Lists and tensors are accepted; the field is always a tuple.
            object.__setattr__(self, name, _numbers(name, getattr(self, name)))
        if not self.mean or len(self.mean) != len(self.std):
            raise ValueError(
                "PixelSpace needs one mean and one std per channel, got "
                f"{len(self.mean)} means and {len(self.std)} stds."
            )
        if not all(value > 0 for value in self.std):
            raise ValueError(f"Every std of a PixelSpace must be positive, got {self.std}.")

    @classmethod
    def imagenet(cls) -> PixelSpace:
        """The usual normalisation of ImageNet networks (torchvision, timm)."""
        return cls((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))

    @classmethod
    def identity(cls, channels: int = 3) -> PixelSpace:
        """Inputs that already are images in [0, 1]."""
        return cls((0.0,) * channels, (1.0,) * channels)

    def to_pixels(self, inputs: Tensor) -> Tensor:
        """Model inputs (N, C, H, W) to images of the same shape, not clamped."""
        pixels = inputs * self._per_channel(self.std, inputs) + self._per_channel(self.mean, inputs)
        return pixels.flip(1) if self.is_bgr else pixels

    def from_pixels(self, pixels: Tensor) -> Tensor:
        """Images (N, C, H, W) in [0, 1] to model inputs of the same shape."""
        pixels = pixels.flip(1) if self.is_bgr else pixels
        return (pixels - self._per_channel(self.mean, pixels)) / self._per_channel(self.std, pixels)

    def _per_channel(self, values: tuple[float, ...], like: Tensor) -> Tensor:
        check_real(inputs=like)
        if like.dim() != 4 or like.shape[1] != len(values):
            raise ValueError(
                f"This PixelSpace describes images of {len(values)} channels, "
                f"(N, {len(values)}, H, W), got a tensor of shape {tuple(like.shape)}."
            )
        return like.new_tensor(values).view(1, -1, 1, 1)


def to_pixels(inputs: Tensor, pixel_space: PixelSpace | None, whole: Tensor) -> Tensor:
    """Model inputs (N, C, H, W) to images of the same shape, not clamped.

    Without a pixel space, black and white are the minimum and the maximum of each of the ``whole``
    images, and a constant one is black.
    """
    if pixel_space is not None:
        return pixel_space.to_pixels(inputs)
    black, white = (level.to(inputs) for level in value_range(whole))
    span = white - black
    return (inputs - black) / torch.where(span > 0, span, torch.ones_like(span))


def from_pixels(pixels: Tensor, pixel_space: PixelSpace | None, whole: Tensor) -> Tensor:
    """Images in [0, 1] to model inputs, the inverse of :func:`to_pixels`."""
    if pixel_space is not None:
        return pixel_space.from_pixels(pixels)
    black, white = (level.to(pixels) for level in value_range(whole))
    return black + pixels * (white - black)


def black(images: Tensor, pixel_space: PixelSpace | None) -> Tensor:
    """Black in the units of model inputs (N, C, H, W): a tensor that broadcasts to them."""
    pixels = images.new_zeros(1, images.shape[1], 1, 1)
    return from_pixels(pixels, pixel_space, images)


def value_range(inputs: Tensor) -> tuple[Tensor, Tensor]:
    """The lowest and the highest value of each of the inputs (N, ...), both (N, 1, ..., 1)."""
    shape = (len(inputs),) + (1,) * (inputs.dim() - 1)
    flat = inputs.flatten(1)
    return flat.amin(1).view(shape), flat.amax(1).view(shape)


def normalize_maps(maps: Tensor) -> Tensor:
    """Map each map (N, ...) linearly onto [0, 1], as the protocol does before it masks with it.

    A map that is constant, up to rounding, has no range. It becomes 1 if it is positive (the
    evidence is everywhere) and 0 otherwise.

    Args:
        maps: One map per row of the first dimension.

    Example::

        >>> normalize_maps(torch.tensor([[-1.0, 0.0, 3.0]]))
        tensor([[0.0000, 0.2500, 1.0000]])
    """
    lowest, highest = value_range(maps)
    span = highest - lowest
    rounding = 8 * torch.finfo(maps.dtype).eps * torch.maximum(lowest.abs(), highest.abs())
    varies = span > rounding
    spread = (maps - lowest) / torch.where(varies, span, torch.ones_like(span))
    return torch.where(varies, spread, (highest > 0).to(maps.dtype))


def upsample_maps(maps: Tensor, size: tuple[int, ...]) -> Tensor:
    r"""Maps (N, 1, \*spatial) in [0, 1] to the size of the input, clamped to [0, 1].

    Two spatial dimensions use bicubic interpolation with a = -0.5 (Keys 1981, and MATLAB's
    ``imresize``), one uses linear, three use trilinear.

    Args:
        maps: (N, 1, \*spatial) with one to three spatial dimensions.
        size: As many positive integers as there are spatial dimensions.

    Raises:
        ValueError: There are not one to three spatial dimensions, or not as many as in ``size``.

    Example::

        >>> upsample_maps(torch.rand(1, 1, 7, 7), (224, 224)).shape
        torch.Size([1, 1, 224, 224])
    """
    spatial = maps.dim() - 2
    if spatial != len(size) or spatial not in _MODES:
        raise ValueError(
            f"Cannot upsample maps of shape {tuple(maps.shape)} to {tuple(size)}: "
            "one to three spatial dimensions are needed, as many as the size has."
        )
    # Of 2 dimensions, antialias changes nothing when enlarging, but selects a = -0.5, not -0.75.
    larger = F.interpolate(
        maps, size, mode=_MODES[spatial], align_corners=False, antialias=spatial == 2
    )
    return larger.clamp(0, 1)


def masked_images(images: Tensor, masks: Tensor, baselines: Tensor) -> Tensor:
    """Show only what a mask marks: ``mask * image + (1 - mask) * baseline``.

    Args:
        images: (N, C, H, W) images, or model inputs.
        masks: (N, 1, H, W) in [0, 1].
        baselines: What replaces the rest. Broadcasts to ``images``, in the same units.

    Example::

        >>> mask = torch.zeros(2, 1, 32, 32)
        >>> masked_images(images, mask, torch.tensor(0.0)).unique()
        tensor([0.])
    """
    return baselines + masks * (images - baselines)


def _numbers(name: str, values: object) -> tuple[float, ...]:
    try:
        return tuple(float(value) for value in values)  # type: ignore[attr-defined]
    # What float raises depends on what it is given.
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(
            f"{name} of a PixelSpace must be numbers, one per channel, got {values!r}."
        ) from error
