"""Compare explanation methods on a model and images, from ten images to ImageNet's 50,000.

:func:`evaluate` runs the methods and writes a report. What it has computed is kept, so a run that
was killed continues, and ``torchrun`` splits it over processes. ``captum-advise evaluate`` does the
same on the command line.
"""

from captum_advise.evaluation.columns import list_metrics
from captum_advise.evaluation.data.images import ImageDataset, image_dataset
from captum_advise.evaluation.data.mosaics import MosaicDataset, mosaic_dataset
from captum_advise.evaluation.methods import (
    ClassMaps,
    Context,
    Method,
    MethodSettings,
    SavedMaps,
    as_method,
    get_methods,
    list_methods,
)
from captum_advise.evaluation.metric_values import MetricSettings
from captum_advise.evaluation.output import OutputError
from captum_advise.evaluation.run.evaluate import Evaluation, evaluate
from captum_advise.evaluation.run.image_evaluator import MethodError

__all__ = [
    "ClassMaps",
    "Context",
    "Evaluation",
    "ImageDataset",
    "Method",
    "MethodError",
    "MethodSettings",
    "MetricSettings",
    "MosaicDataset",
    "OutputError",
    "SavedMaps",
    "as_method",
    "evaluate",
    "get_methods",
    "image_dataset",
    "list_methods",
    "list_metrics",
    "mosaic_dataset",
]
