"""A quick run on squares, for the tests of this folder and the processes that they start."""

from __future__ import annotations

import pandas as pd
from squares import SPACE, Squares, squares_network

from captum_advise.evaluation import MetricSettings, evaluate, get_methods
from captum_advise.evaluation.run.store import FILE

QUICK_SETTINGS = {
    "integrated_gradients_steps": 1,
    "expected_gradients_samples": 1,
    "smooth_grad_samples": 1,
    "lime_samples": 4,
    "lime_grid": 2,
    "occlusion_windows": 1,
    "rise_masks": 2,
}
METHODS = ("layer-advise", "grad-cam", "lime", "random")
REPORT = {"report.html", "results.csv", FILE, "run.json", "summary.csv", ".lock"}


def run(output, dataset=None, methods=METHODS, network=None, method_settings=None, **options):
    network = squares_network() if network is None else network
    given = {
        "pixel_space": SPACE,
        "settings": MetricSettings(steps=3),
        "progress": False,
        **options,
    }
    if not isinstance(methods, dict):
        methods = get_methods(methods, method_settings or {"lime_samples": 20, "lime_grid": 3})
    dataset = Squares() if dataset is None else dataset
    return evaluate(network, network[3], dataset, methods, output, **given)


def reproducible(folder):
    """``results.csv`` without the columns that differ from run to run, as text."""
    return pd.read_csv(folder / "results.csv", dtype=str).drop(columns=["seconds"])


def table(evaluation):
    return evaluation.results.drop(columns=["seconds"])


def counts(evaluation):
    return evaluation.reused, evaluation.computed, evaluation.reasons


def edited(n=3, **changes):
    """Squares with some attributes replaced."""
    squares = Squares(n)
    for name, value in changes.items():
        setattr(squares, name, value)
    return squares


def dark(model, layer, inputs, target, context):
    return (1 - inputs).mean(1, keepdim=True)


def bright(model, layer, inputs, target, context):
    return inputs.mean(1, keepdim=True)
