from __future__ import annotations

import pytest
import torch
from messages import one_sentence
from safetensors.torch import save_file
from torch import nn
from torchvision import models

from captum_advise import zoo

SMALL = "torchvision/shufflenet_v2_x0_5"


def _pth(state, path):
    torch.save(state, path / "w.pth")
    return path / "w.pth"


def _safetensors(state, path):
    save_file(state, path / "w.safetensors")
    return path / "w.safetensors"


def _wrapped(state, path):
    torch.save({"epoch": 3, "state_dict": state}, path / "w.pt")
    return path / "w.pt"


def _data_parallel(state, path):
    torch.save({f"module.{key}": value for key, value in state.items()}, path / "w.pth")
    return path / "w.pth"


def _compiled(state, path):
    torch.save({"model": {f"_orig_mod.{key}": value for key, value in state.items()}}, path / "w")
    return path / "w"


def _old(state, path):
    """As written before PyTorch 0.4.1, whose batch norms counted no batches."""
    older = {key: value for key, value in state.items() if "num_batches" not in key}
    torch.save(older, path / "w.pth")
    return path / "w.pth"


@pytest.mark.parametrize("save", [_pth, _safetensors, _wrapped, _data_parallel, _compiled, _old])
def test_weights_from_a_file(small, tmp_path, save, logits_of):
    path = save(dict(small.model.state_dict()), tmp_path)
    network = zoo.load(SMALL, weights=path)
    assert torch.equal(logits_of(network), logits_of(small))
    assert network.weights == str(path)


def test_weights_of_another_network(small, tmp_path):
    torch.save(small.model.state_dict(), tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"does not fit alexnet: Missing.*features.0.weight"):
        zoo.load("alexnet", weights=tmp_path / "w.pth")


def test_weights_that_lack_entries(small, tmp_path):
    state = dict(small.model.state_dict())
    del state["fc.bias"], state["conv1.0.weight"]
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"Missing.*conv1.0.weight.*fc.bias") as error:
        zoo.load(SMALL, weights=tmp_path / "w.pth")
    assert "Unexpected" not in one_sentence(error)


def test_weights_of_another_number_of_classes(tmp_path):
    torch.save(models.shufflenet_v2_x0_5(num_classes=7).state_dict(), tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"mismatch for fc\.weight.*\[7, 1024\].*\[1000,") as error:
        zoo.load(SMALL, weights=tmp_path / "w.pth")
    one_sentence(error)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("fraction", [0.0, 0.001, 0.3, 0.9, 0.999])
def test_truncated_weights(small, tmp_path, suffix, fraction):
    state = dict(small.model.state_dict())
    path = _pth(state, tmp_path) if suffix == ".pth" else _safetensors(state, tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[: int(fraction * len(content))])
    with pytest.raises(ValueError, match=r"truncated|not a complete") as error:
        zoo.load(SMALL, weights=path)
    assert str(path) in one_sentence(error)


class _Trap:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (self.path, "w"))


@pytest.mark.parametrize("whole_model", [True, False])
def test_pickled_code_is_refused(tmp_path, whole_model):
    torch.save(
        nn.Linear(2, 2) if whole_model else _Trap(str(tmp_path / "sprung")), tmp_path / "w.pth"
    )
    with pytest.raises(ValueError, match=r"pickled Python objects.*state_dict\(\)") as error:
        zoo.load(SMALL, weights=tmp_path / "w.pth")
    one_sentence(error)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("content", [{}, [1, 2], {"state_dict": 3}, {"a": 1}, {1: torch.ones(1)}])
def test_a_file_without_a_state_dict(tmp_path, content):
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(ValueError, match="does not hold a state dict") as error:
        zoo.load(SMALL, weights=tmp_path / "w.pth")
    one_sentence(error)


def test_no_weights_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="no weights file") as error:
        zoo.load(SMALL, weights=tmp_path / "w.pth")
    one_sentence(error)
    with pytest.raises(FileNotFoundError, match="no weights file"):
        zoo.load(SMALL, weights=tmp_path)
