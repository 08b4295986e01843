"""ADVISE visual explanations for convolutional networks, as a Captum extension."""

from captum_advise._version import __version__
from captum_advise.pixels import PixelSpace

__all__ = ["PixelSpace", "__version__"]
