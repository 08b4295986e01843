"""Long density estimates give a sign of life."""

import io
import itertools
import warnings

import pytest
import torch

from captum_advise import adaptive_kde
from captum_advise.density import _blocks, _engine


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def many_blocks(monkeypatch):
    """Every row is a block of its own."""
    monkeypatch.setattr(_engine, "_CPU_BLOCK", 1)
    monkeypatch.setattr(_engine, "_COMPILED_BLOCK", 1)
    return lambda: adaptive_kde(torch.rand(6, 20), torch.linspace(0, 1, 20), n_bandwidths=5)


def test_a_bar_on_a_terminal(many_blocks, monkeypatch):
    monkeypatch.setattr(_blocks, "_BAR_AFTER", 0)
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    many_blocks()
    assert "densities: " in terminal.getvalue()
    assert "about" in terminal.getvalue()


def test_nothing_elsewhere_and_nothing_when_it_is_quick(many_blocks, monkeypatch, capsys):
    many_blocks()
    monkeypatch.setattr(_blocks, "_BAR_AFTER", 0)
    many_blocks()  # not a terminal
    assert capsys.readouterr() == ("", "")


def test_one_warning_with_an_estimate(many_blocks, monkeypatch):
    clock = itertools.count(step=100)
    monkeypatch.setattr(_blocks.time, "monotonic", lambda: next(clock))
    with pytest.warns(UserWarning, match=r"will take about \d+ more minutes") as caught:
        many_blocks()
    assert len(caught) == 1
    assert "name a deeper layer" in str(caught[0].message)


def test_no_warning_below_a_minute(many_blocks, monkeypatch):
    clock = itertools.count(step=5)
    monkeypatch.setattr(_blocks.time, "monotonic", lambda: next(clock))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        many_blocks()
