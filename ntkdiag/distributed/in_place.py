"""Tensors of equal shapes in all processes, which become the same in all: their sum, or those of the first process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, distributed

from ntkdiag.distributed.group import Processes

# Most numbers that are copied into one tensor and exchanged at a time; a larger tensor goes alone.
_AT_A_TIME = 2**24


def add_up(processes: Processes, what: str, tensors: Sequence[Tensor]) -> None:
    """Replace tensors by their sums over processes, which have the same bits in all of them.

    Args:
        processes: All of them.
        what: Names the tensors; see `Processes.meet`, also for what is raised.
        tensors: On any device; those of half precision are added in float32.
    """

    def summed(values: Tensor) -> Tensor:
        wide = values.float() if values.dtype in (torch.float16, torch.bfloat16) else values
        return processes.call(lambda there, group: distributed.all_reduce(there, group=group), wide)

    _replace(processes, what, tensors, summed)


def take_from_first(processes: Processes, what: str, tensors: Sequence[Tensor]) -> None:
    """Give tensors the first process's values.

    Args:
        processes: All of them.
        what: Names the tensors; see `Processes.meet`, also for what is raised.
        tensors: On any device, of dtypes that are equal in all processes.
    """

    def send(there: Tensor, group: Any) -> None:
        distributed.broadcast(there.view(torch.uint8), src=0, group=group)  # some backends know few dtypes

    _replace(processes, what, tensors, lambda values: processes.call(send, values))


@torch.no_grad()
def _replace(
    processes: Processes, what: str, tensors: Sequence[Tensor], exchanged: Callable[[Tensor], Tensor]
) -> None:
    """Overwrite tensors with what an exchange makes of the numbers of many of them in a row."""
    processes.meet(f"{what} {[tensor.numel() for tensor in tensors]}")
    for some in _together(tensors):
        found = exchanged(torch.cat([tensor.reshape(-1) for tensor in some]))
        parts = found.split([tensor.numel() for tensor in some])
        for tensor, part in zip(some, parts, strict=True):
            tensor.copy_(part.view_as(tensor))


def _together(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Tensors of one dtype on one device, about as many numbers at a time as are exchanged at once."""
    for kind in dict.fromkeys((tensor.dtype, tensor.device) for tensor in tensors):
        some: list[Tensor] = []
        size = 0
        for tensor in tensors:
            if (tensor.dtype, tensor.device) == kind:
                some.append(tensor)
                size += tensor.numel()
                if size >= _AT_A_TIME:
                    yield some
                    some, size = [], 0
        if some:
            yield some
