"""Classes as people write them in folder names and tables."""

from __future__ import annotations

import re
from collections import defaultdict

from captum_advise import zoo
from captum_advise._utils.optional_dependencies import import_optional
from captum_advise.zoo.loading import imagenet_or_numbers
from captum_advise.zoo.network import plain

_INDEX = re.compile(r"[0-9]+(?:\.0+)?")  # pandas writes 3.0 where a class is missing elsewhere


class ClassLabels:
    """The classes of a network by index, name, and WordNet id if they are ImageNet's.

    Args:
        network: Its ``class_names`` are the names, and their order the indices.
    """

    def __init__(self, network: zoo.Network) -> None:
        self.network = network
        self._indices: dict[str, set[int]] = defaultdict(set)
        # ImageNet's, if the classes are those in the usual order.
        is_imagenet = tuple(network.class_names) == imagenet_or_numbers(1000)
        timm = import_optional("timm.data", "zoo") if is_imagenet else None
        wordnet_ids = timm.ImageNetInfo().label_names() if timm else ()
        for names in (network.class_names, wordnet_ids):
            for index, name in enumerate(names):
                self._indices[plain(name)].add(index)
        others = ", class name or WordNet id" if wordnet_ids else " or class name"
        #: What :meth:`find` takes, for a message.
        self.accepted = f"class index (0 to {len(network.class_names) - 1}){others}"

    def find(self, text: str, *, is_name: bool = False) -> int | None:
        """The class that a text names, or None if it names none, or more than one.

        Upper and lower case are the same, and so are spaces and underscores. A number is an index
        unless it ``is_name``.
        """
        known = plain(text)
        matches = set(self._indices.get(known, ()))
        if not is_name and _INDEX.fullmatch(known) and float(known) < len(self.network.class_names):
            matches.add(int(float(known)))
        return matches.pop() if len(matches) == 1 else None
