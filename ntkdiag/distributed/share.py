"""Which samples each process has: consecutive ones, as equal in number as possible."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ntkdiag.distributed.group import Processes
from ntkdiag.distributed.parcels import Parcel


@dataclass(frozen=True)
class Share:
    """Samples shared out over processes.

    A process without samples runs one of another's, which is not counted, so that all of them take the same steps.

    Attributes:
        processes: Of them.
        samples: N, of all processes.
    """

    processes: Processes
    samples: int

    @property
    def own(self) -> slice:
        """Positions of this process's samples."""
        return self.processes.share_of(self.samples)

    @property
    def ran(self) -> slice:
        """Positions of the samples that it runs: its own, or another's if it has none."""
        own = self.own
        return slice(own.start, max(own.stop, own.start + 1))

    @property
    def counts(self) -> list[int]:
        """Samples of each process."""
        return [len(each) for each in self._positions()]

    @property
    def largest(self) -> int:
        """Samples of the process that has most of them."""
        return max(self.counts)

    def tiles(self, tile: int) -> list[list[Tensor]]:
        """Positions of the samples in each tile for each process; tiles of at most `tile` samples, some perhaps empty."""
        number = -(-self.largest // tile)
        return [list(each) for each in zip(*(p.tensor_split(number) for p in self._positions()), strict=True)]

    def of_every(self, rows: Tensor) -> Tensor:
        """Rows of all samples [N, ...], from those that each process ran."""
        own = rows[: self.own.stop - self.own.start].reshape(-1, rows[0].numel())
        every = self.processes.exchange("rows of all samples", [Parcel(own)], self.counts)[0]
        return every.reshape(-1, *rows.shape[1:])

    def _positions(self) -> list[Tensor]:
        shares = [self.processes.share_of(self.samples, rank) for rank in range(self.processes.count)]
        return [torch.arange(each.start, each.stop) for each in shares]
