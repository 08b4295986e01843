from __future__ import annotations

from dataclasses import replace

import pytest
from messages import one_sentence


@pytest.mark.parametrize(
    "text", ["285", "Egyptian cat", "EGYPTIAN_CAT", "egyptian", " egyptian  cat "]
)
def test_class_index(lite0, text):
    assert lite0.class_index(text) == 285


@pytest.mark.parametrize(
    ("text", "not_meant"),
    [("dog", "dogsled"), ("cat", "catamaran"), ("bird", "birdhouse"), ("bear", "bearskin")],
)
def test_parts_of_words_are_not_classes(lite0, text, not_meant):
    assert not_meant in lite0.class_names
    try:
        index = lite0.class_index(text)
    except ValueError as error:
        assert f"{not_meant} (" not in str(error)  # noqa: PT017 - either outcome is right
    else:
        assert text in lite0.class_names[index].split()


def test_several_classes_with_the_word_are_listed(lite0):
    with pytest.raises(ValueError, match="bear") as error:
        lite0.class_index("bear")
    for name in ("brown bear (294)", "American black bear (295)", "sloth bear (297)"):
        assert name in str(error.value)


def test_words_are_taken_together(lite0):
    assert lite0.class_names[lite0.class_index("black bear")] == "American black bear"
    with pytest.raises(ValueError, match="no class 'bear black'"):
        lite0.class_index("bear black")


def test_class_index_prefers_the_whole_name(lite0):
    assert lite0.class_names[lite0.class_index("tiger")] == "tiger"  # also "tiger cat", ...


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1000", "0 to 999"),
        ("-1", "0 to 999"),
        ("tabbby", "did you mean tabby"),
        ("tig", "no class 'tig'"),
        ("", "no class ''"),
    ],
)
def test_class_index_errors(lite0, text, message):
    with pytest.raises(ValueError, match=message) as error:
        lite0.class_index(text)
    one_sentence(error)


def test_a_number_that_is_the_name_of_another_class_is_not_clear(lite0):
    # As torchvision's ImageFolder orders folders.
    network = replace(lite0, class_names=("0", "1", "10", "11", "2", *map(str, range(3, 10))))
    assert network.class_index("1") == 1
    with pytest.raises(ValueError, match=r"can mean 2 .*: 10 \(2\), 8 \(10\)") as error:
        network.class_index("10")
    one_sentence(error)
    from_one = replace(lite0, class_names=("1", "2", "3"))
    assert from_one.class_index("3") == 2
    assert from_one.class_index("0") == 0
    with pytest.raises(ValueError, match="in Python as an int"):
        from_one.class_index("1")
