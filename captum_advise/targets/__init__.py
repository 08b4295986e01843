"""Make class scores (N, K) of any vision model, for ``LayerAdvise`` and other Captum attributions.

Each class wraps a model and is a ``forward_func``. The model is the attribute ``model``, so its
layers stay within reach. The attribute ``confidence`` turns the scores into probabilities.

What is explained (a region, boxes, reference embeddings) is given to the constructor if it is the
same for all images. Otherwise it is passed as ``additional_forward_args``, with one row per image.
Captum and ``LayerAdvise`` then repeat it along with its image.
"""

from captum_advise.targets.detection import Detection
from captum_advise.targets.embedding import Embedding
from captum_advise.targets.output import Output
from captum_advise.targets.segmentation import Segmentation

__all__ = ["Detection", "Embedding", "Output", "Segmentation"]
