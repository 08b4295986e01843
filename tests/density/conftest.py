import pytest

from captum_advise.density import _engine


@pytest.fixture
def torch_engine(monkeypatch):
    """As without numba."""
    monkeypatch.setattr(_engine, "compiled", lambda: None)


@pytest.fixture(params=["compiled", "torch"])
def engine(request):
    """All implementations of the density estimate."""
    if request.param == "compiled":
        pytest.importorskip("numba")
    else:
        request.getfixturevalue("torch_engine")
