"""A sign of life where densities take long."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Sequence
from typing import TypeVar

from tqdm import tqdm

# Seconds: shorter waits need no sign, and longer ones a warning.
_BAR_AFTER = 2.0
_WARN_ABOVE = 60.0
_BAR = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}, about {remaining} more"
_T = TypeVar("_T")


def with_progress(blocks: Sequence[_T], n_points: int) -> Iterator[_T]:
    """Yield blocks of equal work one by one; show a bar on a terminal, and warn of a long wait."""
    start, warned = time.monotonic(), False
    bar = tqdm(blocks, "densities", delay=_BAR_AFTER, leave=False, disable=None, bar_format=_BAR)
    for done, block in enumerate(bar, 1):
        yield block
        remaining = (time.monotonic() - start) * (len(blocks) - done) / done
        if remaining > _WARN_ABOVE and not warned:
            warned = True
            warnings.warn(
                f"Densities on {n_points} grid points will take about {remaining / 60:.0f} more "
                "minutes: name a deeper layer or make the inputs smaller if that is too long.",
                stacklevel=2,
            )
