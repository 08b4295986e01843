"""Images for the tests of commands."""

import pytest
from PIL import Image
from skimage import data

from captum_advise import zoo


@pytest.fixture
def cat(tmp_path):
    """The path of a JPEG file."""
    path = tmp_path / "cat.jpg"
    zoo.example_image().save(path)
    return path


@pytest.fixture
def photos(tmp_path):
    """A folder of three images."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("chelsea", "astronaut", "coffee"):
        Image.fromarray(getattr(data, name)()).resize((64, 64)).save(folder / f"{name}.png")
    return folder
