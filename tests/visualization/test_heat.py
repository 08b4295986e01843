from __future__ import annotations

import numpy as np
import pytest
import torch
from drawn import rendered
from matplotlib.figure import Figure

from captum_advise.visualization.heat import draw_heat, heat_colours


def test_opacity_grows_with_the_evidence():
    opacity = heat_colours()(np.linspace(0, 1, 256))[:, 3]
    assert opacity[0] == 0
    assert opacity[-1] == pytest.approx(0.65)
    assert (np.diff(opacity) > 0).all()


def drawn_pixels(image, attribution):
    """The image's 64 x 64 pixels as drawn, without a frame."""
    figure = Figure(figsize=(0.64, 0.64), dpi=100)
    draw_heat(figure.add_axes((0, 0, 1, 1)), image, attribution)
    return rendered(figure)[..., :3].astype(int)


def test_the_image_shows_where_there_is_no_evidence():
    grey = np.repeat(np.linspace(0, 1, 64)[:, None, None], 64, axis=1).repeat(3, axis=2)
    attribution = torch.zeros(64, 64)
    attribution[:, 48:] = 1.0
    without, with_heat = drawn_pixels(grey, 0 * attribution), drawn_pixels(grey, attribution)
    assert np.abs(without - with_heat)[:, :40].max() <= 2
    assert (without[..., :1] == without).all()  # grey
    difference = np.abs(with_heat - without).sum(-1)
    assert (difference[:, 52:] > 50).mean() > 0.9
    # The image also shows a little where there is most evidence.
    assert with_heat[-1, 60].sum() > with_heat[0, 60].sum()


def test_the_grey_image_keeps_its_contrast():
    """A dim image stays dim, with heat and without."""
    image = np.full((64, 64, 3), 0.4)
    image[16:48, 16:48] = 0.5
    heat = torch.zeros(64, 64)
    heat[:, -1] = 1
    for attribution in (heat, 0 * heat):
        pixels = drawn_pixels(image, attribution)
        assert abs(int(pixels[5, 5, 0]) - 0.4 * 255) <= 2
        assert abs(int(pixels[32, 32, 0]) - 0.5 * 255) <= 2
