"""Made-up results for the page of a report."""

from __future__ import annotations

import base64
import io

import numpy as np
import pandas as pd
from PIL import Image

from captum_advise.evaluation.columns import METRICS
from captum_advise.evaluation.report.page import Report, page

SHOWN = [metric for metric in METRICS if metric.of != "mosaics"]


def results(gains, *, images=40, names=None, seed=0):
    """Rows in which each method is better than chance by a gain on every metric."""
    generator = np.random.default_rng(seed)
    return pd.DataFrame(
        [
            {
                "index": index,
                "file": names[index % len(names)] if names else f"image {index}.jpg",
                "content": f"{index:016x}",
                "method": method,
                "target": 1,
                "predicted": index % 2,
                "confidence": 0.75,
                **{
                    metric.name: 0.5
                    + (gain if metric.higher_is_better else -gain)
                    + 0.05 * generator.random()
                    for metric in SHOWN
                },
            }
            for index in range(images)
            for method, gain in gains.items()
        ]
    )


def report(gains, *, images=40, names=None, network="net"):
    """A report of made-up results."""
    return Report(
        results=results(gains, images=images, names=names),
        methods=tuple(gains),
        metrics=SHOWN,
        information={
            "configuration": {"network": network, "layer": "features.3", "steps": 4},
            "ended": "2026-01-02T03:04:05+00:00",
        },
        images=range(images),
        class_names=("cat", "dog"),
        failures=2,
        by_avx=[name for name in gains if name.startswith("layer-advise")],
    )


def page_of(made, embedded=(0, 1, 2)):
    """The page of a report, with images of one colour."""
    maps = [jpeg((40 * j, 0, 0)) for j in range(len(made.methods))]
    return page(made, {i: [jpeg((9 * i, 80, 160)), *maps] for i in embedded})


def jpeg(colour):
    """The ``data:`` address of an image of one colour."""
    stream = io.BytesIO()
    Image.new("RGB", (16, 16), colour).save(stream, format="JPEG")
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()
