from __future__ import annotations

import sys
from contextlib import nullcontext

import numpy as np
import pytest
from messages import one_sentence
from PIL import Image
from skimage import data

from captum_advise import zoo
from captum_advise.zoo.images import to_rgb


def test_to_rgb_keeps_rgb(chelsea):
    assert np.array_equal(np.asarray(to_rgb(chelsea)), data.chelsea())


def grey(values, dtype, mode=None):
    image = Image.fromarray(np.array([values], dtype=dtype))
    return image.convert(mode) if mode else image


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (grey([0, 7, 255], np.uint8), [0, 7, 255]),
        (grey([0, 257, 32896, 65535], np.uint16), [0, 1, 128, 255]),
        (grey([0, 257, 32896, 65535], np.int32), [0, 1, 128, 255]),
        (grey([-1.0, 0.0, 1.0], np.float32), [0, 128, 255]),
        (grey([5.0, 5.0], np.float32), [0, 0]),
        (grey([0, 255], np.uint8, "1"), [0, 255]),
        (grey([0, 7, 255], np.uint8, "P"), [0, 7, 255]),
        (grey([0, 255], np.uint8, "CMYK"), [0, 255]),
        # Grey and alpha: what is transparent is white.
        (Image.fromarray(np.array([[[40, 255], [40, 0]]], np.uint8), "LA"), [40, 255]),
        (Image.fromarray(np.array([[[9, 9, 9, 255], [9, 9, 9, 0]]], np.uint8)), [9, 255]),
    ],
    ids=lambda value: value.mode if isinstance(value, Image.Image) else None,
)
def test_to_rgb_of_other_modes(image, expected):
    result = to_rgb(image)
    assert result.mode == "RGB"
    assert np.asarray(result).tolist() == [[[value] * 3 for value in expected]]


def test_to_rgb_of_a_palette_with_a_transparent_colour(tmp_path):
    image = grey([0, 1], np.uint8, "P")
    image.save(tmp_path / "p.png", transparency=0)
    result = to_rgb(zoo.open_image(tmp_path / "p.png"))
    assert np.asarray(result).tolist() == [[[255] * 3, [1] * 3]]


@pytest.mark.parametrize(("most", "is_dark"), [(4095, True), (65535, False), (0, False)])
def test_12_bits_in_a_16_bit_file_are_dark(most, is_dark, tmp_path):
    values = np.linspace(0, most, 16).astype(np.uint16).reshape(4, 4)
    Image.fromarray(values).save(tmp_path / "x-ray.png")
    image = zoo.open_image(tmp_path / "x-ray.png")
    text = f"almost black, as its values end at {most} of 65535"
    with pytest.warns(UserWarning, match=text) if is_dark else nullcontext():
        assert np.asarray(to_rgb(image)).max() == round(most / 257)


@pytest.mark.parametrize(
    ("orientation", "turn"),
    [(1, lambda a: a), (3, lambda a: a[::-1, ::-1]), (6, lambda a: np.rot90(a, -1))],
)
def test_exif_orientation(tmp_path, chelsea, orientation, turn):
    exif = Image.Exif()
    exif[0x0112] = orientation
    chelsea.save(tmp_path / "p.png", exif=exif)
    result = np.asarray(to_rgb(zoo.open_image(tmp_path / "p.png")))
    assert np.array_equal(result, turn(data.chelsea()))


def test_open_image_takes_the_first_frame(tmp_path):
    frames = [Image.new("L", (4, 4), value) for value in (10, 200)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    image = zoo.open_image(tmp_path / "a.gif")
    assert np.unique(np.asarray(to_rgb(image))).tolist() == [10]


def test_open_image_errors(tmp_path, chelsea):
    with pytest.raises(FileNotFoundError, match="There is no image") as error:
        zoo.open_image(tmp_path / "missing.png")
    one_sentence(error)
    with pytest.raises(ValueError, match="is not a file, but a folder") as error:
        zoo.open_image(tmp_path)
    one_sentence(error)
    (tmp_path / "notes.png").write_text("not an image")
    with pytest.raises(ValueError, match="is not an image") as error:
        zoo.open_image(tmp_path / "notes.png")
    one_sentence(error)


@pytest.mark.parametrize("suffix", ["jpg", "png", "gif", "webp", "tiff", "bmp"])
@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.7])
def test_truncated_images(tmp_path, chelsea, suffix, fraction):
    path = tmp_path / f"p.{suffix}"
    chelsea.save(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(fraction * len(content))])
    with pytest.raises(ValueError, match=r"truncated or damaged|not an image") as error:
        zoo.open_image(path)
    assert str(path) in one_sentence(error)


def test_decompression_bomb(tmp_path, chelsea, monkeypatch):
    chelsea.save(tmp_path / "p.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(ValueError, match="too many pixels") as error:
        zoo.open_image(tmp_path / "p.png")
    one_sentence(error)


def test_example_image():
    image = zoo.example_image()
    assert image.mode == "RGB"
    assert np.array_equal(np.asarray(image), data.chelsea())


def test_example_image_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "skimage.data", None)
    with pytest.raises(ModuleNotFoundError, match=r'"captum-advise\[demo\]"') as error:
        zoo.example_image()
    one_sentence(error)
