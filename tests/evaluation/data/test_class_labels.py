from __future__ import annotations

from types import SimpleNamespace

import pytest

from captum_advise.evaluation.data.class_labels import ClassLabels


def labels(*class_names):
    return ClassLabels(SimpleNamespace(name="net", class_names=class_names))


@pytest.mark.parametrize(
    ("text", "index"),
    [
        ("0", 0),
        ("2", 2),
        ("002", 2),
        ("2.0", 2),
        ("3", None),
        ("-1", None),
        ("1.5", None),
        ("1_0", None),
        ("tabby cat", 1),
        ("Tabby_Cat", 1),
        (" TENCH ", 0),
        ("cat", None),
        ("persian", None),
        ("", None),
        ("n01440764", None),
    ],
)
def test_indices_and_whole_names(text, index):
    assert labels("tench", "tabby cat", "Persian cat").find(text) == index


def test_wordnet_ids_are_those_of_imagenet(imagenet_classes):
    known = ClassLabels(imagenet_classes)
    assert known.find("n01440764") == 0
    assert known.find("N02123045") == 281
    assert imagenet_classes.class_names[281] == "tabby"
    assert known.find("n00000001") is None
    assert "WordNet" in known.accepted
    others = ClassLabels(
        SimpleNamespace(name="net", class_names=imagenet_classes.class_names[::-1])
    )
    assert others.find("n01440764") is None
    assert "WordNet" not in others.accepted


def test_a_number_that_is_the_name_of_another_class_is_not_clear():
    assert labels("0", "1", "2").find("2") == 2
    assert labels("1", "0", "2").find("1") is None
    assert labels("1", "0", "2").find("2") == 2


def test_a_name_of_two_classes_is_not_clear():
    assert labels("crane", "Crane").find("crane") is None
