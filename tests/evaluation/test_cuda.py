"""A run on a GPU has the table of a run on the CPU."""

from __future__ import annotations

import pandas as pd
import pytest
import torch
from method_names import OF_CONVOLUTIONS
from quick_runs import run, table
from squares import Squares, squares_network

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

# Captum and TorchCAM draw their samples on the device.
DRAWN_ON_DEVICE = {"smooth-grad-cam++", "lime", "kernel-shap"}
SETTINGS = {"lime_samples": 20, "lime_grid": 3, "rise_masks": 40}


class SquaresOfDouble(Squares):
    def __getitem__(self, index):
        inputs, target = super().__getitem__(index)
        return inputs.double(), target


def results(device, output, methods):
    network = squares_network().double().to(device)
    return table(run(output, SquaresOfDouble(4), methods, network, SETTINGS))


def test_the_table_of_the_cpu(tmp_path):
    methods = OF_CONVOLUTIONS
    on_cpu, on_gpu = (results(device, tmp_path / device, methods) for device in ("cpu", "cuda"))
    assert set(on_gpu.method) == set(methods)
    assert not on_gpu.select_dtypes("number").drop(columns="target").isna().all().any()
    fixed = [frame[~frame.method.isin(DRAWN_ON_DEVICE)] for frame in (on_gpu, on_cpu)]
    pd.testing.assert_frame_equal(*fixed, rtol=1e-4, atol=1e-4)
