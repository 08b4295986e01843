"""Where objects are: from a CSV file to the columns of the pointing games."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from messages import one_sentence
from PIL import Image
from squares import SPACE, Squares, squares_network
from torchvision.transforms import v2

from captum_advise import PixelSpace
from captum_advise.evaluation import MetricSettings, evaluate, image_dataset
from captum_advise.metrics import energy_pointing_game, pointing_game, top_pixels


class Cropping:
    """What reading images needs of a Network: half the size, then the central square."""

    name = "net"
    class_names = ("tench", "tabby cat")
    pixel_space = PixelSpace.imagenet()

    def transform(self, image):
        steps = v2.Compose(
            [
                v2.PILToTensor(),
                v2.Resize(20, antialias=True),
                v2.CenterCrop(20),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(self.pixel_space.mean, self.pixel_space.std),
            ]
        )
        return steps(image.convert("RGB"))


@pytest.fixture
def read(tmp_path):
    """Reads a table next to two grey images of 60 x 40 pixels."""
    for name in ("a.png", "b.png"):
        Image.new("RGB", (60, 40), "grey").save(tmp_path / name)

    def read(text):
        (tmp_path / "table.csv").write_text(text)
        return image_dataset(tmp_path / "table.csv", Cropping())

    return read


def box_of(region):
    """The corners of the pixels of a region, which fill a box."""
    rows, columns = np.nonzero(region[0].numpy())
    box = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    assert region.sum() == (box[2] - box[0]) * (box[3] - box[1])
    return tuple(int(corner) for corner in box)


def test_boxes_go_through_the_transform(read):
    dataset = read("file,class,x0,y0,x1,y1\na.png,1,20,8,40,32\nb.png,0,0,0,20,40\n")
    assert dataset.has_regions
    inputs, target, region = dataset[0]
    assert inputs.shape == (3, 20, 20)
    assert (target, region.dtype, region.shape) == (1, torch.bool, (1, 20, 20))
    # Half the size is 30 x 20, of which 5 columns are cut off at each side.
    assert box_of(region) == (5, 4, 15, 16)
    assert box_of(dataset[1][2]) == (0, 0, 5, 20)


def test_an_image_has_several_boxes_or_a_mask(read, tmp_path):
    dataset = read("file,x0,y0,x1,y1\na.png,20,8,40,16\na.png,20,16,40,32\nb.png,12,0,16,40\n")
    assert dataset.names == ("a.png", "b.png")
    assert box_of(dataset[0][2]) == (5, 4, 15, 16)
    drawn = Image.new("L", (60, 40))
    drawn.paste(1, (20, 8, 40, 32))
    drawn.save(tmp_path / "mask.png")
    by_mask = read("file,mask\na.png,mask.png\n")
    assert torch.equal(by_mask[0][2], dataset[0][2])


def test_boxes_are_those_of_the_upright_image(read, tmp_path):
    lying = Image.new("RGB", (40, 60))
    exif = lying.getexif()
    exif[0x0112] = 6  # upright, it has 60 x 40 pixels
    lying.save(tmp_path / "a.jpg", exif=exif)
    dataset = read("file,x0,y0,x1,y1\na.jpg,20,8,40,32\n")
    assert box_of(dataset[0][2])[2] - box_of(dataset[0][2])[0] == 10


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("file,x0,y0,x1\na.png,1,2,3\n", "name either the columns x0, y0, x1, y1"),
        ("file,x0,y0,x1,y1,mask\na.png,1,2,3,4,m.png\n", "or one column mask"),
        ("file,x0,y0,x1,y1\na.png,1,2,,4\n", "Line 2 .* has '1', '2', '', '4' as box"),
        ("file,x0,y0,x1,y1\na.png,1,2,1,4\n", "x0 below x1"),
        ("file,x0,y0,x1,y1\na.png,1,2,nan,4\n", "as box"),
        ("file,mask\na.png,\n", "Line 2 .* names no mask"),
        ("file,mask\na.png,m.png\na.png,n.png\n", "Line 3 .* repeats"),
        ("file,x0,y0,x1,y1\na.png,1,2,3,4\nb.png,1,2,3,4\na.png,1,2,3,4\n", "Line 4 .* repeats"),
    ],
)
def test_tables_that_are_not_clear_are_refused(text, what, read):
    with pytest.raises(ValueError, match=what) as error:
        read(text)
    one_sentence(error)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("file,x0,y0,x1,y1\na.png,50,0,61,40\n", "box 50, 0, 61, 40 .* 60 x 40 pixels"),
        ("file,x0,y0,x1,y1\na.png,-1,0,5,40\n", "is not in the image"),
        ("file,x0,y0,x1,y1\na.png,0,0,8,40\n", "no pixel in the part of the image"),
        ("file,mask\na.png,small.png\n", "small.png has 6 x 4 pixels, and its image 60 x 40"),
        ("file,mask\na.png,none.png\n", "no image .*none.png"),
    ],
)
def test_regions_that_do_not_fit_are_one_sentence(text, what, read, tmp_path):
    Image.new("L", (6, 4), 255).save(tmp_path / "small.png")
    dataset = read(text)
    with pytest.raises((ValueError, FileNotFoundError), match=what) as error:
        dataset[0]
    one_sentence(error)


class WithRegions(Squares):
    has_regions = True

    def __getitem__(self, index):
        inputs, target = super().__getitem__(index)
        region = torch.zeros(inputs.shape[-2:], dtype=torch.bool)
        if index != 2:
            region[4:12, 3 + index : 20] = True
        return (inputs, target) if index == 1 else (inputs, target, region)


def run(dataset, output):
    network = squares_network()
    return evaluate(
        network,
        network[3],
        dataset,
        ["grad-cam", "gaussian"],
        output,
        pixel_space=SPACE,
        settings=MetricSettings(steps=1),
        progress=False,
    )


def test_the_columns_are_those_of_the_metrics(tmp_path):
    dataset = WithRegions()
    result = run(dataset, tmp_path)
    assert result.results["index"].unique().tolist() == [0, 3, 4]
    reasons = result.failures.set_index("index")["reason"]
    assert reasons[1].startswith("An item of data with regions has no region")
    assert reasons[2].startswith("The region of the object has no pixel")
    rows = result.results.set_index(["index", "method"])
    offsets = torch.linspace(-0.5, 0.5, 24)
    gaussian = torch.exp(-8 * (offsets[:, None] ** 2 + offsets**2))[None, None]
    lowest, highest = gaussian.min(), gaussian.max()
    for index in (0, 3, 4):
        region = dataset[index][2][None, None]
        mask = (gaussian - lowest) / (highest - lowest)
        row = rows.loc[(index, "gaussian")]
        energy = energy_pointing_game(mask, region).item()
        assert row["energy"] == pytest.approx(energy, rel=1e-5)
        assert row["pointing"] == pointing_game(mask, region).item() == 1
        assert row["top_pixels"] == top_pixels(mask, region).item()
    assert {"pointing", "energy", "top_pixels"} <= set(result.summary["metric"])
    # Without regions, other images: the content has the region.
    plain = run(Squares(), tmp_path)
    assert plain.reasons == {"the image changed": 6, "new image": 4}
    assert "energy" not in plain.results


def test_other_regions_are_other_images(tmp_path):
    class Moved(WithRegions):
        def __getitem__(self, index):
            item = super().__getitem__(index)
            return (*item[:2], item[2].roll(1, 0)) if index == 3 else item

    run(WithRegions(), tmp_path)
    again = run(Moved(), tmp_path)
    assert (again.reused, again.reasons) == (4, {"the image changed": 2})
    assert not pd.isna(again.results["energy"]).any()
