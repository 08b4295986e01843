import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from messages import one_sentence

from captum_advise.metrics import adcc, arcc, visual_explainability
from captum_advise.metrics.confidence import (
    average_drop,
    average_gain,
    hit,
    increase_in_confidence,
)

PROBABILITY = st.floats(0, 1, width=32)


@given(st.lists(st.tuples(PROBABILITY, PROBABILITY), min_size=1, max_size=5))
def test_drop_gain_and_increase_by_hand(pairs):
    confidence, masked_confidence = torch.tensor(pairs).T
    drops = average_drop(confidence, masked_confidence)
    gains = average_gain(confidence, masked_confidence)
    increases = increase_in_confidence(confidence, masked_confidence)
    for (y, o), drop, gain, increase in zip(pairs, drops, gains, increases, strict=True):
        assert gain == pytest.approx(max(0.0, o - y) / (1 - y) if y < 1 else 0.0, abs=1e-6)
        assert drop == pytest.approx(max(0.0, y - o) / y if y > 0 else 0.0, abs=1e-6)
        assert bool(increase) == (o > y)


@given(st.lists(PROBABILITY, min_size=7, max_size=7), st.integers(0, 6), st.integers(1, 7))
def test_hit_is_top_k(confidences, target, top):
    n_better = sum(c > confidences[target] for c in confidences)
    hits = hit(torch.tensor([confidences]), torch.tensor([target]), top=top)
    assert hits.tolist() == [n_better < top]


PAIR = torch.tensor([0.8, 0.5]), torch.tensor([0.6, 0.9])
IMAGES, TARGET = torch.rand(2, 3, 16, 16), torch.tensor([0, 1])


@pytest.mark.parametrize("bad", [3.0, -2.0, torch.nan])
@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize(
    "metric",
    [
        average_drop,
        increase_in_confidence,
        lambda whole, masked: visual_explainability(
            *(IMAGES, IMAGES, whole[:, None].expand(2, 2), masked[:, None].expand(2, 2)),
            *(TARGET, torch.zeros(2)),
        ),
    ],
)
def test_logits_are_no_confidences(metric, which, bad):
    pair = [values.clone() for values in PAIR]
    metric(*pair)
    pair[which][1] = bad
    with pytest.raises(ValueError, match=r"outside \[0, 1\]: pass probabilities") as e:
        metric(*pair)
    one_sentence(e)


@pytest.mark.parametrize(("metric", "bad"), [(arcc, 3.0), (arcc, -2.0), (adcc, 3.0), (adcc, -0.5)])
def test_values_that_road_and_average_drop_do_not_have(metric, bad):
    with pytest.raises(ValueError, match="the values of road or average_drop") as e:
        metric(IMAGES, IMAGES, torch.tensor([0.5, bad]))
    one_sentence(e)
