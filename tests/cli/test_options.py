from __future__ import annotations

import inspect

import pytest
import torch

from captum_advise.cli import axioms, evaluate, explain, layers, options, sanity
from captum_advise.cli.networks import resolve_device


def test_devices_without_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert [resolve_device(name) for name in ("auto", "cpu", "cuda")] == ["cpu", "cpu", "cuda"]


def test_each_process_has_a_gpu_of_its_own(monkeypatch):
    chosen = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    for rank in ("0", "1", "2"):
        monkeypatch.setenv("LOCAL_RANK", rank)
        assert resolve_device("auto") == "cuda"
    assert resolve_device("cpu") == "cpu"
    assert chosen == [0, 1, 0]


@pytest.mark.parametrize("name", ["gpu", "cpu:x", "the fast one"])
def test_what_is_no_device(name):
    with pytest.raises(ValueError, match=rf"^--device takes cpu, .* or auto, not '{name}'\.$"):
        resolve_device(name)


@pytest.mark.parametrize(
    "command", [explain.explain, evaluate.evaluate, layers.layers, sanity.sanity, axioms.axioms]
)
def test_shared_options_are_declared_once(command):
    shared = {
        name.lower(): value for name, value in vars(options).items() if hasattr(value, "__args__")
    }
    assert {"model", "layer", "weights", "target", "device", "output"} <= set(shared)
    for name, parameter in inspect.signature(command, eval_str=True).parameters.items():
        if name in shared:
            assert parameter.annotation is shared[name]
