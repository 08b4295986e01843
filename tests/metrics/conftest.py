from pathlib import Path

import numpy as np
import pytest
import torch

REFERENCE = np.load(Path(__file__).parents[1] / "golden" / "fsim_reference.npz")


@pytest.fixture(params=range(6))
def golden(request):
    """Two images (H, W, 3) uint8, and their FSIM and FSIMc by the authors' program."""
    number = request.param
    images = (REFERENCE[f"{name}_{number}"] for name in ("distorted", "reference"))
    return *images, REFERENCE["fsim"][number], REFERENCE["fsimc"][number]


@pytest.fixture
def as_batch():
    """From (H, W, 3) uint8 to (1, 3, H, W) in [0, 1]."""
    return lambda image: torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
