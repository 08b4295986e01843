"""Some modules have their function's name."""

import importlib
import inspect

import pytest

from captum_advise import metrics


@pytest.mark.parametrize("name", [name for name in metrics.__all__ if name.islower()])
def test_a_name_is_the_function_and_not_its_module(name):
    importlib.import_module(getattr(metrics, name).__module__)
    assert inspect.isfunction(getattr(metrics, name))
