"""Collects per-sample gradients of samples that several processes share, and contracts this process's part of each.

A gradient that is an outer product of factors is not formed to be exchanged: each process receives its columns of the
longer factor and all of the shorter one, for every sample, and contracts its part of the gradient. Any other is exchanged
by columns.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ntkdiag.distributed import Processes
from ntkdiag.kernel.streaming.accumulate import Accumulator
from ntkdiag.kernel.streaming.contraction.contract import contract
from ntkdiag.kernel.streaming.contraction.gradients import (
    Compressed,
    Dense,
    Outer,
    PerSampleGradient,
    Unformed,
)
from ntkdiag.kernel.streaming.shared import EXCHANGED_BYTES


@dataclass(frozen=True)
class _Waiting:
    """Gradients of a parameter for the samples of this process, which are to be exchanged.

    Attributes:
        name: Of the parameter.
        gradient: Of the samples that this process ran.
        scale: Factors of its elements; None for ones.
    """

    name: str
    gradient: Outer | Dense | Compressed
    scale: Tensor | None

    def received_bytes(self, samples: int, processes: int) -> int:
        """About what a process receives of the gradients of all samples."""
        if isinstance(self.gradient, Outer):
            longer, shorter = _by_length(self.gradient)
            return samples * (longer[0].nbytes // processes + shorter[0].nbytes)
        return samples * self.gradient.rows[0].nbytes // processes


class SharedAccumulator(Accumulator):
    """Gram matrices of one sweep over samples of several processes; those of all processes add up to the whole.

    Args:
        names, uses, probes, group, inverse_preconditioner, device: As `Accumulator`.
        processes: Who shares.
        counts: Samples of each of them in this sweep. A process without any runs one that is not counted.
    """

    def __init__(
        self,
        names: Iterable[str],
        uses: Counter[str],
        probes: int,
        group: Callable[[str], str],
        inverse_preconditioner: dict[str, Tensor],
        device: torch.device,
        processes: Processes,
        counts: Sequence[int],
    ) -> None:
        super().__init__(names, uses, probes, sum(counts), group, inverse_preconditioner, device)
        self._processes, self._counts = processes, counts
        self._waiting: list[_Waiting] = []

    def finish(self) -> None:
        """End the backward."""
        super().finish()
        self._exchange()

    def _take(self, name: str, gradient: PerSampleGradient, scale: Tensor | None) -> None:
        if isinstance(gradient, Unformed):
            gradient = gradient.dense()
        self._waiting.append(_Waiting(name, gradient, scale))
        samples, count = sum(self._counts), self._processes.count
        received = sum(each.received_bytes(samples, count) for each in self._waiting)
        # what a process touches of a table is its own number: it must not decide when all exchange
        if isinstance(gradient, Compressed) or received >= EXCHANGED_BYTES:
            self._exchange()

    def _exchange(self) -> None:
        """Exchange what waits, and contract this process's part of it."""
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        processes, own = self._processes, self._counts[self._processes.rank]
        what = " ".join(f"{each.name} ({type(each.gradient).__name__})" for each in waiting)
        parts = [self._parts(each) for each in waiting]
        tensors = [tensor[:own] for part in parts for tensor in part.tensors]
        split = [number == 0 for part in parts for number in range(len(part.tensors))]
        found = iter(processes.exchange(f"gradients of {what}", tensors, self._counts, split))
        for each, part in zip(waiting, parts, strict=True):
            self._add_products(each.name, self._contracted([next(found) for _ in part.tensors], part.scale))

    def _parts(self, waiting: _Waiting) -> _Parts:
        gradient, scale = waiting.gradient, waiting.scale
        if isinstance(gradient, Outer):
            longer, shorter = _by_length(gradient)
            if scale is not None:
                scale = scale.reshape(gradient.left.shape[2], gradient.right.shape[2])
                scale = scale if longer is gradient.left else scale.T
            return _Parts([longer, shorter], scale)
        scale = None if scale is None else scale.flatten()
        if isinstance(gradient, Compressed):
            rows, index = self._touched(waiting.name, gradient)
            return _Parts([rows], None if scale is None else scale[index])
        return _Parts([gradient.rows.reshape(len(gradient.rows), -1)], scale)

    def _touched(self, name: str, gradient: Compressed) -> tuple[Tensor, Tensor]:
        """Rows over the elements that the samples of any process touch, and which these are."""
        what, size = f"elements of {name}", gradient.index.numel()
        most = max(each[0] for each in self._processes.meet(what, size))
        own = gradient.index.new_full((1, most), -1)
        own[0, :size] = gradient.index
        every = self._processes.exchange(what, [own], [1] * self._processes.count, [False])[0]
        index = every[every >= 0].unique()
        rows = gradient.rows.new_zeros(len(gradient.rows), len(index))
        rows[:, torch.searchsorted(index, gradient.index)] = gradient.rows
        return rows, index

    def _contracted(self, tensors: list[Tensor], scale: Tensor | None) -> Tensor:
        """Products of this process's columns of all samples, [m, m]."""
        samples, columns = len(tensors[0]), tensors[0].shape[-1]
        if scale is not None:
            scale = scale[self._processes.share_of(len(scale))]
        if columns == 0:  # there are fewer than processes
            return tensors[0].new_zeros(samples, samples)
        return contract(Outer(*tensors) if len(tensors) == 2 else Dense(tensors[0]), scale)


@dataclass(frozen=True)
class _Parts:
    """What is exchanged of gradients.

    Attributes:
        tensors: Rows [n, length], or factors [n, T, p] and [n, T, q]. The first is exchanged by columns, the other whole.
        scale: Factors, [length] or [p, q]; None for ones.
    """

    tensors: list[Tensor]
    scale: Tensor | None


def _by_length(gradient: Outer) -> tuple[Tensor, Tensor]:
    """The longer and the shorter factor."""
    left, right = gradient.left, gradient.right
    return (left, right) if left.shape[2] >= right.shape[2] else (right, left)
