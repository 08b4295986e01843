"""An image for the tests of commands."""

import pytest

from captum_advise import zoo


@pytest.fixture
def cat(tmp_path):
    """The path of a JPEG file."""
    path = tmp_path / "cat.jpg"
    zoo.example_image().save(path)
    return path
