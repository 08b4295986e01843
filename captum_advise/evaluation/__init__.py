"""Compare explanation methods on a model and images, from ten images to ImageNet's 50,000.

:func:`evaluate` runs the methods and writes a report. A run that was killed continues where it
stopped, and ``torchrun`` splits it over processes. ``captum-advise evaluate`` does the same on the
command line.
"""

from captum_advise.evaluation.data import ImageDataset, image_dataset
from captum_advise.evaluation.image_evaluation import MethodError, MetricSettings
from captum_advise.evaluation.map_similarity import MapSimilarity, map_similarity
from captum_advise.evaluation.methods import (
    ClassMaps,
    Context,
    Method,
    SavedMaps,
    as_method,
    get_methods,
    list_methods,
    list_settings,
)
from captum_advise.evaluation.metric_checks import check_metrics
from captum_advise.evaluation.mosaics import MosaicDataset, mosaic_dataset
from captum_advise.evaluation.runner import Evaluation, evaluate
from captum_advise.evaluation.sanity import (
    LabelRandomization,
    ParameterRandomization,
    edge_detector,
    randomize_labels,
    randomize_parameters,
)
from captum_advise.evaluation.store import OutputError

__all__ = [
    "ClassMaps",
    "Context",
    "Evaluation",
    "ImageDataset",
    "LabelRandomization",
    "MapSimilarity",
    "Method",
    "MethodError",
    "MetricSettings",
    "MosaicDataset",
    "OutputError",
    "ParameterRandomization",
    "SavedMaps",
    "as_method",
    "check_metrics",
    "edge_detector",
    "evaluate",
    "get_methods",
    "image_dataset",
    "list_methods",
    "list_settings",
    "map_similarity",
    "mosaic_dataset",
    "randomize_labels",
    "randomize_parameters",
]
