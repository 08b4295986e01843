"""Evidence for larger or smaller values."""

import pytest
import torch
from captum.attr import LayerGradCam
from messages import one_sentence
from torch import nn
from toy_networks import Apply, images, network

from captum_advise import LayerAdvise
from captum_advise.targets import Regression

# A random network may hold no evidence for a class.
pytestmark = pytest.mark.filterwarnings("ignore:.*no group of units:UserWarning")

SHAPES = {
    "(N,)": lambda values: values[:, 0],
    "(N, 1)": lambda values: values[:, :1],
    "(N, K)": lambda values: values,
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("evidence_for", "sign"), [("larger", 1), ("smaller", -1)])
def test_scores_and_maps(shape, evidence_for, sign):
    net, inputs = network(), images()
    regression = Regression(
        nn.Sequential(net, Apply(SHAPES[shape])), (-5, 5), evidence_for=evidence_for
    )
    expected = net(inputs) if shape == "(N, K)" else net(inputs)[:, :1]
    assert torch.equal(regression(inputs), sign * expected)
    by_hand = LayerGradCam(net, net.layer).attribute(inputs, target=0)
    torch.testing.assert_close(
        LayerGradCam(regression, net.layer).attribute(inputs, target=0), sign * by_hand
    )


@pytest.mark.parametrize("unit_selection", ["avx", "average_drop", 0, None])
@pytest.mark.parametrize("evidence_for", ["larger", "smaller"])
def test_layer_advise(unit_selection, evidence_for):
    net, inputs = network(), images()
    values = net(inputs)[:, 0].detach()
    ends = (float(values.min()) - 1, float(values.max()) + 1)
    regression = Regression(
        nn.Sequential(net, Apply(SHAPES["(N,)"])), ends, evidence_for=evidence_for
    )
    advise = LayerAdvise(regression, net.layer, confidence=regression.confidence)
    explanation = advise.explain(inputs, unit_selection=unit_selection)
    position = (values - ends[0]) / (ends[1] - ends[0])
    torch.testing.assert_close(
        explanation.confidence, position if evidence_for == "larger" else 1 - position
    )


def test_confidence_is_the_position_within_the_range():
    scores = torch.tensor([[-1.0], [10.0], [15.0], [20.0], [99.0]])
    larger = Regression(nn.Identity(), (10, 20))
    assert larger.confidence(scores).flatten().tolist() == [0, 0, 0.5, 1, 1]
    smaller = Regression(nn.Identity(), (10, 20), evidence_for="smaller")
    assert smaller.confidence(-scores).flatten().tolist() == [1, 1, 0.5, 0, 0]


@pytest.mark.parametrize("value_range", [(1, 1), (2, 1), (0, float("inf")), (float("nan"), 1)])
def test_ranges_that_are_empty(value_range):
    with pytest.raises(ValueError, match="value_range") as raised:
        Regression(nn.Identity(), value_range)
    one_sentence(raised)


def test_other_errors():
    with pytest.raises(ValueError, match="evidence_for") as raised:
        Regression(nn.Identity(), (0, 1), evidence_for="more")
    one_sentence(raised)
    with pytest.raises(ValueError, match=r"\(3, 3, 24, 24\)") as raised:
        Regression(nn.Identity(), (0, 1))(images())
    one_sentence(raised)
