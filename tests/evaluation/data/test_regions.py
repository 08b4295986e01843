"""Where objects are: from data sets to the columns of the pointing games."""

from __future__ import annotations

import pandas as pd
import pytest
import quick_runs
import torch
from squares import Squares

from captum_advise.evaluation import MetricSettings
from captum_advise.metrics import energy_pointing_game, pointing_game, top_pixels


class WithRegions(Squares):
    has_regions = True

    def __getitem__(self, index):
        inputs, target = super().__getitem__(index)
        region = torch.zeros(inputs.shape[-2:], dtype=torch.bool)
        if index != 2:
            region[4:12, 3 + index : 20] = True
        return (inputs, target) if index == 1 else (inputs, target, region)


def run(dataset, output):
    settings = MetricSettings(steps=1)
    return quick_runs.run(output, dataset, ["grad-cam", "gaussian"], settings=settings)


def test_the_columns_are_those_of_the_metrics(tmp_path):
    dataset = WithRegions()
    result = run(dataset, tmp_path)
    assert result.results["index"].unique().tolist() == [0, 3, 4]
    reasons = result.failures.set_index("index")["reason"]
    assert reasons[1].startswith("An item of data with regions has no region")
    assert reasons[2].startswith("The region of the object has no pixel")
    rows = result.results.set_index(["index", "method"])
    offsets = torch.linspace(-0.5, 0.5, 24)
    gaussian = torch.exp(-8 * (offsets[:, None] ** 2 + offsets**2))[None, None]
    lowest, highest = gaussian.min(), gaussian.max()
    for index in (0, 3, 4):
        region = dataset[index][2][None, None]
        mask = (gaussian - lowest) / (highest - lowest)
        row = rows.loc[(index, "gaussian")]
        energy = energy_pointing_game(mask, region).item()
        assert row["energy"] == pytest.approx(energy, rel=1e-5)
        assert row["pointing"] == pointing_game(mask, region).item() == 1
        assert row["top_pixels"] == top_pixels(mask, region).item()
    assert {"pointing", "energy", "top_pixels"} <= set(result.summary["metric"])
    # Without regions, other images: the content has the region.
    plain = run(Squares(), tmp_path)
    assert plain.reasons == {"the image changed": 6, "new image": 4}
    assert "energy" not in plain.results


def test_other_regions_are_other_images(tmp_path):
    class Moved(WithRegions):
        def __getitem__(self, index):
            item = super().__getitem__(index)
            return (*item[:2], item[2].roll(1, 0)) if index == 3 else item

    run(WithRegions(), tmp_path)
    again = run(Moved(), tmp_path)
    assert (again.reused, again.reasons) == (4, {"the image changed": 2})
    assert not pd.isna(again.results["energy"]).any()
