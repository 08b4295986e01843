"""Compare explanation methods on a model and pictures, from ten to ImageNet's 50,000.

:func:`evaluate` runs the methods and writes a report; it can be killed and continued, and split
over processes with ``torchrun``. ``captum-advise evaluate`` is the same on the command line.
"""

from captum_advise.evaluation.data import Pictures, pictures
from captum_advise.evaluation.methods import (
    ClassMaps,
    Context,
    Method,
    MethodSettings,
    as_method,
    by_name,
    names,
)
from captum_advise.evaluation.runner import Evaluation, evaluate
from captum_advise.evaluation.scoring import MethodError, ScoringSettings
from captum_advise.evaluation.store import OutputError

__all__ = [
    "ClassMaps",
    "Context",
    "Evaluation",
    "Method",
    "MethodError",
    "MethodSettings",
    "OutputError",
    "Pictures",
    "ScoringSettings",
    "as_method",
    "by_name",
    "evaluate",
    "names",
    "pictures",
]
