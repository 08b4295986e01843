"""The networks that the package brings recognise scenes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from captum_advise import GatedGradCam, zoo
from captum_advise.evaluation import scene
from captum_advise.evaluation.data.scene_drawing import SHAPES
from captum_advise.zoo import scene_networks

NAMES = [f"scenes-{family}" for family in scene_networks.BUILDERS]


@pytest.mark.parametrize("name", NAMES)
def test_accuracy(name):
    network = zoo.load(name)
    shares = []
    for n_objects in (1, 2):
        scenes = [scene(index, n_objects=n_objects, split="search") for index in range(200)]
        inputs = torch.stack([network.transform(Image.fromarray(own.image)) for own in scenes])
        with torch.no_grad():
            first = network.model(inputs).topk(n_objects).indices.tolist()
        hits = [set(of) == set(own.classes) for of, own in zip(first, scenes, strict=True)]
        shares.append(np.mean(hits))
    # One object in 95%; both of two objects, which is harder, in 85%.
    assert shares[0] >= 0.95 - 2 * np.sqrt(0.95 * 0.05 / 200)
    assert shares[1] >= 0.85 - 2 * np.sqrt(0.85 * 0.15 / 200)


def test_inputs_are_the_pixels_from_minus_one_to_one():
    own = scene(0, split="search")
    inputs = zoo.load("scenes-plain").transform(Image.fromarray(own.image))
    expected = torch.from_numpy(own.image).permute(2, 0, 1) / 127.5 - 1
    torch.testing.assert_close(inputs, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_layers_and_maps(name):
    network = zoo.load(name)
    assert network.class_names == tuple(SHAPES)
    inputs = network.transform(Image.fromarray(scene(0, split="search").image))[None]
    if name == "scenes-vit":
        assert network.layers == ()
        return
    maps = GatedGradCam(network.model, network.layers).attribute(inputs)
    assert maps.shape == (1, 1, 64, 64)
    assert maps.max() > 0


def test_weights_are_small():
    folder = Path(scene_networks.__file__).parent / "scene_weights"
    assert {path.stem for path in folder.iterdir()} == set(scene_networks.BUILDERS)
    assert all(path.stat().st_size < 2e6 for path in folder.iterdir())
