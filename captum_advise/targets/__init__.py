"""Make class scores (N, K) of any vision model, for ``LayerAdvise`` and other Captum attributions.

Each class wraps a model and is a ``forward_func``: :class:`Output` for what is a tensor inside of a
dictionary, tuple or dataclass, :class:`Segmentation`, :class:`Detection`, :class:`Embedding` and
:class:`Regression`. The model is the attribute ``model``, so its layers stay within reach. The
attribute ``confidence`` turns the scores into probabilities; pass it to
:class:`captum_advise.LayerAdvise`.

What is explained (a region, boxes, reference embeddings) is either the same for all images and
given to the constructor, or it belongs to the images and is passed as ``additional_forward_args``,
with one row per image. Captum and ``LayerAdvise`` then repeat it along with its image.
"""

from captum_advise.targets.detection import Detection
from captum_advise.targets.embedding import Embedding
from captum_advise.targets.output import Output
from captum_advise.targets.regression import Regression
from captum_advise.targets.segmentation import Segmentation

__all__ = ["Detection", "Embedding", "Output", "Regression", "Segmentation"]
