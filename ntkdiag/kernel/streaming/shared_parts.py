"""Which part of a gradient's Gram matrix each of several processes forms, and what it takes of the others' samples for it.

The parts of all processes add up to the whole. Where the product of gradients is formed through their tokens, a process
forms blocks of the matrix: that of its own samples, and those of its samples with others', which of each two processes one
forms for both. Otherwise it forms the share of its columns of the gradient for all samples. Of a gradient that is a product
of factors it then takes its columns of the longer factor and all of the shorter one, or its columns of the gradient itself,
whichever are less.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

from torch import Tensor

from ntkdiag.distributed import Processes
from ntkdiag.distributed.parcels import Parcel
from ntkdiag.kernel.streaming.contraction.contract import (
    Block,
    between,
    contract,
    full_precision,
    through_tokens,
    through_tokens_is_cheaper,
)
from ntkdiag.kernel.streaming.contraction.gradients import Dense, Outer, PerSampleGradient, Unformed, as_dense

# Windows of a convolution are copied out of an image at the cost of one such part of the bytes being received; tuned here.
_UNFOLDED = 1 / 10


class Part(Protocol):
    """A process's part of the products of a parameter's gradients.

    Attributes:
        in_turns: Whether of each two processes only one receives from the other.
    """

    in_turns: ClassVar[bool]

    @property
    def parcels(self) -> list[Parcel]:
        """What is exchanged, of the samples that this process ran."""

    def products(self, tensors: list[Tensor], processes: Processes, counts: Sequence[int]) -> Iterator[Block]:
        """This process's part of the Gram matrix [N, N], on and above its diagonal.

        Args:
            tensors: For each parcel, what was received.
            processes: Who shares the samples.
            counts: Samples of each of them.
        """


@dataclass(frozen=True)
class Columns:
    """Columns of the gradients.

    Attributes:
        rows: [n, length].
        scale: Factors of the elements, [length]; None for ones.
    """

    rows: Tensor
    scale: Tensor | None
    in_turns: ClassVar[bool] = False

    @property
    def parcels(self) -> list[Parcel]:
        return [Parcel(self.rows, columns=True)]

    def products(self, tensors: list[Tensor], processes: Processes, counts: Sequence[int]) -> Iterator[Block]:
        yield Block(0, 0, contract(Dense(tensors[0]), _share(self.scale, processes)))


@dataclass(frozen=True)
class Factors:
    """Columns of one factor of outer products, and all of the other one.

    Attributes:
        longer, shorter: [n, T, p] and [n, T, q].
        scale: Factors of the elements, [p, q]; None for ones.
    """

    longer: Tensor
    shorter: Tensor
    scale: Tensor | None
    in_turns: ClassVar[bool] = False

    @property
    def parcels(self) -> list[Parcel]:
        return [Parcel(self.longer, columns=True), Parcel(self.shorter)]

    def products(self, tensors: list[Tensor], processes: Processes, counts: Sequence[int]) -> Iterator[Block]:
        longer, shorter = tensors
        if longer.shape[-1]:  # there may be fewer columns than processes
            yield Block(0, 0, contract(Outer(longer, shorter), _share(self.scale, processes)))


@dataclass(frozen=True)
class Channels:
    """Channels of a gradient that is still to be formed, and all that they are formed with.

    Attributes:
        gradient: Of the samples that this process ran.
        scale: Factors of the elements, of the parameter's shape; None for ones.
    """

    gradient: Unformed
    scale: Tensor | None
    in_turns: ClassVar[bool] = False

    @property
    def parcels(self) -> list[Parcel]:
        return [Parcel(self.gradient.left.movedim(2, -1), columns=True), Parcel(self.gradient.right)]

    def products(self, tensors: list[Tensor], processes: Processes, counts: Sequence[int]) -> Iterator[Block]:
        left, right = tensors[0].movedim(-1, 2), tensors[1]
        if left.shape[2]:
            yield Block(0, 0, contract(Dense(self.gradient.form(left, right)), _share(self.scale, processes)))


@dataclass(frozen=True)
class Blocks:
    """Blocks of the Gram matrix of outer products, through their tokens.

    Attributes:
        left, right: [n, T, p] and [n, T, q].
        turn: Says which of two processes receives from the other.
    """

    left: Tensor
    right: Tensor
    turn: int
    in_turns: ClassVar[bool] = True

    @property
    def parcels(self) -> list[Parcel]:
        return [Parcel(self.left, turn=self.turn), Parcel(self.right, turn=self.turn)]

    def products(self, tensors: list[Tensor], processes: Processes, counts: Sequence[int]) -> Iterator[Block]:
        starts = [sum(counts[:rank]) for rank in range(len(counts))]
        taken = [rank for rank in range(len(counts)) if self.parcels[0].passes(rank, processes.rank)]
        rows = [each.split([counts[rank] for rank in taken]) for each in tensors]
        factors = dict(zip(taken, zip(*rows, strict=True), strict=True))
        mine, own = factors.pop(processes.rank), starts[processes.rank]
        for block in through_tokens(*mine):
            yield Block(own + block.row, own + block.column, block.values)
        for rank, theirs in factors.items():
            found = Block(own, starts[rank], between(*mine, *theirs))
            yield found if own < starts[rank] else found.transposed()


def part_of(gradient: PerSampleGradient, scale: Tensor | None, samples: int, count: int, turn: int) -> Part:
    """The part that takes the fewest bytes of other processes; where tokens are few, that with the fewest operations.

    Args:
        gradient: Of a parameter, for the samples that this process ran.
        scale: Factors of the parameter's elements; None for ones.
        samples, count: N, and the number of processes.
        turn: See `Blocks`.
    """
    if isinstance(gradient, Outer):
        left, right = full_precision(gradient.left), full_precision(gradient.right)
        (_, tokens, p), q = left.shape, right.shape[2]
        if scale is None and through_tokens_is_cheaper(samples, tokens, p, q):
            return Blocks(left, right, turn)
        if factors_are_less(tokens, p, q, count):
            scale = None if scale is None else scale.reshape(p, q)
            if p >= q:
                return Factors(left, right, scale)
            return Factors(right, left, None if scale is None else scale.T)
        gradient = Outer(left, right)
    elif isinstance(gradient, Unformed) and _less(gradient, count):
        return Channels(gradient, scale)
    rows = as_dense(gradient).rows
    return Columns(rows.reshape(len(rows), -1), None if scale is None else scale.flatten())


def factors_are_less(tokens: int, p: int, q: int, count: int) -> bool:
    """Whether a process's columns of the longer factor and the shorter one are less than its columns of the gradient."""
    return tokens * (max(p, q) / count + min(p, q)) < p * q / count


def channels_are_less(left: int, right: int, channels: int, size: int, count: int) -> bool:
    """The same of a gradient that is still to be formed; each process then forms windows for all samples.

    Args:
        left, right: Numbers of a sample that it is formed from.
        channels: Of `left`.
        size: Elements of the gradient.
        count: Processes.
    """
    windows = left / channels * size / channels
    return left / count + right + _UNFOLDED * windows < size / count


def _less(gradient: Unformed, count: int) -> bool:
    left, right = gradient.left[0], gradient.right[0]
    return channels_are_less(left.numel(), right.numel(), left.shape[1], gradient.size, count)


def _share(scale: Tensor | None, processes: Processes) -> Tensor | None:
    """This process's part of the first dimension."""
    return None if scale is None else scale[processes.share_of(len(scale))]
