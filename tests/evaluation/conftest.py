from __future__ import annotations

import pytest
from PIL import Image
from skimage import data
from squares import Squares, tiny_network


@pytest.fixture
def network():
    return tiny_network()


@pytest.fixture
def squares():
    return Squares()


@pytest.fixture
def photos(tmp_path):
    """A folder of three pictures."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("chelsea", "astronaut", "coffee"):
        Image.fromarray(getattr(data, name)()).resize((64, 64)).save(folder / f"{name}.png")
    return folder
