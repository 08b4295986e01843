"""ADVISE visual explanations for convolutional networks, as a Captum extension."""

from captum_advise._explain import explain
from captum_advise._version import __version__
from captum_advise.density import AdaptiveKDE, adaptive_kde, count_modes
from captum_advise.explanation import Candidate, Explanation, Setup, Units
from captum_advise.gated_grad_cam import GatedGradCam
from captum_advise.layer_advise import LayerAdvise
from captum_advise.metrics import AVXProtocol
from captum_advise.pixels import PixelSpace
from captum_advise.relevance import unit_relevance

__all__ = [
    "AVXProtocol",
    "AdaptiveKDE",
    "Candidate",
    "Explanation",
    "GatedGradCam",
    "LayerAdvise",
    "PixelSpace",
    "Setup",
    "Units",
    "__version__",
    "adaptive_kde",
    "count_modes",
    "explain",
    "unit_relevance",
]
