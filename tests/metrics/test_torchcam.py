"""TorchCAM's metrics as a second implementation."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from toy_networks import images, network

from captum_advise._utils.probabilities import target_confidence
from captum_advise.metrics import (
    average_drop,
    deletion_auc,
    increase_in_confidence,
    insertion_auc,
)


@pytest.fixture
def explained():
    """A Layer-CAM extractor, its network, inputs, classes and enlarged maps."""
    inputs, model = images(4), network()
    methods = pytest.importorskip("torchcam.methods")
    with methods.LayerCAM(model, "layer") as extractor:
        probabilities = model(inputs).softmax(1)
        target = probabilities.argmax(1)
        (maps,) = extractor(target.tolist(), probabilities)
        maps = nn.functional.interpolate(maps[:, None], inputs.shape[-2:], mode="bilinear")
        yield extractor, model, inputs, target, maps


def recent_metrics():
    """TorchCAM's metrics. Those of 0.4.0 fail under torch 2.4, and lack insertion and deletion."""
    metrics = pytest.importorskip("torchcam.metrics")
    if not hasattr(metrics, "DeletionInsertionMetric"):
        pytest.skip("the metrics of this version of TorchCAM are too old")
    return metrics


def softmax(scores):
    return scores.softmax(1)


def test_average_drop_and_increase_in_confidence(explained):
    extractor, model, inputs, target, masks = explained
    metric = recent_metrics().ClassificationMetric(extractor, softmax)
    metric.update(inputs)
    expected = metric.summary()
    with torch.no_grad():
        confidence, masked_confidence = (
            target_confidence(softmax(model(x)), target) for x in (inputs, masks * inputs)
        )
    drop = average_drop(confidence, masked_confidence).mean().item()
    increase = increase_in_confidence(confidence, masked_confidence).float().mean().item()
    assert drop == pytest.approx(expected["avg_drop"], abs=1e-5)
    assert increase == pytest.approx(expected["conf_increase"])


def test_insertion_and_deletion(explained):
    extractor, model, inputs, target, maps = explained
    metrics = recent_metrics()
    baselines = torch.rand(1, 3, 1, 1)
    metric = metrics.DeletionInsertionMetric(extractor, softmax, steps=12, baseline=baselines)
    metric.update(inputs)
    options = {"baselines": baselines, "steps": 12}
    areas = [area(model, inputs, maps, target, **options) for area in (deletion_auc, insertion_auc)]
    expected = [metric.deletion / 4, metric.insertion / 4]
    assert [area.mean().item() for area in areas] == pytest.approx(expected, abs=1e-5)
