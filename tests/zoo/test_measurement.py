"""What transforms do to colours, against what they are made of."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from messages import one_sentence
from torchvision import transforms as v1
from torchvision.transforms import v2

from captum_advise import PixelSpace
from captum_advise.zoo.recognition import measure

TO_TENSOR = v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])


def after(*steps):
    return v2.Compose([TO_TENSOR, *steps])


@pytest.mark.parametrize(
    ("mean", "std"),
    [
        ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ((0.1, 0.2, 0.3), (1, 2, 3)),
        ((0, 0, 0), (1, 1, 1)),
        ((0.5,), (0.5,)),  # one number for all channels
    ],
)
def test_a_normalisation(mean, std):
    expected = PixelSpace(mean * (3 // len(mean)), std * (3 // len(std)))
    for package in (v1, v2):
        normalize = package.Normalize(mean, std)
        transform = package.Compose([package.Resize((9, 12)), v1.ToTensor(), normalize])
        assert measure(transform) == ((3, 9, 12), expected)


def test_what_no_attribute_says(chelsea):
    pixels = TO_TENSOR(chelsea)[None]
    for transform, channels in (
        (after(lambda image: 2 * image - 1), 3),
        (after(lambda image: image * 255), 3),
        (after(v2.Normalize([0.5] * 3, [0.5] * 3), lambda image: image / 0.5), 3),
        (after(v2.Normalize([0.4, 0.5, 0.6], [0.1, 0.2, 0.3]), lambda image: image.flip(0)), 3),
        (after(v2.Grayscale(), v2.Normalize([0.3], [0.2])), 1),
        (after(lambda image: image.half()), 3),
        (lambda image: torch.from_numpy(np.array(image)).permute(2, 0, 1), 3),
    ):
        shape, space = measure(transform)
        assert shape == (channels, 256, 256)
        shown = space.to_pixels(transform(chelsea)[None].float())
        expected = pixels if channels == 3 else v2.functional.rgb_to_grayscale(pixels)
        torch.testing.assert_close(shown, expected, atol=1e-3, rtol=0)


def test_blue_first_and_red_last():
    _, space = measure(after(v2.Normalize([0.4, 0.5, 0.6], [0.1, 0.2, 0.3]), lambda x: x.flip(0)))
    assert space == PixelSpace((0.6, 0.5, 0.4), (0.3, 0.2, 0.1), is_bgr=True)
    images = torch.rand(2, 3, 4, 4)
    torch.testing.assert_close(space.to_pixels(space.from_pixels(images)), images)


def test_borders_are_not_measured():
    padded = after(v2.Pad(20, fill=0.7), v2.CenterCrop(200))
    assert measure(padded) == ((3, 200, 200), PixelSpace.identity())


@pytest.mark.parametrize(
    "step",
    [
        lambda image: image.sqrt(),
        lambda image: (image - image.mean()) / (image.std() + 1e-6),
        lambda image: 1 - image,
        lambda image: image * 0,
    ],
    ids=["gamma", "each image by itself", "a negative", "nothing"],
)
def test_no_line_from_black_to_white(step):
    with pytest.raises(ValueError, match="pass pixel_space") as error:
        measure(after(step))
    one_sentence(error)
    space = PixelSpace.identity()
    assert measure(after(step), space) == ((3, 256, 256), space)
