"""The graph begins at the layer, and maps are those of Captum, which keeps the whole graph."""

from __future__ import annotations

import pytest
import torch
from captum.attr import LayerGradCam
from torch import nn
from torch.utils.checkpoint import checkpoint
from toy_networks import network

from captum_advise import LayerAdvise


class Model(nn.Module):
    """The layer and what follows it run in a context; the rest does not."""

    def __init__(self, classes=5):
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1, stride=2)
        self.layer = nn.Conv2d(6, 12, 3, padding=1)
        self.head = nn.Linear(12, classes)

    def features(self, x):
        return self.layer(self.stem(x).relu())

    def forward(self, x):
        return self.head(self.features(x).relu().mean((2, 3)) * 5)


class UnderNoGrad(Model):
    def features(self, x):
        with torch.no_grad():
            return super().features(x)


class UnderEnableGrad(Model):
    def features(self, x):
        with torch.enable_grad():
            return super().features(x)


class Checkpointed(Model):
    """Only the stem: Captum does not take a layer inside."""

    def features(self, x):
        return self.layer(checkpoint(self.stem, x, use_reentrant=False).relu())


class InPlace(Model):
    """The layer returns its input, which is then changed in place."""

    def __init__(self, classes=5):
        super().__init__(classes)
        self.last = self.layer
        self.layer = nn.Identity()

    def features(self, x):
        before = self.last(self.stem(x).relu())
        after = self.layer(before)
        before += 0.1
        return after + before


class SkipsTheLayer(Model):
    """A path around the layer, and the layer twice."""

    def features(self, x):
        stem = self.stem(x).relu()
        return self.layer(stem) + 0.5 * self.layer(stem.flip(3)) + stem.repeat(1, 2, 1, 1)


class Attention(Model):
    """Without gradients, torch computes attention in another way."""

    def __init__(self, classes=5):
        super().__init__(classes)
        self.block = nn.TransformerEncoderLayer(6, 2, 12, batch_first=True)

    def features(self, x):
        stem = self.stem(x)
        tokens = self.block(stem.flatten(2).mT)
        return self.layer(tokens.mT.reshape(stem.shape).relu())


CREATE = {"create_graph": True}
MODELS = (Model, UnderEnableGrad, Checkpointed, SkipsTheLayer, Attention)


def all_units(model, images, **options):
    """The map of all units, by their relevances."""
    advise = LayerAdvise(model, model.layer, layer_run=-1)
    relevance = advise.unit_relevance(images, **options)
    every = relevance.unique().tolist()
    return advise.attribute(images, target=2, unit_selection=every, **options)


@pytest.mark.parametrize("of_inputs", [False, True])
@pytest.mark.parametrize("kind", MODELS)
def test_maps_are_those_of_captum(kind, of_inputs):
    model, images = network(kind), torch.rand(2, 3, 20, 24)
    options = {"attribute_to_layer_input": of_inputs}
    expected = LayerGradCam(model, model.layer).attribute(images, target=2, **options)
    assert torch.equal(all_units(model, images, **options), expected)
    assert torch.is_grad_enabled()


def test_a_model_that_cuts_the_graph_is_refused():
    model, images = network(UnderNoGrad), torch.rand(2, 3, 20, 24)
    with pytest.raises(ValueError, match="no gradient with respect to the layer"):
        LayerAdvise(model, model.layer).attribute(images, target=2)


def test_a_tensor_that_the_layer_only_hands_on_may_change_in_place():
    model, images = network(InPlace), torch.rand(2, 3, 20, 24)
    expected = LayerGradCam(model, model.layer).attribute(images, target=2)
    assert torch.equal(all_units(model, images), expected)


@pytest.mark.parametrize("selection", ["avx", 1])
def test_what_runs_before_the_layer_keeps_nothing(selection):
    model, images = network(Model), torch.rand(2, 3, 20, 24)
    in_graph = []
    model.stem.register_forward_hook(lambda _, __, output: in_graph.append(output.requires_grad))
    LayerAdvise(model, model.layer).attribute(images, target=2, unit_selection=selection)
    assert not any(in_graph)
    # A model in training mode runs once, whatever it does with gradients.
    model.stem.train()
    in_graph.clear()
    LayerAdvise(model, model.layer).attribute(images, target=2, unit_selection=selection)
    assert in_graph[0]


@pytest.mark.parametrize("options", [{"unit_selection": None}, {"grad_kwargs": CREATE}])
def test_gradients_of_maps_reach_the_whole_model(options):
    model, images = network(Model), torch.rand(2, 3, 20, 24)
    maps = LayerAdvise(model, model.layer).attribute(images, target=2, **options)
    maps.sum().backward()
    assert model.stem.weight.grad.any()
