"""What metrics that run the model ask of maps and targets."""

import pytest
import torch
from messages import one_sentence
from toy_networks import images, network

from captum_advise.metrics import deletion_auc, insertion_auc, mu_fidelity, road

METRICS = [deletion_auc, insertion_auc, mu_fidelity, road]
TARGET = torch.tensor([0, 1, 2])
MAPS = torch.rand(3, 1, 24, 24, generator=torch.Generator().manual_seed(0))
BAD = {
    "maps not finite": (MAPS / 0, TARGET, ValueError, "not finite"),
    "one pixel not finite": (
        MAPS.where(MAPS.gt(MAPS.min()), torch.nan),
        TARGET,
        ValueError,
        "finite",
    ),
    "maps of the layer": (MAPS[:, :, :7, :7], TARGET, ValueError, "upsample_maps enlarges them"),
    "an int": (MAPS, 1, TypeError, "torch.int64, got int"),
    "real numbers": (MAPS, TARGET.float(), TypeError, "torch.int64, got torch.float32"),
    "one for all": (MAPS, TARGET[:1], ValueError, r"\(3,\), got \(1,\)"),
    "no such class": (MAPS, TARGET + 5, ValueError, "classes from 0 to 6"),
    "negative": (MAPS, TARGET - 1, ValueError, "classes from 0 to 6"),
}


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(("maps", "target", "error", "text"), BAD.values(), ids=BAD)
def test_bad_input(metric, maps, target, error, text):
    with pytest.raises(error, match=text) as raised:
        metric(network(), images(), maps, target)
    one_sentence(raised)
