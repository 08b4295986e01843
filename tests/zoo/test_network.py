from __future__ import annotations

import dataclasses

import pytest
from messages import one_sentence

from captum_advise.layouts import Tokens


@pytest.mark.parametrize("text", ["285", "Egyptian cat", "EGYPTIAN_CAT", "egyp", " egyptian  cat "])
def test_class_index(lite0, text):
    assert lite0.class_index(text) == 285


def test_class_index_prefers_the_whole_name(lite0):
    assert lite0.class_names[lite0.class_index("tiger")] == "tiger"  # also "tiger cat", ...


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1000", "0 to 999"),
        ("-1", "0 to 999"),
        ("tabbby", "did you mean tabby"),
        ("tig", "tiger cat \\(282\\)"),
        ("", "no class ''"),
    ],
)
def test_class_index_errors(lite0, text, message):
    with pytest.raises(ValueError, match=message) as error:
        lite0.class_index(text)
    one_sentence(error)


def test_layers_of_another_layout_are_refused(lite0):
    lite0.check_layout()
    tokens = dataclasses.replace(lite0, reshape_transform=Tokens(1, (4, 4)))
    with pytest.raises(ValueError, match=r"bn2 .* name such a layer with --layer") as error:
        tokens.check_layout()
    one_sentence(error)
