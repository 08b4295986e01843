"""How many kinds of records lie between the inputs of ``attribute`` and its result."""

import dataclasses
import sys

from toy_networks import Net, images, network

from captum_advise import LayerAdvise


def test_at_most_eight(monkeypatch):
    net = network(Net, classes=30)
    advise = LayerAdvise(net, net.layer, activation_range="minmax")
    advise.attribute(images())  # imports what it needs
    made = set()

    def counted(record, name):
        original = getattr(record, name)

        def call(*arguments, **options):
            made.add(record.__name__)
            return original(*arguments, **options)

        monkeypatch.setattr(record, name, call)

    records = {
        value
        for module, names in list(sys.modules.items())
        if module.startswith("captum_advise")
        for value in vars(names).values()
        if isinstance(value, type) and value.__module__.startswith("captum_advise")
    }
    for record in records:
        if dataclasses.is_dataclass(record):
            counted(record, "__init__")
        elif issubclass(record, tuple):
            counted(record, "__new__")
    advise.attribute(images())
    assert {"LayerPass", "MapScorer", "AdaptiveKDE"} <= made
    assert len(made) <= 8, made
