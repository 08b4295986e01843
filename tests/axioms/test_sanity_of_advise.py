"""Advise depends on what a network has learnt."""

from __future__ import annotations

import pytest
import torch
from skimage import data

from captum_advise import Advise, zoo
from captum_advise.axioms import Method, randomize_parameters

LAYERS = ("blocks.5.0.bn1", "blocks.6", "bn2")


def advise(model, _layer):
    return Advise(model, [model.get_submodule(name) for name in LAYERS])


@pytest.mark.slow
def test_random_parameters_destroy_the_map():
    from PIL import Image

    network = zoo.load("efficientnet-lite0")
    photos = [data.chelsea(), data.coffee()]
    inputs = torch.stack([network.transform(Image.fromarray(photo)) for photo in photos])
    with torch.no_grad():
        target = network.model(inputs).argmax(1)
    result = randomize_parameters(
        {"Advise": Method("Advise", advise)}, network.model, "bn2", inputs, target
    )
    last = result.similarity["Advise"][-1].to_dict()
    assert abs(last["spearman_absolute"]) < 0.5
