"""GatedGradCam depends on what a network has learnt."""

from __future__ import annotations

import pytest
import torch
from skimage import data

from captum_advise import zoo
from captum_advise.evaluation import get_methods, randomize_parameters


@pytest.mark.slow
def test_random_parameters_destroy_the_map():
    from PIL import Image

    network = zoo.load("efficientnet-lite0")
    photos = [data.chelsea(), data.coffee()]
    inputs = torch.stack([network.transform(Image.fromarray(photo)) for photo in photos])
    with torch.no_grad():
        target = network.model(inputs).argmax(1)
    methods = get_methods(["gated-grad-cam", "gated-grad-cam-occlusion"])
    result = randomize_parameters(methods, network.model, "bn2", inputs, target)
    for correlation in result.absolute_correlation.values():
        assert (correlation[-1].abs() < 0.5).all()
