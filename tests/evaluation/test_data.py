from __future__ import annotations

import shutil
from types import SimpleNamespace

import pytest
import torch

from captum_advise import zoo
from captum_advise.evaluation import image_dataset

CLASSES = ("tench", "tabby cat", "Persian cat")


@pytest.fixture
def network():
    """The part of a Network that reading images uses."""

    def transform(image):
        return torch.tensor(image.convert("RGB").getpixel((0, 0))).float()

    return SimpleNamespace(name="net", class_names=CLASSES, transform=transform)


def files_and_classes(dataset):
    return list(zip(dataset.names, dataset.targets, strict=True))


def test_a_flat_folder_is_unlabelled_and_in_order(photos, network):
    (photos / "notes.txt").write_text("not an image")
    (photos / ".hidden.png").write_bytes(b"")
    dataset = image_dataset(photos, network)
    assert files_and_classes(dataset) == [
        ("astronaut.png", None),
        ("chelsea.png", None),
        ("coffee.png", None),
    ]
    inputs, target = dataset[1]
    expected = network.transform(zoo.open_image(photos / "chelsea.png"))
    assert torch.equal(inputs, expected)
    assert target is None


@pytest.mark.parametrize(
    ("folders", "classes"),
    [
        (("0", "1", "2"), (0, 1, 2)),
        (("2", "Tabby_Cat"), (2, 1)),
        (("n01", "n02", "n03"), (0, 1, 2)),
    ],
)
def test_folders_are_classes(folders, classes, photos, network, tmp_path):
    root = tmp_path / "root"
    for name in folders:
        (root / name / "deeper").mkdir(parents=True)
        shutil.copy(photos / "coffee.png", root / name / "a.PNG")
        shutil.copy(photos / "coffee.png", root / name / "deeper" / "b.png")
    dataset = image_dataset(root, network)
    assert dataset.targets == tuple(c for c in classes for _ in range(2))
    assert dataset.names[:2] == (f"{folders[0]}/a.PNG", f"{folders[0]}/deeper/b.png")
    assert dataset[0][1] == classes[0]


def test_folders_that_are_not_classes_are_refused(photos, network, tmp_path):
    root = tmp_path / "root"
    for name in ("0", "dog"):
        shutil.copytree(photos, root / name)
    with pytest.raises(
        ValueError, match=r"The folder 'dog' in .* is not a class of net, and there"
    ):
        image_dataset(root, network)


def test_a_csv_gives_files_and_classes(photos, network):
    table = photos / "table.csv"
    table.write_text('file,class,note\n"chelsea.png",1,"a, b"\ncoffee.png,,\n\nnone.png,0\n')
    dataset = image_dataset(table, network)
    assert files_and_classes(dataset) == [("chelsea.png", 1), ("coffee.png", None), ("none.png", 0)]
    assert dataset[0][1] == 1
    with pytest.raises(FileNotFoundError, match=r"no image .*none.png"):
        dataset[2]
    table.write_text("chelsea.png\n")
    assert files_and_classes(image_dataset(table, network)) == [("chelsea.png", None)]


@pytest.mark.parametrize("text", ["3", "-1", "cat"])
def test_a_csv_with_another_class_is_refused(text, photos, network):
    table = photos / "table.csv"
    table.write_text(f"chelsea.png,0\ncoffee.png,{text}\n")
    with pytest.raises(ValueError, match=rf"Line 2 .* has '{text}' as class: .* 0 to 2, or empty"):
        image_dataset(table, network)


@pytest.mark.parametrize(
    ("limit", "indices"), [(1, [0]), (2, [0, 1]), (3, [0, 1, 2]), (99, [0, 1, 2])]
)
def test_a_limit_spreads_over_the_data(limit, indices, photos, network):
    names = image_dataset(photos, network).names
    limited = image_dataset(photos, network, limit=limit)
    assert limited.names == tuple(names[i] for i in indices)


def test_a_path_without_images_is_named(photos, network, tmp_path):
    empty = tmp_path / "empty"
    (empty / "inside").mkdir(parents=True)
    with pytest.raises(ValueError, match=f"There is no image in {empty}: give a folder"):
        image_dataset(empty, network)
    (empty / "inside").rmdir()
    (empty / "readme.txt").write_text("")
    with pytest.raises(ValueError, match="There is no image in"):
        image_dataset(empty, network)
    with pytest.raises(FileNotFoundError, match="no folder or CSV file"):
        image_dataset(tmp_path / "nowhere", network)
    with pytest.raises(ValueError, match="is not a CSV file"):
        image_dataset(photos / "coffee.png", network)
    with pytest.raises(ValueError, match="limit must be at least 1"):
        image_dataset(photos, network, limit=0)
