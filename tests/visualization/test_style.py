from __future__ import annotations

import io
import os
import subprocess
import sys

import matplotlib
import numpy as np
import pytest
import torch
from drawn import rendered
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from PIL import Image

from captum_advise import visualization
from captum_advise.visualization.style import as_image, as_images, to_png


def test_to_png():
    with Image.open(io.BytesIO(to_png(Figure(figsize=(2, 1)), dpi=120))) as image:
        assert image.format == "PNG"
        assert image.size == (240, 120)
        assert image.info["Software"] == "captum-advise"


def test_images_of_any_layout_become_the_same_array():
    pixels = np.random.default_rng(0).random((2, 6, 5, 3))
    tensor = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    for images in (pixels, list(pixels), tensor, list(tensor)):
        assert np.allclose(as_images(images), pixels)
    for image in (pixels[0], tensor[0]):
        assert np.allclose(as_images(image), pixels[:1])
        assert np.allclose(as_image(image), pixels[0])


def test_images_just_out_of_range_are_clipped():
    assert as_image(torch.tensor([[[-0.005, 1.005]]])).tolist() == [[[0.0] * 3, [1.0] * 3]]


def test_pil_images_are_images(image):
    pil = Image.fromarray(np.rint(255 * image).astype(np.uint8))
    assert np.abs(as_image(pil) - image).max() < 0.002
    assert np.array_equal(as_images([pil, pil])[1], as_images(pil)[0])


def test_what_is_no_image_is_refused():
    with pytest.raises(TypeError, match=r"got a str: captum_advise\.zoo\.open_image"):
        visualization.overlay("cat.png", np.ones((2, 2)))
    with pytest.raises(ValueError, match="divide 8-bit values by 255"):
        visualization.overlay(np.full((8, 8, 3), 200, np.uint8), np.ones((2, 2)))


def test_drawing_leaves_matplotlib_as_it_was(image, explanation):
    before = dict(matplotlib.rcParams), plt.get_backend()
    visualization.overlay(image, torch.rand(7, 7))
    visualization.overlays(image, {"any": torch.rand(1, 1, 7, 7)})
    rendered(visualization.gallery(explanation)[0])
    assert (dict(matplotlib.rcParams), plt.get_backend()) == before
    assert plt.get_fignums() == []


def test_drawing_needs_no_display_and_chooses_no_backend():
    program = """
import matplotlib, torch
from captum_advise.visualization import overlay
overlay(torch.rand(3, 8, 8), torch.rand(2, 2))[0].canvas.draw()
assert "matplotlib.backends.backend_tkagg" not in __import__("sys").modules
print(type(dict.get(matplotlib.rcParams, "backend")))  # asking politely chooses one
"""
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("DISPLAY", "WAYLAND_DISPLAY", "MPLBACKEND")
    }
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == "<class 'object'>\n"  # the mark of "not chosen yet"
