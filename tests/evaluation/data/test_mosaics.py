from __future__ import annotations

import hashlib

import numpy as np
import pandas as pd
import pytest
import torch
from messages import one_sentence
from torch import nn

from captum_advise.evaluation import MetricSettings, evaluate, mosaic_dataset
from captum_advise.evaluation.columns import get_metrics
from captum_advise.evaluation.report.statistics import compare_methods
from captum_advise.metrics import energy_pointing_game, top_pixels


class Brightest(nn.Module):
    """A classifier of five classes: how much of the image has the colour of each."""

    def __init__(self):
        super().__init__()
        colours = [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0.8, 0.8, -2], [-1, -1, -1.0]]
        self.layer = nn.Conv2d(3, 5, 1, bias=False)
        self.layer.weight = nn.Parameter(40 * torch.tensor(colours)[..., None, None])

    def forward(self, inputs):
        return self.layer(inputs).relu().mean((2, 3))


class Colours(torch.utils.data.Dataset):
    """Images of one colour each, a darker pixel in each of them; every fifth is unclear."""

    def __init__(self, n=12, labelled=True):
        self.classes = [i % 4 for i in range(n)]
        self.labelled = labelled

    def __len__(self):
        return len(self.classes)

    def __getitem__(self, index):
        if index == 7:
            raise ValueError("The image 7 is damaged.")
        pure = torch.tensor([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0.0]])
        image = pure[self.classes[index]][:, None, None].expand(3, 4, 4) * (0.6 + 0.02 * index)
        if index % 5 == 4:
            image = image * 0.01
        return (image, self.classes[index]) if self.labelled else image


@pytest.mark.parametrize("labelled", [True, False])
def test_a_mosaic_has_images_of_different_classes(labelled):
    images, model = Colours(labelled=labelled), Brightest().eval()
    mosaics = mosaic_dataset(model, images, count=2)
    assert len(mosaics) == len(mosaics.names) == 2 * 4
    used = [tile for tiles in mosaics.tiles for tile in tiles]
    assert len(set(used)) == 8
    assert not {4, 7, 9} & set(used)
    for index, name in enumerate(mosaics.names):
        inputs, target, region = mosaics[index]
        mosaic, cell = divmod(index, 4)
        assert inputs.shape == (3, 8, 8)
        assert len(set(mosaics.classes[mosaic])) == 4
        tile = mosaics.tiles[mosaic][cell]
        assert name == f"mosaic {mosaic + 1}, cell {cell + 1}: {tile}"
        row, column = divmod(cell, 2)
        own = images[tile][0] if labelled else images[tile]
        assert torch.equal(inputs[:, row * 4 : row * 4 + 4, column * 4 : column * 4 + 4], own)
        assert torch.equal(inputs[region.expand(3, -1, -1)].view(3, 4, 4), own)
        assert target == images.classes[tile]


def test_further_rounds_make_other_mosaics_of_the_same_images():
    images, read = Colours(), []

    class Counted(Brightest):
        def forward(self, inputs):
            read.append(inputs.shape)
            return super().forward(inputs)

    mosaics = mosaic_dataset(Counted().eval(), images, count=6)
    assert len({frozenset(tiles) for tiles in mosaics.tiles}) == len(mosaics.tiles) == 6
    assert all(len(set(classes)) == 4 for classes in mosaics.classes)
    assert not {4, 7, 9} & {tile for tiles in mosaics.tiles for tile in tiles}
    # The confidence of each image that can be read once, and a mosaic to try its size.
    assert read == [(1, 3, 4, 4)] * 11 + [(1, 3, 8, 8)]
    # The first round is what it is without others.
    assert mosaics.tiles[:2] == mosaic_dataset(Brightest().eval(), images, count=2).tiles


def test_a_round_without_another_mosaic_is_the_last():
    # Two images of the first class, and one of each other: two sets of four are possible.
    images = torch.utils.data.Subset(Colours(), [0, 1, 2, 3, 8])
    mosaics = mosaic_dataset(Brightest().eval(), images)
    assert len(mosaics.tiles) in (1, 2)
    assert len({frozenset(tiles) for tiles in mosaics.tiles}) == len(mosaics.tiles)


def test_the_order_of_the_first_round_is_fixed():
    # By hand: the clear images in the order of sha256("0 <position>"), by class.
    order = sorted(range(12), key=lambda i: hashlib.sha256(f"0 {i}".encode()).digest())
    expected: list[dict[int, int]] = [{}, {}]
    for index in order:
        if index not in (4, 7, 9):
            mosaic = next((m for m in expected if index % 4 not in m), None)
            if mosaic is not None:
                mosaic[index % 4] = index
    mosaics = mosaic_dataset(Brightest().eval(), Colours(), count=2)
    assert mosaics.tiles == tuple(tuple(mosaic.values()) for mosaic in expected)


def test_a_seed_decides():
    images, model = Colours(40), Brightest().eval()

    def tiles(seed):
        return mosaic_dataset(model, images, count=3, seed=seed).tiles

    assert tiles(0) == tiles(0)
    assert tiles(0) != tiles(1)
    assert len(tiles(0)) == 3


def test_what_cannot_be_made_is_one_sentence():
    images, model = Colours(), Brightest().eval()
    with pytest.raises(ValueError, match=r"needs 9 classes .* the data have 4") as error:
        mosaic_dataset(model, images, side=3)
    one_sentence(error)
    with pytest.raises(ValueError, match="side must be at least 2"):
        mosaic_dataset(model, images, side=1)

    class Fixed(Brightest):
        def forward(self, inputs):
            return super().forward(inputs.reshape(len(inputs), 3, 4, 4))

    with pytest.raises(ValueError, match=r"does not take a mosaic of 8 x 8 pixels") as error:
        mosaic_dataset(Fixed().eval(), images, count=1)
    one_sentence(error)


def run(output, methods=("grad-cam", "random"), data=None, count=None, **options):
    model = Brightest().eval()
    data = Colours() if data is None else data
    if count is not None:
        data = data + mosaic_dataset(model, data, count=count)
    if not isinstance(methods, dict):
        methods = list(methods)
    return evaluate(
        model,
        model.layer,
        data,
        methods,
        output,
        settings=MetricSettings(steps=1),
        progress=False,
        **options,
    )


def cells_of(result):
    return result.results[result.results["file"].str.startswith("mosaic")]


def test_cells_of_the_same_image_count_once():
    rng = np.random.default_rng(0)
    tiles = np.concatenate([rng.permutation(6)[:4] for _ in range(5)])
    cells = pd.DataFrame(
        {
            "index": index,
            "image": f"a: {tile}.png",
            "method": method,
            "grid_mass": rng.random(),
            "grid_top": rng.random(),
        }
        for index, tile in enumerate(tiles)
        for method in ("grad-cam", "random")
    )
    metrics = get_metrics(["grid_mass", "grid_top"])
    metrics = [metric for metric in metrics if metric.of == "mosaics"]
    found = compare_methods(cells, ["grad-cam", "random"], metrics, seed=0)
    assert set(found["images"]) == {len(set(tiles))}
    for method, metric, mean in found[["method", "metric", "mean"]].itertuples(index=False):
        own = cells[cells["method"] == method].groupby("image")[metric]
        assert mean == pytest.approx(np.mean([values.mean() for _, values in own]))


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_run_with_mosaics(tmp_path):
    first = run(tmp_path)
    assert "grid_top" not in first.results
    result = run(tmp_path, count=2)
    # The images are those of the first run, which knew nothing of mosaics.
    assert result.reused == first.computed
    assert result.reasons == {"new image": 16}
    images = result.results.drop(cells_of(result).index)
    pd.testing.assert_frame_equal(images[first.results.columns], first.results, check_dtype=False)
    assert images["grid_top"].isna().all()
    cells = cells_of(result)
    assert cells[["insertion", "avx", "forward_passes"]].isna().all(axis=None)
    table = cells.set_index(["index", "method"])
    assert len(table) == 2 * 4 * 2
    # Grad-CAM by hand: a class depends on its own unit alone.
    model = Brightest().eval()
    mosaics = mosaic_dataset(model, Colours(), count=2)
    for index in range(8):
        inputs, target, _ = mosaics[index]
        maps = model.layer(inputs[None]).relu()[:, [target]]
        region = torch.arange(4).view(1, 1, 2, 2) == index % 4
        region = region.repeat_interleave(maps.shape[2] // 2, 2)
        region = region.repeat_interleave(maps.shape[3] // 2, 3)
        mass, top = (game(maps, region).item() for game in (energy_pointing_game, top_pixels))
        row = table.loc[(12 + index, "grad-cam")]
        assert row["target"] == target
        assert row["grid_mass"] == pytest.approx(mass, rel=1e-5)
        assert row["grid_top"] == pytest.approx(top, rel=1e-5)
    summary = result.summary.set_index(["metric", "method"])
    for name in ("grid_mass", "grid_top"):
        mean = cells.groupby("method")[name].mean()
        assert summary.loc[(name, "random"), "mean"] == pytest.approx(mean["random"], rel=1e-6)
        assert summary.loc[(name, "random"), "images"] == 8
    assert summary.loc[("insertion", "random"), "images"] == 11
    fewer = run(tmp_path, count=1)
    assert fewer.computed == 0


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_methods_and_images_are_added_to_a_run_with_mosaics(tmp_path):
    def rows(result):
        return cells_of(result).set_index(["file", "content", "method"]).drop(columns="index")

    first = run(tmp_path / "out", ["random"], count=2)
    more = run(tmp_path / "out", count=2)
    pd.testing.assert_frame_equal(rows(first), rows(more).loc[rows(first).index])
    whole = run(tmp_path / "whole", count=2)
    pd.testing.assert_frame_equal(rows(more), rows(whole))
    # All mosaics may be others when the data have more images.
    larger = run(tmp_path / "out", data=Colours(24), count=2)
    assert len(cells_of(larger)) == 2 * 4 * 2


def test_a_failing_cell_is_a_failure_and_the_rest_is_done(tmp_path):
    def fails_on_mosaics(model, layer, inputs, target, context):
        if inputs.shape[-1] == 8 and target == 2:
            raise ValueError("no blue")
        return inputs

    result = run(tmp_path, {"own": fails_on_mosaics}, count=2)
    assert len(cells_of(result)) == 6
    reasons = result.failures.set_index("file")["reason"]
    assert reasons.str.contains("no blue").sum() == 2
    assert reasons.index.str.startswith("mosaic 1, cell").any()


def test_mosaics_come_with_their_images(tmp_path):
    model = Brightest().eval()
    with pytest.raises(ValueError, match="mosaics alone: evaluate them together") as error:
        run(tmp_path / "out", data=mosaic_dataset(model, Colours(), count=1))
    one_sentence(error)
    assert not (tmp_path / "out").exists()
