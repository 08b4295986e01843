import pytest


@pytest.fixture
def torch_engine(monkeypatch):
    """As without numba, or on another device than a CPU."""
    monkeypatch.setattr("captum_advise.density._engine.compiled", lambda: None)


@pytest.fixture(params=["compiled", "torch"])
def engine(request):
    """Both implementations of the density estimate."""
    if request.param == "torch":
        request.getfixturevalue("torch_engine")
    else:
        pytest.importorskip("numba")
