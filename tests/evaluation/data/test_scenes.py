"""Scenes: the same everywhere, and objects that are where their masks say."""

import base64
import hashlib
import io
import re

import numpy as np
import pytest
import torch
from captum.attr import LayerGradCam
from matplotlib.path import Path as Outline
from PIL import Image
from torch.utils.data import ConcatDataset

from captum_advise import zoo
from captum_advise.evaluation import SceneDataset, evaluate, scene, scene_dataset
from captum_advise.evaluation.data.mosaics import MosaicDataset
from captum_advise.evaluation.data.scene_drawing import SHAPES
from captum_advise.metrics import energy_pointing_game, top_pixels
from captum_advise.pixels import normalize_maps, upsample_maps
from captum_advise.zoo.scene_networks import CLASSES

# Areas in units of the squared radius.
AREAS = {
    "disc": np.pi * 0.85**2,
    "square": 1.4**2,
    "triangle": 3 * np.sqrt(3) / 4,
    "star": 10 / 2 * 0.42 * np.sin(np.pi / 5),
    "cross": 2 * 1.84 * 0.56 - 0.56**2,
    "ring": np.pi * (0.95**2 - 0.55**2),
    "hexagon": 3 * np.sqrt(3) / 2 * 0.9**2,
    "arrow": 1.05 * 0.56 + 0.8 * 1.5 / 2,
}


@pytest.fixture(scope="module")
def grid():
    step = 2.4 / 1200
    axis = np.arange(-1.2 + step / 2, 1.2, step)
    return *np.meshgrid(axis, axis), step**2


@pytest.mark.parametrize("name", AREAS)
def test_shapes_have_the_area_of_their_formula(name, grid):
    x, y, pixel = grid
    assert SHAPES[name](x, y).sum() * pixel == pytest.approx(AREAS[name], rel=2e-3)


def test_polygons_agree_with_matplotlib(grid):
    x, y, _ = grid
    angles = 2 * np.pi * np.arange(10) / 10
    radii = np.tile([1.0, 0.42], 5)
    outline = Outline(np.column_stack([radii * np.cos(angles), radii * np.sin(angles)]))
    inside = outline.contains_points(np.column_stack([x.ravel(), y.ravel()])).reshape(x.shape)
    assert (inside != SHAPES["star"](x, y)).mean() < 1e-4


def test_every_shape_stays_in_its_circle(grid):
    x, y, _ = grid
    for inside in SHAPES.values():
        assert np.hypot(x, y)[inside(x, y)].max() <= 1 + 1e-9


def test_class_names_are_those_of_the_networks():
    assert tuple(SHAPES) == CLASSES


def test_scenes_are_the_same_on_every_machine():
    digest = hashlib.sha256()
    for n_objects in (1, 2):
        for index in range(20):
            found = scene(index, n_objects=n_objects, split="search")
            digest.update(found.image.tobytes() + found.masks.tobytes() + bytes(found.classes))
    assert digest.hexdigest()[:16] == "cddb465078fc9251"


def test_splits_differ():
    images = [scene(0, split=split).image for split in ("training", "search", "test")]
    assert len({image.tobytes() for image in images}) == 3


def test_objects_are_where_their_masks_say():
    for index in range(40):
        found = scene(index, split="search")
        first, second = found.masks
        assert not (first & second).any()
        assert found.classes[0] != found.classes[1]
        for mask in found.masks:
            assert mask.sum() > 40
            # The colour of the object differs from that around it.
            near = np.zeros_like(mask)
            rows, columns = np.where(mask)
            near[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1] = True
            around = near & ~mask & ~found.masks.any(0)
            colours = [found.image[part].mean(0) / 255 for part in (mask, around)]
            assert np.linalg.norm(colours[0] - colours[1]) > 0.1


def test_every_class_occurs_as_often():
    classes = [label for i in range(600) for label in scene(i, n_objects=1, split="search").classes]
    counts = np.bincount(classes, minlength=10)
    assert counts.min() > 35
    assert counts.max() < 90


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"index": 100_000}, IndexError, "the scenes 0 to 99999, not 100000"),
        ({"index": -1}, ValueError, "at least 0"),
        ({"index": 0.5}, TypeError, "int"),
        ({"index": 0, "n_objects": 3}, ValueError, "1 or 2 objects, not 3"),
        ({"index": 0, "split": "train"}, ValueError, "training, search, test"),
    ],
)
def test_what_is_no_scene(arguments, error, message):
    with pytest.raises(error, match=message):
        scene(**arguments)


def test_networks_that_scenes_do_not_suit():
    with pytest.raises(ValueError, match="has 1000: take a network that was trained on scenes"):
        scene_dataset(zoo.load("efficientnet-lite0", weights="random"), count=1)
    untrained = zoo.load("scenes-plain", weights="random")
    with pytest.raises(ValueError, match=r"recognises \d+ of the first 12 scenes, and 4 were"):
        scene_dataset(untrained, count=4)


def test_energy_against_another_object():
    maps = torch.tensor([[[[3.0, 1.0], [5.0, 0.0]]]])
    first = torch.tensor([[[[True, False], [False, False]]]])
    second = torch.tensor([[[[False, True], [False, False]]]])
    assert energy_pointing_game(maps, first, second).item() == 0.75
    assert energy_pointing_game(maps, first).item() == pytest.approx(1 / 3)


def test_a_run_on_scenes(tmp_path):
    network = zoo.load("scenes-plain", weights="random")
    scenes = SceneDataset(network, (3, 5), split="search")
    found = evaluate(
        network.model,
        network.layer,
        scenes,
        ["grad-cam", "random"],
        tmp_path,
        metrics=["pointing", "top_pixels", "energy_against"],
        pixel_space=network.pixel_space,
        progress=False,
    )
    rows = found.results.set_index(["index", "method"])
    for index in range(4):
        inputs, target, region, other = scenes[index]
        attribution = LayerGradCam(network.model, network.layer).attribute(inputs[None], target)
        maps = upsample_maps(normalize_maps(attribution.relu()), (64, 64))
        row = rows.loc[index, "grad-cam"]
        assert row["file"] == f"object {index % 2 + 1}: scene {(3, 5)[index // 2]}"
        assert row["target"] == target
        assert row["top_pixels"] == pytest.approx(top_pixels(maps, region[None]).item(), abs=1e-4)
        # By hand: the mass on one object, of that on both.
        on_it, on_other = ((maps[0] * mask).sum().item() for mask in (region, other))
        assert row["energy_against"] == pytest.approx(
            on_it / max(on_it + on_other, 1e-12), abs=1e-4
        )
        # The maximum counts if it is at most four pixels off: 15 of 224 at this size.
        inside = np.argwhere(region[0].numpy())
        peaks = np.argwhere((maps[0, 0] == maps.max()).numpy())
        distances = np.linalg.norm(peaks[:, None] - inside, axis=2).min(1)
        assert row["pointing"] == pytest.approx((distances <= 4).mean(), abs=1e-4)
    # Both objects of a scene count once.
    assert set(found.summary.set_index("metric").loc["top_pixels", "images"]) == {2}


def test_the_gallery_shows_scenes_and_not_the_mosaics_of_them(tmp_path):
    network = zoo.load("scenes-resnet", weights="random")
    scenes = SceneDataset(network, (3, 5), split="search")
    classes = tuple(scenes[index][1] for index in range(4))
    mosaics = MosaicDataset(scenes, 2, ((0, 1, 2, 3),), (classes,))
    evaluate(
        network.model,
        network.layer,
        ConcatDataset([mosaics, scenes]),
        ["grad-cam"],
        tmp_path,
        metrics=["top_pixels", "grid_top"],
        pixel_space=network.pixel_space,
        progress=False,
    )
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Images: 2" in page
    shown = re.findall(r'<img src="data:image/jpeg;base64,([^"]+)" alt="The image ([^"]+)"', page)
    assert [name for _, name in shown] == list(scenes.names)
    for (data, _), (inputs, *_) in zip(shown, scenes, strict=True):
        picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))) / 255
        pixels = network.pixel_space.to_pixels(inputs[None])[0].permute(1, 2, 0).numpy()
        assert picture.shape == pixels.shape
        assert np.abs(picture - pixels).mean() < 0.05


class Named(list):
    """A data set as a user writes one, with names."""

    def __init__(self, items, names, **attributes):
        super().__init__(items)
        self.names = names
        self.__dict__.update(attributes)


@pytest.mark.parametrize("names", [None, ["a.jpg", "cat: b.jpg", "cat: c.jpg", "dog: b.jpg"]])
def test_photographs_next_to_scenes_count_one_by_one(names, tmp_path):
    network = zoo.load("scenes-plain", weights="random")
    scenes = SceneDataset(network, (3, 5), split="search")
    photographs = [(torch.rand(3, 64, 64), 1) for _ in range(4)]
    # Objects that say nothing of their images, and so are one each.
    pairs = Named([scenes[0], scenes[1]], ["left", "right"], has_regions=True, has_pairs=True)
    found = evaluate(
        network.model,
        network.layer,
        ConcatDataset([Named(photographs, names), scenes, pairs]),
        ["grad-cam", "random"],
        tmp_path,
        metrics=["insertion", "top_pixels"],
        pixel_space=network.pixel_space,
        progress=False,
    )
    images = found.summary.set_index(["method", "metric"])["images"]
    assert images["grad-cam", "insertion"] == 4 + 2 + 2
    assert images["grad-cam", "top_pixels"] == 2 + 2
    own = found.results[found.results["method"] == "grad-cam"]["insertion"].to_numpy()
    mean = np.mean([*own[:4], own[4:6].mean(), own[6:8].mean(), *own[8:]])
    assert found.summary.set_index(["method", "metric"])["mean"][
        "grad-cam", "insertion"
    ] == pytest.approx(mean, abs=1e-6)
    assert "Images: 8" in (tmp_path / "report.html").read_text(encoding="utf-8")
