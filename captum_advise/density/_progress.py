"""A sign of life where densities take long."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Sequence

from tqdm import tqdm

from captum_advise.density._blocks import Block

# Seconds: shorter waits need no sign, and longer ones a warning.
_BAR_AFTER = 2.0
_WARN_ABOVE = 60.0
_BAR = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}, about {remaining} more"


def with_progress(blocks: Sequence[Block]) -> Iterator[Block]:
    """Yield blocks one by one; show a bar on a terminal, and warn of a long wait."""
    work = [block.work for block in blocks] if len(blocks) > 1 else [1] * len(blocks)
    total, done, warned, start = sum(work), 0, False, time.monotonic()
    with tqdm(
        total=total, desc="densities", delay=_BAR_AFTER, leave=False, disable=None, bar_format=_BAR
    ) as bar:
        for block, amount in zip(blocks, work, strict=True):
            yield block
            done += amount
            bar.update(amount)
            remaining = (time.monotonic() - start) * (total - done) / done
            if remaining > _WARN_ABOVE and not warned:
                warned = True
                warnings.warn(
                    f"Densities on {block.counts.shape[1]} grid points will take about "
                    f"{remaining / 60:.0f} more minutes: name a deeper layer or make the inputs "
                    "smaller if that is too long.",
                    stacklevel=2,
                )
