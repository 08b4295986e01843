"""Several processes under ``torchrun``: who does what, and waiting for each other."""

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
_PATIENCE = timedelta(days=7)


@dataclass(frozen=True)
class Processes:
    """This process among all: ``rank`` of ``count``."""

    rank: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this one prepares the folder and writes the report."""
        return self.rank == 0

    def wait(self) -> None:
        """Until all processes have come here."""
        if self.count > 1:
            dist.barrier()

    def first_does(self, action: Callable[[], None]) -> None:
        """Rank 0 acts while the others wait; its failure is everyone's."""
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
    """All processes of this run; joins them (gloo, or nccl on CUDA) if ``torchrun`` started us."""
    joined = False
    if dist.is_available() and not dist.is_initialized() and int(os.getenv("WORLD_SIZE", "1")) > 1:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=_PATIENCE)
        joined = True
    try:
        if dist.is_available() and dist.is_initialized():
            yield Processes(dist.get_rank(), dist.get_world_size())
            dist.barrier()  # nobody leaves while another still listens
        else:
            yield Processes()
    finally:
        if joined:
            dist.destroy_process_group()
