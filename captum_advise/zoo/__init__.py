"""Named networks with their layer, pixel space, transform and class names."""

from captum_advise.zoo.description import describe
from captum_advise.zoo.images import example_image, open_image, to_rgb
from captum_advise.zoo.loading import load
from captum_advise.zoo.network import Network
from captum_advise.zoo.registry import list_networks

__all__ = [
    "Network",
    "describe",
    "example_image",
    "list_networks",
    "load",
    "open_image",
    "to_rgb",
]
