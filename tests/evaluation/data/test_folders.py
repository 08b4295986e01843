from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torchvision

from captum_advise import zoo
from captum_advise.evaluation import image_dataset
from captum_advise.zoo.loading import numbered


@pytest.fixture
def layout(photos, tmp_path):
    """Makes a folder of image files with these names."""

    def made(*names, root="root"):
        for name in names:
            path = tmp_path / root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if name.endswith("/"):
                path.mkdir(exist_ok=True)
            else:
                shutil.copy(photos / "coffee.png", path)
        return tmp_path / root

    return made


def files_and_classes(dataset):
    return list(zip(dataset.names, dataset.targets, strict=True))


def test_a_flat_folder_is_unlabelled_and_in_order(photos, three_classes):
    (photos / "notes.txt").write_text("not an image")
    (photos / ".hidden.png").write_bytes(b"")
    (photos / "empty").mkdir()
    dataset = image_dataset(photos, three_classes)
    assert files_and_classes(dataset) == [
        ("astronaut.png", None),
        ("chelsea.png", None),
        ("coffee.png", None),
    ]
    inputs, target = dataset[1]
    expected = three_classes.transform(zoo.open_image(photos / "chelsea.png"))
    assert torch.equal(inputs, expected)
    assert target is None


@pytest.mark.parametrize(
    ("folders", "classes"),
    [
        (("0", "1", "2"), (0, 1, 2)),
        (("00", "02"), (0, 2)),
        (("2", "Tabby_Cat"), (2, 1)),
        (("n00000001", "n00000002", "n00000003"), (0, 1, 2)),
        (("a", "b", "c"), (0, 1, 2)),
    ],
)
def test_folders_are_classes(folders, classes, layout, three_classes):
    root = layout(*(f"{name}/{file}" for name in folders for file in ("a.PNG", "deeper/b.png")))
    dataset = image_dataset(root, three_classes)
    assert dataset.targets == tuple(c for c in classes for _ in range(2))
    assert dataset.names[:2] == (f"{folders[0]}/a.PNG", f"{folders[0]}/deeper/b.png")
    assert dataset[0][1] == classes[0]


def labelled(*class_names):
    return SimpleNamespace(name="net", class_names=class_names)


@pytest.mark.parametrize("name", ["{}", "class_{}"])
def test_numbers_that_imagefolder_would_order_by_text(name, layout):
    root = layout(*(f"{name.format(index)}/a.png" for index in range(12)))
    by_text = torchvision.datasets.ImageFolder(root)
    network = labelled(*numbered(12))
    with pytest.warns(UserWarning, match=r"classes of their numbers.*class_names") as caught:
        dataset = image_dataset(root, network)
    assert "\n" not in str(caught[0].message)
    numbers = [int(name.split("/")[0].removeprefix("class_")) for name in dataset.names]
    assert numbers == list(dataset.targets)
    # What the warning says to do.
    told = image_dataset(root, labelled(*by_text.classes))
    assert list(told.targets) == by_text.targets
    assert told.names[2] == f"{name.format(10)}/a.png"


def test_numbers_that_are_in_one_order_give_no_warning(layout, recwarn):
    root = layout(*(f"{index:02d}/a.png" for index in range(12)))
    assert image_dataset(root, labelled(*numbered(12))).targets == tuple(range(12))
    assert image_dataset(root, labelled(*map(str, range(12)))).targets == tuple(range(12))
    other = layout(*(f"{index}/a.png" for index in range(12)), root="told")
    image_dataset(other, labelled(*map(str, range(12))))
    assert not recwarn.list


def test_a_subset_of_imagenet_is_known_by_wordnet_ids(layout, imagenet_classes):
    # Imagenette.
    ids = ("n01440764", "n02102040", "n02979186", "n03000684", "n03028079")
    root = layout(*(f"val/{name}/a.JPEG" for name in ids))
    dataset = image_dataset(root / "val", imagenet_classes)
    assert dataset.targets == (0, 217, 482, 491, 497)
    with pytest.raises(ValueError, match=r"'val' .* give the folder that holds the folders"):
        image_dataset(root, imagenet_classes)


def test_ids_that_are_not_imagenet_s_are_not_put_in_order(layout, imagenet_classes):
    root = layout(*(f"n{index:08d}/" for index in range(999)), "n00009999/a.png")
    with pytest.raises(ValueError, match=r"'n00009999' .* is not a class of net"):
        image_dataset(root, imagenet_classes)


def test_all_of_imagenet_is_known_by_wordnet_ids(layout, imagenet_classes):
    timm = pytest.importorskip("timm.data")
    ids = timm.ImageNetInfo().label_names()
    root = layout(*(f"{name}/" for name in ids), f"{ids[285]}/a.png")
    assert image_dataset(root, imagenet_classes).targets == (285,)


class TestRefused:
    def refused(self, root, network, what):
        with pytest.raises(ValueError, match=what) as error:
            image_dataset(root, network)
        assert "\n" not in str(error.value)
        assert str(error.value).endswith(".")

    def test_images_in_both_levels(self, layout, three_classes):
        root = layout("stray.png", "0/a.png", "1/b.png")
        self.refused(
            root,
            three_classes,
            r"holds images \(stray.png\) next to folders with images \(0\)",
        )

    def test_folders_that_are_not_classes(self, layout, three_classes):
        self.refused(
            layout("0/a.png", "dog/a.png"),
            three_classes,
            r"The folder 'dog' in .* is not a class of net: .*class index \(0 to 2\)",
        )

    def test_an_order_that_is_not_clear(self, layout, three_classes):
        # As many folders as classes: one of them is a class, or holds no image, or no class at all.
        for number, names in enumerate(
            (
                ("0/a.png", "1/a.png", "3/a.png"),
                ("1/a.png", "2/a.png", "3/a.png"),
                ("tench/a.png", "cat/a.png", "dog/a.png"),
                ("cat/a.png", "dog/a.png", "notes/"),
                ("test/x/a.png", "train/x/a.png", "val/x/a.png"),
            )
        ):
            root = layout(*names, root=f"root{number}")
            self.refused(root, three_classes, "is not a class of net")

    def test_no_image(self, layout, photos, three_classes, tmp_path):
        root = layout("inside/")
        self.refused(root, three_classes, f"There is no image in {root}: give a folder")
        (root / "inside").rmdir()
        (root / "readme.txt").write_text("")
        self.refused(root, three_classes, "There is no image in")
        with pytest.raises(FileNotFoundError, match="no folder or CSV file"):
            image_dataset(tmp_path / "nowhere", three_classes)


def test_hidden_files_and_folders_are_left_out(layout, three_classes):
    root = layout(
        "0/a.png",
        "0/._a.png",
        "0/.ipynb_checkpoints/a-checkpoint.png",
        ".trash/b.png",
        "__MACOSX/0/._a.png",
    )
    assert image_dataset(root, three_classes).names == ("0/a.png",)


def test_folders_without_an_image_are_left_out(layout, three_classes):
    root = layout("0/a.png", "1/", "2/")
    (root / "1" / "a.txt").write_text("")
    assert image_dataset(root, three_classes).targets == (0,)


def test_images_of_other_types_are_named(layout, three_classes):
    root = layout("a.png", "b.gif", "c.svg", "d.ico", "notes.txt")
    with pytest.warns(UserWarning, match=r"Files in .* left out.*: c.svg, d.ico\."):
        assert image_dataset(root, three_classes).names == ("a.png", "b.gif")


def test_links_are_followed_and_end_where_they_go_round(layout, three_classes):
    root = layout("0/a.png", root="linked")
    (root / "1").symlink_to(root / "0")
    (root / "0" / "back").symlink_to(root / "0")
    (root / "0" / "b.png").symlink_to(root / "0" / "a.png")
    names = ("0/a.png", "0/b.png", "1/a.png", "1/b.png")
    assert image_dataset(root, three_classes).names == names


def test_a_folder_that_cannot_be_read_is_an_error(layout, three_classes, monkeypatch):
    import os

    root = layout("0/a.png", "0/secret/b.png")
    scandir = os.scandir

    def refuse(path):
        if Path(path).name == "secret":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(OSError, match=r"secret cannot be read \(Permission denied\)"):
        image_dataset(root, three_classes)
