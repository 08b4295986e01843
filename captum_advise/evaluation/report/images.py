"""The images of the page: which ones, and how they are embedded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from captum_advise._core.scoring import as_masks
from captum_advise._utils.optional_dependencies import import_optional
from captum_advise.visualization.heat import heat_colours
from captum_advise.visualization.html import data_uri

# Bounds the size of the page: a map of 224 x 224 takes 5 to 50 kB.
_MOST_MAPS, _FEWEST, _MOST_IMAGES = 150, 4, 12
_SIDE = 224


def chosen_images(indices: Sequence[int], n_methods: int) -> list[int]:
    """The images to embed, evenly spread; the more methods, the fewer."""
    most = min(len(indices), _MOST_IMAGES, max(_FEWEST, _MOST_MAPS // n_methods))
    return [indices[i * len(indices) // most] for i in range(most)]


def embedded(pixels: Tensor, maps: Mapping[str, Tensor]) -> list[str]:
    """An image (3, H, W) in [0, 1], and each method's map (1, 1, h, w) as heat over it.

    They are ``data:`` addresses.
    """
    colours, grey = heat_colours(), pixels.mean(0, keepdim=True)
    shown = [pixels]
    for own in maps.values():
        heat = pixels.new_tensor(colours(as_masks(own, pixels.shape[-2:])[0, 0].cpu().numpy()))
        colour, opacity = heat[..., :3].permute(2, 0, 1), heat[..., 3]
        shown.append(opacity * colour + (1 - opacity) * grey)
    to_pil_image = import_optional("torchvision.transforms.functional", "zoo").to_pil_image
    pictures = [to_pil_image(picture.clamp(0, 1)) for picture in shown]
    for picture in pictures:
        picture.thumbnail((_SIDE, _SIDE))
    return [data_uri(picture, quality=75) for picture in pictures]
