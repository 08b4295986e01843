from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from captum.attr import LayerGradCam
from squares import SPACE, Squares, squares_network

from captum_advise.evaluation import (
    Context,
    MethodError,
    MetricSettings,
    MosaicDataset,
    SavedMaps,
    evaluate,
)
from captum_advise.evaluation.methods.saved_maps import read_map

MAP = np.arange(20, dtype=np.float32).reshape(4, 5) / 19


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "maps"
    path.mkdir()
    return path


def save(folder, n=5):
    for i in range(n):
        np.save(folder / f"square {i}.npy", MAP)


def run(output, folder, n=3, methods=None, **options):
    network = squares_network()
    options = {"pixel_space": SPACE, "settings": MetricSettings(steps=3), **options}
    methods = methods or {"mine": SavedMaps(folder), "grad-cam": LayerGradCam}
    return evaluate(
        network, network[3], Squares(n), methods, output, **{"progress": False, **options}
    )


@pytest.mark.parametrize("values", [MAP, MAP.astype(np.float64)[None, None], MAP > 0.5])
def test_arrays_of_real_numbers_are_maps(values, folder):
    np.save(folder / "a.npy", values)
    found = read_map(folder / "a.npy")
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, values.reshape(4, 5).astype(np.float32))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (np.zeros((2, 3, 4)), r"real numbers \(h, w\), and has shape \(2, 3, 4\)"),
        (np.zeros(4), r"shape \(4,\)"),
        (np.zeros((0, 4)), "shape"),
        (np.zeros((3, 4), complex), "type complex128"),
        (np.array([["x"]]), "real numbers"),
        (np.array([[None]]), "cannot be read"),
        (b"not an array", "cannot be read"),
    ],
)
def test_other_files_are_refused_in_a_sentence(content, sentence, folder):
    path = folder / "a.npy"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        np.save(path, content, allow_pickle=True)
    with pytest.raises(ValueError, match=sentence) as caught:
        read_map(path)
    assert str(caught.value).startswith(f"The map {path} ")
    assert str(caught.value).endswith(".")


def test_an_archive_under_the_name_of_an_array_is_refused(folder):
    np.savez(folder / "two.npz", a=MAP, b=MAP)
    (folder / "two.npz").rename(folder / "two.npy")
    with pytest.raises(ValueError, match="must hold real numbers"):
        read_map(folder / "two.npy")


def test_maps_are_found_by_path_or_name(folder):
    for name in ("a/1.npy", "2.npy", "notes.txt"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"")
    maps = SavedMaps(folder)
    assert maps.file("a/1.jpg") == folder / "a" / "1.npy"
    assert maps.file("./a//1.jpeg") == folder / "a" / "1.npy"
    assert maps.file("anywhere/2.JPEG") == folder / "2.npy"
    for image, sentence in (
        ("1.jpg", r"There is no map of 1.jpg in .*: save it as 1.npy\."),
        ("notes.jpg", "There is no map of notes.jpg"),
    ):
        with pytest.raises(ValueError, match=sentence):
            maps.file(image)
    maps.check(["a/1.jpg", "x/2.jpg", "none.jpg"])
    with pytest.raises(ValueError, match=r"2.npy would be the map of x/2.jpg and of y/2.jpg"):
        maps.check(["x/2.jpg", "y/2.jpg"])
    with pytest.raises(NotADirectoryError, match="There is no folder of maps"):
        SavedMaps(folder / "none")


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_saved_maps_are_evaluated_as_any_map(folder, tmp_path):
    save(folder)
    settings = MetricSettings(steps=3)
    metrics = ["default", "arcc", "adcc"]

    def mine(*_):
        return torch.from_numpy(MAP)[None, None]  # for the runner-up class, too

    saved = {"mine": SavedMaps(folder)}
    result = run(tmp_path / "out", folder, methods=saved, settings=settings, metrics=metrics)
    plain = run(tmp_path / "plain", folder, methods={"mine": mine}, settings=settings)
    unknown = ["class_sensitivity", "forward_passes", "seconds", "arcc", "adcc"]
    assert result.results[unknown].isna().all(axis=None)
    assert (result.results["layer"] == "-").all()
    for column in ("insertion", "deletion", "average_drop", "ssim", "avx", "hit"):
        np.testing.assert_allclose(result.results[column], plain.results[column], atol=1e-5)
    summary = result.summary.set_index("metric")["mean"]
    assert summary[unknown].isna().all()


def test_other_methods_keep_their_values(folder, tmp_path):
    save(folder)
    both = run(tmp_path / "both", folder)
    alone = run(tmp_path / "alone", folder, methods={"grad-cam": LayerGradCam})
    shared = both.results.query("method == 'grad-cam'").reset_index(drop=True)
    columns = [c for c in shared if c not in ("seconds", "content")]
    pd.testing.assert_frame_equal(
        shared[columns], alone.results[columns], check_dtype=False, atol=1e-6
    )
    assert both.summary.set_index(["method", "metric"]).loc[("grad-cam", "seconds"), "mean"] > 0
    assert ">nan" not in (both.folder / "report.html").read_text()


def test_missing_changed_and_added_maps(folder, tmp_path):
    save(folder, n=3)
    (folder / "square 0.npy").unlink()
    first = run(tmp_path / "out", folder)
    assert first.results["file"].unique().tolist() == ["square 1", "square 2"]
    (reason,) = first.failures["reason"]
    assert reason == f"There is no map of square 0 in {folder}: save it as square 0.npy."
    again = run(tmp_path / "out", folder)
    assert (again.reused, again.computed) == (4, 0)
    save(folder, n=1)
    added = run(tmp_path / "out", folder)
    assert (added.reused, added.reasons) == (4, {"new image": 2})
    np.save(folder / "square 1.npy", 1 - MAP)
    changed = run(tmp_path / "out", folder)
    assert (changed.reused, changed.reasons) == (5, {"the image changed": 1})
    before, after = (
        evaluation.results.query("file == 'square 1'").set_index("method")["insertion"]
        for evaluation in (added, changed)
    )
    assert before["mine"] != after["mine"]
    assert before["grad-cam"] == after["grad-cam"]
    # The folder elsewhere, and the same files again, are the same maps.
    folder.rename(tmp_path / "moved")
    moved = run(tmp_path / "out", tmp_path / "moved")
    assert (moved.reused, moved.computed) == (6, 0)


def test_saved_maps_are_added_to_a_run(folder, tmp_path):
    save(folder, n=3)
    settings = MetricSettings(steps=2)
    plain = {"grad-cam": LayerGradCam}
    both = {"mine": SavedMaps(folder), **plain}
    first = run(tmp_path / "out", folder, methods=plain, settings=settings)
    added = run(tmp_path / "out", folder, methods=both, settings=settings)
    assert (added.reused, added.reasons) == (3, {"new method": 3})
    whole = run(tmp_path / "whole", folder, methods=both, settings=settings)
    kept = added.results.query("method == 'grad-cam'").reset_index(drop=True)
    pd.testing.assert_frame_equal(kept, first.results)
    pd.testing.assert_frame_equal(
        *(evaluation.results.drop(columns="seconds") for evaluation in (added, whole))
    )
    # Another map changes no other method's rows.
    np.save(folder / "square 1.npy", 1 - MAP)
    changed = run(tmp_path / "out", folder, methods=both, settings=settings)
    assert (changed.reused, changed.reasons) == (5, {"the image changed": 1})
    kept = changed.results.query("method == 'grad-cam'").reset_index(drop=True)
    pd.testing.assert_frame_equal(kept, first.results)
    squares, network = Squares(), squares_network()
    mosaics = MosaicDataset(squares, 2, ((0, 1, 2, 3),), ((0, 1, 2, 3),))
    with pytest.raises(ValueError, match="no maps of mosaics for mine, whose maps are files"):
        evaluate(network, network[3], squares + mosaics, both, tmp_path / "out")


def test_the_first_images_without_maps_do_not_end_a_run(folder, tmp_path):
    np.save(folder / "square 4.npy", MAP)
    evaluation = run(tmp_path / "out", folder, n=5)
    assert len(evaluation.failures) == 4
    assert evaluation.results["file"].tolist() == ["square 4"] * len(evaluation.results)
    (folder / "square 4.npy").rename(folder / "other.npy")
    with pytest.raises(ValueError, match=r"None of the 5 images .* There is no map of square 0"):
        run(tmp_path / "none", folder, n=5)


def test_damaged_maps_fail_as_a_method_does(folder, tmp_path):
    for i in range(3):
        np.save(folder / f"square {i}.npy", np.full((3, 3), np.nan))
    with pytest.raises(MethodError, match="the method mine returned a map with infinite"):
        run(tmp_path / "out", folder)


def test_a_direct_call_reads_the_map_of_the_context_s_image(folder, network, squares):
    np.save(folder / "square 0.npy", MAP)
    image, target = squares.inputs[0][None], torch.tensor([2])
    result = SavedMaps(folder)(network, network[3], image, target, Context(image="square 0"))
    assert result.of_class is None
    assert torch.equal(result.maps, torch.from_numpy(MAP)[None, None])


def test_an_image_with_two_classes_has_one_map(folder, tmp_path):
    save(folder, 2)
    data = Squares(2)
    data.names, data.targets = ["square 0", "square 0"], [1, 2]
    network = squares_network()
    with pytest.raises(ValueError, match=r"map of square 0 and of square 0: .* list each"):
        evaluate(network, network[3], data, {"mine": SavedMaps(folder)}, tmp_path / "out")
