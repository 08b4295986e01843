"""What a figure of matplotlib shows."""

from __future__ import annotations

import io

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image


def rendered(figure) -> np.ndarray:
    """The figure's pixels."""
    with io.BytesIO() as file:
        figure.savefig(file, format="png")
        return np.asarray(Image.open(file))


def image_and_heat(axes) -> tuple[np.ndarray, np.ndarray]:
    """The two arrays of an overlay."""
    image, heat = (np.asarray(shown.get_array()) for shown in axes.get_images())
    return image, heat


def colour_bars(figure) -> list:
    """The axes of colour bars."""
    return [axes for axes in figure.axes if axes.get_xlabel() == "evidence for the class"]


def texts(figure) -> str:
    """The titles."""
    return "\n".join([figure.get_suptitle(), *(axes.get_title() for axes in figure.axes)])


def assert_legible(figure):
    """Every title, label and tick label lies inside the figure, and no two titles touch."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    titles = [figure._suptitle, figure._supxlabel, *(axes.title for axes in figure.axes)]
    titles = [title for title in titles if title is not None and title.get_text()]
    labels = list(titles)
    for axes in figure.axes:
        labels += [axes.xaxis.label, axes.yaxis.label]
        for axis, (low, high) in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim())):
            if axes.axison:
                ticks = [tick for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
                labels += [label for tick in ticks for label in (tick.label1, tick.label2)]
    for label in labels:
        if label.get_text() and label.get_visible():
            box = label.get_window_extent(renderer)
            assert figure.bbox.containsx(box.x0), label.get_text()
            assert figure.bbox.containsx(box.x1), label.get_text()
            assert figure.bbox.containsy(box.y0), label.get_text()
            assert figure.bbox.containsy(box.y1), label.get_text()
    boxes = [title.get_window_extent(renderer) for title in titles]
    for index, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[:index])
    for axes in colour_bars(figure):
        ends = [label.get_window_extent(renderer) for label in axes.get_xticklabels()]
        assert not any(axes.xaxis.label.get_window_extent(renderer).overlaps(end) for end in ends)
