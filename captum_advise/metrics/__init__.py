"""How good an explanation is: ADVISE's protocol (AVX), its parts, one function each.

Every function is batch first and leaves the reduction to the caller.
"""

from captum_advise.metrics.confidence import (
    average_drop,
    hit,
    increase_in_confidence,
    target_confidence,
)
from captum_advise.metrics.faithfulness import (
    blurred,
    deletion_auc,
    infidelity,
    insertion_auc,
    sensitivity_max,
)
from captum_advise.metrics.sensitivity import class_sensitivity
from captum_advise.metrics.similarity import fsim, mse, ssim
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
    "fsim",
    "hit",
    "increase_in_confidence",
    "infidelity",
    "insertion_auc",
    "mse",
    "sensitivity_max",
    "ssim",
    "target_confidence",
    "visual_explainability",
]
