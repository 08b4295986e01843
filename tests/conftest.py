"""Shared fixtures and the Hypothesis profiles."""

import os

# Workers that run side by side (pytest-xdist) take one thread each; set before torch is imported.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import hypothesis
import pytest
import torch

hypothesis.settings.register_profile("ci", derandomize=True, deadline=None, max_examples=25)
hypothesis.settings.register_profile("deep", deadline=None, max_examples=500)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.fixture
def photos(tmp_path):
    """A folder of three images."""
    from PIL import Image
    from skimage import data

    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("chelsea", "astronaut", "coffee"):
        Image.fromarray(getattr(data, name)()).resize((64, 64)).save(folder / f"{name}.png")
    return folder


@pytest.fixture
def told(monkeypatch):
    """What LayerAdvise and GatedGradCam warn of, but for what random weights lead to."""
    messages = []
    # SqueezeNet ends in a ReLU: its logits are small without training.
    by_chance = ("no unit with relevance", "no group of units", "All outputs lie in [0, 1]")

    def record(found):
        messages.extend(m for m in found if m and not any(part in m for part in by_chance))

    for module in ("layer_advise", "gated_grad_cam"):
        monkeypatch.setattr(f"captum_advise.{module}.warn_of", record)
    return messages
