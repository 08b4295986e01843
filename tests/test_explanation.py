from __future__ import annotations

import dataclasses
import json
import math
import os
import pickle
import subprocess
import sys
import zipfile
from unittest import mock

import numpy as np
import pytest
import torch
from captum.attr import LayerActivation, LayerGradCam
from torch import Tensor
from toy_networks import ConvNet

from captum_advise import (
    Explanation,
    LayerAdvise,
    adaptive_kde,
    count_modes,
    relevance,
    unit_relevance,
)
from captum_advise.metrics import VisualExplainability


def images(dtype=torch.float32):
    return torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0)).to(dtype)


def explained(dtype=torch.float32, **arguments) -> Explanation:
    network = ConvNet().to(dtype)
    return LayerAdvise(network, network.convolution).explain(images(dtype), **arguments)


def without_classes() -> Explanation:
    """A forward function without classes: neither target nor confidence nor metrics."""
    network = ConvNet(dims=1, channels=2)
    signals = torch.rand(2, 2, 20)
    return LayerAdvise(lambda x: network(x)[:, 0], network.convolution).explain(
        signals, unit_selection=1
    )


def of_a_fallback() -> Explanation:
    """Every unit speaks against the class: no group has evidence."""
    network = ConvNet()
    with torch.no_grad():
        network.head.weight.fill_(-1)
        network.convolution.bias.fill_(5)
    with pytest.warns(UserWarning, match="no group"):
        return LayerAdvise(network, network.convolution).explain(images(), target=0)


def without_candidates() -> Explanation:
    return dataclasses.replace(explained(), candidates=((), (), ()))


KINDS = {
    "avx": explained,
    "confidence": lambda: explained(unit_selection="average_drop"),
    "all units": lambda: explained(unit_selection=None),
    "two relevances": lambda: explained(unit_selection=[0, 2]),
    "no metrics": lambda: explained(with_metrics=False),
    "with units": lambda: explained(keep_units=True),
    "double": lambda: explained(torch.float64),
    "half": lambda: explained(torch.float16),
    "bfloat16": lambda: explained(torch.bfloat16),
    "no classes": without_classes,
    "fallback": of_a_fallback,
    "no candidates": without_candidates,
}


def leaves(value) -> list:
    """Everything in an explanation that is not a container, in order."""
    if dataclasses.is_dataclass(value):
        value = [getattr(value, field.name) for field in dataclasses.fields(value)]
    if isinstance(value, dict):
        value = [part for item in value.items() for part in item]
    if isinstance(value, list | tuple):
        return [len(value), *(leaf for item in value for leaf in leaves(item))]
    return [value]


def same(first, second) -> bool:
    if isinstance(first, Tensor):
        return (
            first.dtype == second.dtype
            and first.shape == second.shape
            and torch.equal(first.nan_to_num(nan=-77), second.nan_to_num(nan=-77))
        )
    return first == second


# --- files


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_explanation_comes_back_bit_for_bit(kind, tmp_path):
    original = KINDS[kind]()
    path = tmp_path / "explanation.npz"
    original.save(str(path))
    loaded = Explanation.load(path)
    pairs = list(zip(leaves(original), leaves(loaded), strict=True))
    assert len(pairs) > 9
    assert all(same(first, second) for first, second in pairs)
    assert os.listdir(tmp_path) == ["explanation.npz"]


def test_what_is_none_stays_none(tmp_path):
    original = without_classes()
    assert (original.target, original.confidence, original.metrics) == (None, None, None)
    original.save(tmp_path / "e")
    loaded = Explanation.load(tmp_path / "e")
    assert (loaded.target, loaded.confidence, loaded.metrics) == (None, None, None)
    assert [c.metrics for found in loaded.candidates for c in found] == [None, None]


def test_the_file_is_plain_numpy(tmp_path):
    """Whoever has NumPy alone can read it."""
    original = explained()
    original.save(tmp_path / "e.npz")
    with np.load(tmp_path / "e.npz", allow_pickle=False) as arrays:
        assert np.array_equal(arrays["attributions"], original.attributions.numpy())
        assert np.array_equal(arrays["metrics.avx"], original.metrics.avx.numpy())


def test_a_file_that_would_fill_the_memory_is_refused(tmp_path):
    explained().save(tmp_path / "e.npz")
    with np.load(tmp_path / "e.npz") as arrays:
        parts = dict(arrays)
    parts["attributions"] = np.broadcast_to(np.float32(0), (3, 1, 16384, 8192))
    np.savez_compressed(tmp_path / "bomb.npz", **parts)
    assert (tmp_path / "bomb.npz").stat().st_size < 10_000_000
    with pytest.raises(ValueError, match=r"bomb\.npz .*1\.6 GB of memory"):
        Explanation.load(tmp_path / "bomb.npz")


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("candidates", [[{"relevance": 1}]]),
        ("candidates", 7),
        ("metrics", {}),
        ("metrics", None),
        ("maps", {"layer-advise": {"tensor, type": ["maps.lost", "float32"]}}),
        ("attributions", {"tensor, type": ["attributions", "load"]}),
        ("units", ["feature_maps"]),
        ("setup", {"model": "mine"}),
        ("more", 1),
    ],
)
def test_parts_that_do_not_fit_together(part, value, tmp_path):
    explained().save(tmp_path / "e.npz")
    with np.load(tmp_path / "e.npz") as arrays:
        parts = dict(arrays)
    header = json.loads(str(parts["header"]))
    header["content"][part] = value
    if (part, value) == ("metrics", None):
        del header["content"]["metrics"]
    parts["header"] = np.array(json.dumps(header))
    np.savez_compressed(tmp_path / "e.npz", **parts)
    with pytest.raises(ValueError, match="truncated, damaged, or not a file with") as error:
        Explanation.load(tmp_path / "e.npz")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("crafted", ["another type", "one array for all", "long header"])
def test_small_files_take_little_memory(crafted, tmp_path, monkeypatch):
    monkeypatch.setattr("captum_advise._utils.records._MOST_BYTES", 2**22)
    path = tmp_path / "e.npz"
    explained().save(path)
    with np.load(path) as arrays:
        parts = dict(arrays)
    header = json.loads(str(parts["header"]))
    content = header["content"]
    if crafted == "another type":
        content["attributions"] = {"tensor, type": ["attributions", "complex128"]}
    elif crafted == "one array for all":
        content["target"] = content["attributions"]
    else:
        content["more"] = [0] * 200_000
    parts["header"] = np.array(json.dumps(header))
    np.savez_compressed(path, **parts)
    reasons = {"another type": "not of the type", "long header": "GB of memory"}
    with pytest.raises(ValueError, match=reasons.get(crafted, "'attributions'")):
        Explanation.load(path)


def test_a_pickle_is_not_opened(tmp_path):
    path = tmp_path / "e.npz"

    class Harmful:
        def __reduce__(self):
            return (os.system, (f"touch {tmp_path / 'harm'}",))

    array = np.array([Harmful()], dtype=object)
    np.savez(path, attributions=array)
    with pytest.raises(ValueError, match="not a file with an explanation"):
        Explanation.load(path)
    path.write_bytes(pickle.dumps(Harmful()))
    with pytest.raises(ValueError, match="not a file with an explanation"):
        Explanation.load(path)
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file(tmp_path, share):
    path = tmp_path / "e.npz"
    explained().save(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match=r"e\.npz is truncated, damaged, or not a file") as error:
        Explanation.load(path)
    assert "\n" not in str(error.value)


def test_every_damaged_byte_is_an_error_or_harmless(tmp_path):
    """Checksums find what is flipped in the content; in the archive's dates it changes nothing."""
    path = tmp_path / "e.npz"
    original = explained()
    original.save(path)
    content, found = path.read_bytes(), []
    for place in range(0, len(content), 41):
        damaged = bytearray(content)
        damaged[place] ^= 0x55
        path.write_bytes(damaged)
        try:
            loaded = Explanation.load(path)
        except ValueError as error:
            found.append(str(error))
        else:
            assert all(map(same, leaves(loaded), leaves(original)))
    assert len(found) > 100
    assert not any("\n" in text for text in found)


def test_files_of_another_kind(tmp_path):
    np.savez(tmp_path / "other.npz", attributions=np.zeros(3))
    with zipfile.ZipFile(tmp_path / "plain.zip", "w") as archive:
        archive.writestr("readme.txt", "hello")
    torch.save({"attributions": torch.zeros(3)}, tmp_path / "state.pt")
    (tmp_path / "text").write_text("hello")
    for name in ("other.npz", "plain.zip", "state.pt", "text"):
        with pytest.raises(ValueError, match="not a file with an explanation of captum-advise"):
            Explanation.load(tmp_path / name)
    with pytest.raises(ValueError, match="folder"):
        Explanation.load(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"There is no file .*missing"):
        Explanation.load(tmp_path / "missing")


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "e.npz"
    explained().save(path)
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match=r"e\.npz cannot be written: No space left on device\.$"):
        explained(unit_selection=1).save(path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["e.npz"]
    with pytest.raises(OSError, match="cannot be written"):
        explained().save(tmp_path / "no folder" / "e.npz")


# --- devices, gradients, dictionaries


@pytest.mark.parametrize("kind", KINDS)
def test_tensors_are_detached(kind):
    assert not any(leaf.requires_grad for leaf in leaves(KINDS[kind]()) if isinstance(leaf, Tensor))


def test_tensors_are_detached_from_inputs_that_require_a_gradient():
    network = ConvNet()
    inputs = images().requires_grad_()
    found = LayerAdvise(network, network.convolution).explain(inputs)
    assert not any(leaf.requires_grad for leaf in leaves(found) if isinstance(leaf, Tensor))


def test_to_moves_every_tensor():
    moved = explained().to("meta")
    tensors = [leaf for leaf in leaves(moved) if isinstance(leaf, Tensor)]
    assert len(tensors) > 20
    assert {tensor.device.type for tensor in tensors} == {"meta"}
    assert without_classes().to("meta").target is None


@pytest.mark.parametrize("kind", KINDS)
def test_dictionaries_are_ready_for_json(kind):
    original = KINDS[kind]()
    plain = original.to_dict()
    again = json.loads(json.dumps(plain))
    assert again.keys() == {field.name for field in dataclasses.fields(Explanation)}
    assert again["maps"].keys() == {"layer-advise", "grad-cam"}
    assert torch.allclose(
        torch.tensor(again["attributions"]), original.attributions.float(), atol=0, rtol=1e-6
    )
    assert again["selected_units"] == original.selected_units.tolist()
    assert [len(found) for found in again["candidates"]] == [len(c) for c in original.candidates]
    if original.metrics is None:
        assert again["metrics"] is None
    else:
        assert again["metrics"].keys() == {f.name for f in dataclasses.fields(VisualExplainability)}
    for group in again["candidates"][0]:
        assert group.keys() == {"relevance", "units", "metrics", "attributions"}


# --- candidates' maps


def test_a_candidates_map_is_the_sum_of_its_units():
    network = ConvNet()
    advise = LayerAdvise(network, network.convolution)
    units = advise.attribute(images(), target=2, unit_selection=None, attr_dim_summation=False)
    for selection in ("avx", [0, 2]):
        found = advise.explain(images(), target=2, unit_selection=selection)
        for index, candidates in enumerate(found.candidates):
            for candidate in candidates:
                mine = units[index, candidate.units]
                expected = mine.sum(0, keepdim=True)
                assert torch.allclose(candidate.attributions, expected, atol=1e-6)
            maps = [
                c.attributions for c in candidates if c.relevance in (None, found.selected[index])
            ]
            assert any(torch.equal(one, found.attributions[index]) for one in maps)


def test_selections_in_words():
    selected = torch.tensor([[True] * 12, [True] + [False] * 11, [False] * 12])
    found = dataclasses.replace(explained(), selected_units=selected)
    every, one, none = (found.describe_selection(index) for index in range(3))
    assert every == "all units selected"
    assert one == f"relevance {int(found.unit_relevance[1, 0])} selected"
    assert none == "no units selected"
    several = dataclasses.replace(found.candidates[0][0], relevance=None)
    assert several.describe().startswith("several relevances: ")


# --- for people


def test_repr_says_what_was_found():
    found = explained(target=4)
    first, *lines = repr(found).splitlines()
    assert first == "Explanation of 3 examples, attributions (3, 1, 15, 15) float32 on cpu"
    for index, line in enumerate(lines):
        assert line.startswith(f"  {index}: class 4, confidence {found.confidence[index]:.1%}, ")
        assert f"relevance {int(found.selected[index])} selected, " in line
        assert line.endswith(f"of 12 units, AVX {found.metrics.avx[index]:.3f}")
    group = found.candidates[0][0]
    assert repr(group).startswith(f"Candidate(relevance {group.relevance}: {len(group.units)} unit")


@pytest.mark.parametrize("kind", KINDS)
def test_every_explanation_can_be_shown(kind):
    found = KINDS[kind]()
    assert len(repr(found).splitlines()) == 1 + len(found)
    assert "nan" not in repr(found)


def test_long_explanations_are_shortened():
    network = ConvNet()
    advise = LayerAdvise(network, network.convolution)
    found = advise.explain(torch.rand(13, 3, 32, 32), unit_selection=1)
    assert len(repr(found).splitlines()) == 12
    assert repr(found).endswith("... and 3 more")


def test_inputs_that_are_not_images_have_no_avx():
    network = ConvNet(dims=1)
    advise = LayerAdvise(network, network.convolution)
    found = advise.explain(torch.rand(1, 3, 40), unit_selection="average_drop")
    assert math.isnan(found.metrics.avx[0])
    assert "AVX" not in repr(found)


@pytest.mark.parametrize("kind", KINDS)
def test_one_example_is_a_batch_of_one(kind):
    found = KINDS[kind]()
    for index in (0, len(found) - 1):
        one = found[index]
        assert len(one) == 1
        assert one.describe() == found.describe(index)
        assert one.attributions[0].equal(found.attributions[index])
        for name, maps in found.maps.items():
            assert one.maps[name][0].equal(maps[index])
        if found.units is not None:
            assert one.units.densities.shape == (1, *found.units.densities.shape[1:])
    assert found[-1].describe() == found.describe(len(found) - 1)
    with pytest.raises(IndexError, match=f"the explanation has {len(found)}"):
        found[len(found)]


def test_maps_and_images_are_those_of_the_methods():
    network = ConvNet()
    found = LayerAdvise(network, network.convolution).explain(images(), target=2)
    assert list(found.maps) == ["layer-advise", "grad-cam"]
    assert found.maps["layer-advise"].equal(found.attributions)
    grad_cam = LayerGradCam(network, network.convolution).attribute(images(), 2)
    assert found.maps["grad-cam"].equal(grad_cam.detach())
    lowest, highest = images().flatten(1).amin(1), images().flatten(1).amax(1)
    expected = (images() - lowest.view(3, 1, 1, 1)) / (highest - lowest).view(3, 1, 1, 1)
    torch.testing.assert_close(found.images, expected)
    assert without_classes().images is None


def test_units_are_those_of_the_layer():
    network = ConvNet()
    advise = LayerAdvise(network, network.convolution)
    found = advise.explain(images(), target=2, keep_units=True)
    contributions = advise.attribute(images(), 2, unit_selection=None, attr_dim_summation=False)
    assert found.units.contributions.equal(contributions.detach())
    activations = LayerActivation(network, network.convolution).attribute(images())
    assert found.units.feature_maps.equal(activations)
    assert unit_relevance(activations).equal(count_modes(found.units.densities))
    assert explained().units is None


@pytest.mark.parametrize("selection", ["avx", 1, None])
def test_densities_are_estimated_once(selection):
    network = ConvNet()
    advise = LayerAdvise(network, network.convolution)
    with mock.patch.object(relevance, "adaptive_kde", wraps=adaptive_kde) as estimate:
        advise.explain(images(), target=2, unit_selection=selection, keep_units=True)
    assert estimate.call_count == 1


def test_confidences_are_of_all_classes():
    network = ConvNet()
    found = LayerAdvise(network, network.convolution).explain(images(), target=3)
    torch.testing.assert_close(found.confidences, network(images()).softmax(1).detach())
    assert found.confidence.equal(found.confidences[:, 3])


def test_the_record_draws_nothing():
    program = (
        "import sys, captum_advise.explanation\n"
        "print([name for name in sys.modules if 'captum_advise.visualization' in name])"
    )
    found = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert found.stdout == "[]\n"
