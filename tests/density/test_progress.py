"""Long density estimates give a sign of life."""

import io

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
