"""Classes as people write them in folder names and tables."""

from __future__ import annotations

import re
from functools import cached_property

from captum_advise import zoo
from captum_advise._utils.optional_dependencies import import_optional

_INDEX = re.compile(r"[0-9]+(?:\.0+)?")  # pandas writes 3.0 where a class is missing elsewhere
_WORDNET_ID = re.compile(r"n[0-9]{8}")


class ClassLabels:
    """The classes of a network by index, name, and WordNet id if they are ImageNet's.

    Args:
        network: Its ``class_names`` are the names, and their order the indices.
    """

    def __init__(self, network: zoo.Network) -> None:
        self.network = network
        self._by_name: dict[str, set[int]] = {}
        for index, name in enumerate(network.class_names):
            self._by_name.setdefault(_plain(name), set()).add(index)

    @property
    def accepted(self) -> str:
        """What :meth:`find` takes, for a message."""
        others = ", class name or WordNet id" if self._wordnet else " or class name"
        return f"class index (0 to {len(self.network.class_names) - 1}){others}"

    def find(self, text: str) -> int | None:
        """The class that a text names, or None if it names none, or more than one.

        Upper and lower case are the same, and so are spaces and underscores.
        """
        plain = _plain(text)
        matches = set(self._by_name.get(plain, ()))
        if _INDEX.fullmatch(plain) and float(plain) < len(self.network.class_names):
            matches.add(int(float(plain)))
        if is_wordnet_id(plain) and plain in self._wordnet:
            matches.add(self._wordnet[plain])
        return matches.pop() if len(matches) == 1 else None

    @cached_property
    def has_imagenet_classes(self) -> bool:
        """Whether the classes are those of ImageNet, in the usual order."""
        if len(self.network.class_names) != 1000:
            return False
        weights = import_optional("torchvision.models", "zoo").ResNet50_Weights.DEFAULT
        return tuple(self.network.class_names) == tuple(weights.meta["categories"])

    @cached_property
    def _wordnet(self) -> dict[str, int]:
        if not self.has_imagenet_classes:
            return {}
        ids = import_optional("timm.data", "zoo").ImageNetInfo().label_names()
        return {name: index for index, name in enumerate(ids)}


def is_wordnet_id(text: str) -> bool:
    """Whether a text has the form of a WordNet id."""
    return _WORDNET_ID.fullmatch(text) is not None


def _plain(name: str) -> str:
    return " ".join(name.replace("_", " ").casefold().split())
