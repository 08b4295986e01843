"""Several processes under ``torchrun``."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch.distributed as dist

T = TypeVar("T")

# A process may have to wait until the slowest one has finished its share.
_TIMEOUT = timedelta(days=7)


@dataclass(frozen=True)
class Processes:
    """This process among all of a run: ``rank`` of ``count``."""

    rank: int = 0
    count: int = 1

    def first_does(self, action: Callable[[], T]) -> T:
        """Let rank 0 act while the others wait; all get its result, or raise its error."""
        if self.count == 1:
            return action()
        result, error = None, None
        if self.rank == 0:
            try:
                result = action()
            except Exception as raised:
                error = raised
        result, error = self.gather((result, error))[0]
        if error is not None:
            raise error
        return cast(T, result)

    def gather(self, value: T) -> list[T]:
        """The values of all processes, by rank."""
        if self.count == 1:
            return [value]
        values: list[Any] = [None] * self.count
        dist.all_gather_object(values, value)
        return values


@contextmanager
def processes() -> Iterator[Processes]:
    """The processes of this run; under ``torchrun`` they join."""
    joined = False
    if dist.is_available() and not dist.is_initialized() and int(os.getenv("WORLD_SIZE", "1")) > 1:
        # They exchange a few Python objects. NCCL would want a GPU for each process.
        dist.init_process_group("gloo", timeout=_TIMEOUT)
        joined = True
    try:
        if dist.is_available() and dist.is_initialized():
            yield Processes(dist.get_rank(), dist.get_world_size())
            dist.barrier()  # no process leaves while another still communicates
        else:
            yield Processes()
    finally:
        if joined:
            dist.destroy_process_group()
