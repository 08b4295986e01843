"""Metrics of explanations: the ADVISE paper's protocol (AVX), its parts, and faithfulness.

Every function is batch first and returns one value per example. One metric per module.
"""

from captum_advise.metrics.class_sensitivity import class_sensitivity
from captum_advise.metrics.confidence import (
    average_drop,
    hit,
    increase_in_confidence,
    target_confidence,
)
from captum_advise.metrics.fsim import fsim
from captum_advise.metrics.infidelity import infidelity
from captum_advise.metrics.insertion_deletion import (
    blurred,
    deletion_auc,
    deletion_curve,
    insertion_auc,
    insertion_curve,
)
from captum_advise.metrics.max_sensitivity import sensitivity_max
from captum_advise.metrics.mse import mse
from captum_advise.metrics.ssim import ssim
from captum_advise.metrics.visual_explainability import (
    Protocol,
    VisualExplainability,
    visual_explainability,
)

__all__ = [
    "Protocol",
    "VisualExplainability",
    "average_drop",
    "blurred",
    "class_sensitivity",
    "deletion_auc",
    "deletion_curve",
    "fsim",
    "hit",
    "increase_in_confidence",
    "infidelity",
    "insertion_auc",
    "insertion_curve",
    "mse",
    "sensitivity_max",
    "ssim",
    "target_confidence",
    "visual_explainability",
]
