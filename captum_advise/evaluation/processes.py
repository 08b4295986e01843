"""Several processes under ``torchrun``."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

# A process may have to wait until the slowest one has finished its share.
_TIMEOUT = timedelta(days=7)


@dataclass(frozen=True)
class Processes:
    """This process among all of a run: ``rank`` of ``count``."""

    rank: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process prepares the folder and writes the report."""
        return self.rank == 0

    def wait(self) -> None:
        """Wait until all processes have reached this point."""
        if self.count > 1:
            dist.barrier()

    def first_does(self, action: Callable[[], None]) -> None:
        """Let rank 0 act while the others wait. If it fails, every process raises its error."""
        failure: list[Any] = [None]
        if self.is_first:
            try:
                action()
            except Exception as error:
                if self.count == 1:
                    raise
                failure = [error]
        if self.count > 1:
            dist.broadcast_object_list(failure, src=0)
        if failure[0] is not None:
            raise failure[0]


@contextmanager
def processes(device: torch.device) -> Iterator[Processes]:
    """The processes of this run; under ``torchrun`` they join (nccl on CUDA, otherwise gloo)."""
    joined = False
    if dist.is_available() and not dist.is_initialized() and int(os.getenv("WORLD_SIZE", "1")) > 1:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=_TIMEOUT)
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
