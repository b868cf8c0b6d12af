"""Who receives what of a tensor whose rows several processes have: all of it, a share of its columns, or one of each two."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Parcel:
    """A tensor that a process gives to others.

    Attributes:
        rows: Of this process, [n, ..., last].
        columns: Whether each process receives its share of the last dimension only.
        turn: None where every process receives; else of each two processes only one does, the other one at the next turn.
    """

    rows: Tensor
    columns: bool = False
    turn: int | None = None

    def passes(self, sender: int, receiver: int) -> bool:
        """Whether a process receives from another; it has its own rows in any case."""
        if sender == receiver or self.turn is None:
            return True
        return (sender + receiver + self.turn + (receiver > sender)) % 2 == 0

    def part(self, sender: int, receiver: int, count: int) -> Tensor:
        """What one of `count` processes receives of these rows, which are the sender's."""
        width = self.rows.shape[-1]
        if not self.passes(sender, receiver):
            return self.rows[..., :0]
        return self.rows[..., share_of(width, receiver, count)] if self.columns else self.rows

    def shape(self, sender: int, receiver: int, count: int, rows: int) -> tuple[int, ...]:
        """Of what a process receives of another's rows."""
        return (rows, *self.part(sender, receiver, count).shape[1:])

    def received_bytes(self, samples: int, count: int) -> int:
        """About what a process has of all samples afterwards; the same in all of them."""
        own = 1 if self.turn is None else 0.5
        return int(samples * self.rows[0].nbytes * own / (count if self.columns else 1))


def share_of(size: int, rank: int, count: int) -> slice:
    """The part of a dimension that one of `count` processes has."""
    return slice(rank * size // count, (rank + 1) * size // count)
