"""Layers of tokens or channels last, seen as feature maps (N, C, H, W).

Methods of several packages hook a module, and few take a layout. Here they hook a *view* of the
layer: a module that gets the layer's patches as feature maps, and whose output goes on in their
place. So activations, gradients, masks and ablations at the view are those of the layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from captum_advise.layouts import ReshapeTransform


class LayerViews(nn.Module):
    """A model with a view of each of its layers.

    Attributes:
        layers: What to hook: views, or the layers themselves where they need none.
    """

    def __init__(
        self,
        model: nn.Module,
        layers: Sequence[nn.Module],
        reshape_transforms: Sequence[ReshapeTransform | None],
    ) -> None:
        super().__init__()
        # Compiled code would not call the hooks.
        self.model = getattr(model, "_orig_mod", model)
        self.training = model.training
        self._seen = [
            (layer, nn.Identity(), transform)
            for layer, transform in zip(layers, reshape_transforms, strict=True)
            if transform is not None
        ]
        self.views = nn.ModuleList(view for _, view, _ in self._seen)
        view_of: dict[nn.Module, nn.Module] = {layer: view for layer, view, _ in self._seen}
        self.layers = tuple(view_of.get(layer, layer) for layer in layers)

    def forward(self, *inputs: Any, **options: Any) -> Any:
        """Run the model, through the views."""
        with ExitStack() as hooks:
            for layer, view, transform in self._seen:
                hook = partial(_through, view, transform)
                hooks.enter_context(layer.register_forward_hook(hook))
            return self.model(*inputs, **options)


def _through(
    view: nn.Module, transform: ReshapeTransform, _layer: nn.Module, _inputs: Any, output: Tensor
) -> Tensor:
    """A layer's output whose patches went through a view; other tokens stay as they are."""
    # Copies, also of the gradient: packages detach both in place, and cannot where one is a view.
    seen = 1 * view(transform(output).clone())
    # Where each value of the maps is in the output of one example.
    numbers = torch.arange(output[0].numel(), device=output.device).view(1, *output.shape[1:])
    places = transform(numbers).flatten().expand(len(output), -1)
    return output.flatten(1).scatter(1, places, seen.flatten(1)).view_as(output)
