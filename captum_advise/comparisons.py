"""The maps with which panels and pages compare those of ``LayerAdvise``."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, TypeAlias

from torch import Tensor

from captum_advise.explanation import Explanation
from captum_advise.gated_grad_cam import GatedGradCam
from captum_advise.layer_advise import LayerAdvise

if TYPE_CHECKING:
    from captum_advise.zoo import Network

Comparisons: TypeAlias = dict[str, "Explanation | Tensor"]

GRAD_CAM, SEVERAL_LAYERS = "Grad-CAM", "GatedGradCam"


def comparisons_of(
    network: Network, advise: LayerAdvise, inputs: Tensor, target: Any, **options: Any
) -> Comparisons:
    """Grad-CAM's explanation, and the map of ``GatedGradCam`` where the network has layers for it.

    Nothing warns: call it after ADVISE's own explanation, with the same arguments.

    Args:
        network: From the zoo.
        advise: At the layer of the network.
        inputs: (N, C, H, W) inputs of the model.
        target: As in :meth:`captum_advise.LayerAdvise.attribute`.
        options: More arguments of :meth:`captum_advise.LayerAdvise.explain`. ``GatedGradCam`` gets
            those that are about the model.

    Returns:
        By name, an explanation or maps (N, 1, H, W).
    """
    with warnings.catch_warnings():
        # The explanation by ADVISE has warned already.
        warnings.simplefilter("ignore")
        grad_cam = advise.explain(inputs, target, **options, unit_selection=None)
        found: Comparisons = {GRAD_CAM: grad_cam}
        if network.layers:
            several = GatedGradCam(
                network.model, network.layers, reshape_transform=network.reshape_transforms
            )
            found[SEVERAL_LAYERS] = several.attribute(
                inputs, target, options.get("additional_forward_args")
            )
    return found
