"""Collects per-sample gradients of samples that several processes share, and contracts this process's part of each.

Which part that is, and what it takes of the other processes' samples, depends on the gradient: see `shared_parts.py`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ntkdiag.distributed import Processes
from ntkdiag.distributed.parcels import Parcel
from ntkdiag.kernel.streaming.accumulate import Accumulator
from ntkdiag.kernel.streaming.contraction.contract import Block, full_precision
from ntkdiag.kernel.streaming.contraction.gradients import Compressed, PerSampleGradient
from ntkdiag.kernel.streaming.shared import EXCHANGED_BYTES
from ntkdiag.kernel.streaming.shared_parts import Columns, Part, part_of


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
        self._waiting: list[tuple[str, Part]] = []
        self._received = [0, 0]  # bytes at each of two turns

    def _finish_waiting(self) -> None:
        self._exchange()
        super()._finish_waiting()

    def _take(self, name: str, gradient: PerSampleGradient, scale: Tensor | None) -> None:
        processes, samples = self._processes, sum(self._counts)
        if isinstance(gradient, Compressed):
            rows, index = self._touched(name, gradient)
            part: Part = Columns(rows, None if scale is None else scale.flatten()[index])
        else:
            turn = int(self._received[1] < self._received[0])
            part = part_of(gradient, scale, samples, processes.count, turn)
            self._received[turn] += _received(part, samples, processes.count) if part.in_turns else 0
        self._waiting.append((name, part))
        if sum(_received(each, samples, processes.count) for _, each in self._waiting) >= EXCHANGED_BYTES:
            self._exchange()

    def _exchange(self) -> None:
        """Exchange what waits, and contract this process's part of it."""
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        processes, own = self._processes, self._counts[self._processes.rank]
        what = " ".join(f"{name} ({type(part).__name__})" for name, part in waiting)
        parcels = [replace(each, rows=each.rows[:own]) for _, part in waiting for each in part.parcels]
        found = iter(processes.exchange(f"gradients of {what}", parcels, self._counts))
        for name, part in waiting:
            tensors = [next(found) for _ in part.parcels]
            if isinstance(part, Columns) and part.scale is None:
                self._join(name, full_precision(tensors[0]))
            else:
                none = Block(0, 0, full_precision(tensors[0].new_zeros(1, 1)))  # its part may be empty
                self._add_products(name, (none, *part.products(tensors, processes, self._counts)))

    def _touched(self, name: str, gradient: Compressed) -> tuple[Tensor, Tensor]:
        """Rows over the elements that the samples of any process touch, and which these are."""
        what, size = f"elements of {name}", gradient.index.numel()
        most = max(each[0] for each in self._processes.meet(what, size))
        own = gradient.index.new_full((1, most), -1)
        own[0, :size] = gradient.index
        every = self._processes.exchange(what, [Parcel(own)], [1] * self._processes.count)[0]
        index = every[every >= 0].unique()
        rows = gradient.rows.new_zeros(len(gradient.rows), len(index))
        rows[:, torch.searchsorted(index, gradient.index)] = gradient.rows
        return rows, index


def _received(part: Part, samples: int, count: int) -> int:
    return sum(parcel.received_bytes(samples, count) for parcel in part.parcels)
