from functools import partial

import pytest

from captum_advise.density import _engine
from captum_advise.density._estimate import estimate_block


@pytest.fixture
def torch_engine(monkeypatch):
    """As without numba."""
    monkeypatch.setattr(_engine, "compiled", lambda: None)


@pytest.fixture
def pointwise_engine(torch_engine, monkeypatch):
    """As on a GPU."""
    monkeypatch.setattr(_engine, "estimate_block", partial(estimate_block, pointwise=True))


@pytest.fixture(params=["compiled", "torch", "pointwise"])
def engine(request):
    """All implementations of the density estimate."""
    if request.param == "compiled":
        pytest.importorskip("numba")
    else:
        request.getfixturevalue(f"{request.param}_engine")
