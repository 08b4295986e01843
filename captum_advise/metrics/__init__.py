"""Metrics of explanations: the ADVISE paper's protocol (AVX), its parts, and faithfulness.

Every function is batch first and returns one value per example. One metric per module.
"""

from captum_advise.metrics.arcc import adcc, arcc
from captum_advise.metrics.class_sensitivity import class_sensitivity
from captum_advise.metrics.confidence import average_drop, increase_in_confidence
from captum_advise.metrics.energy_pointing_game import energy_pointing_game
from captum_advise.metrics.fsim import fsim
from captum_advise.metrics.insertion_deletion import deletion_auc, insertion_auc
from captum_advise.metrics.mse import mse
from captum_advise.metrics.mu_fidelity import mu_fidelity
from captum_advise.metrics.pointing_game import pointing_game
from captum_advise.metrics.road import Road, road
from captum_advise.metrics.sparseness import sparseness
from captum_advise.metrics.ssim import ssim
from captum_advise.metrics.top_pixels import top_pixels
from captum_advise.metrics.visual_explainability import (
    AVXProtocol,
    VisualExplainability,
    visual_explainability,
)

__all__ = [
    "AVXProtocol",
    "Road",
    "VisualExplainability",
    "adcc",
    "arcc",
    "average_drop",
    "class_sensitivity",
    "deletion_auc",
    "energy_pointing_game",
    "fsim",
    "increase_in_confidence",
    "insertion_auc",
    "mse",
    "mu_fidelity",
    "pointing_game",
    "road",
    "sparseness",
    "ssim",
    "top_pixels",
    "visual_explainability",
]
