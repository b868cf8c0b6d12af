"""Samples that are read when they are drawn, for data that does not fit into memory or is slow to read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol, TypeAlias, runtime_checkable

import torch
from torch import Tensor

from ntkdiag import provenance
from ntkdiag.errors import InputError

# Samples are read in parts of so many, and a digest reads so many of them.
_PART, _DIGESTED = 256, 64


class Reader(Protocol):
    """Where samples come from."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample, as it is read."""

    @property
    def dtype(self) -> torch.dtype:
        """Type of the samples, floating point."""

    def __len__(self) -> int: ...

    def read(self, rows: Sequence[int]) -> Tensor:
        """Samples [len(rows), *shape], in that order."""

    def where(self, row: int) -> str:
        """A sample as an error names it."""


@runtime_checkable
class Made(Protocol):
    """A reader of computed samples, whose last digits depend on the device: what they are made from identifies them."""

    def origin(self, rows: Sequence[int]) -> Iterable[Tensor]:
        """What determines these samples."""


class LazySamples:
    """Samples [N, *shape] that are read when they are indexed, and checked then.

    Args:
        reader: Where they come from.
        rows: Which rows of it, in order; all by default.
        what: Name of the samples in errors.

    Example:
        >>> class Squares:
        ...     shape, dtype = (1,), torch.float32
        ...     def __len__(self):
        ...         return 100
        ...     def read(self, rows):
        ...         return torch.tensor(rows).float().square()[:, None]
        ...     def where(self, row):
        ...         return f"number {row}"
        >>> nd.data.LazySamples(Squares())[3:6].flatten()
        tensor([ 9., 16., 25.])
    """

    def __init__(self, reader: Reader, rows: Tensor | None = None, what: str = "data") -> None:
        self.reader, self.what = reader, what
        self.rows = torch.arange(len(reader)) if rows is None else rows
        self.dtype, self.device = reader.dtype, torch.device("cpu")

    def to(self, like: Tensor) -> LazySamples:
        """The same samples, which come in the dtype and on the device of `like` when they are read."""
        moved = LazySamples(self.reader, self.rows, self.what)
        moved.dtype, moved.device = like.dtype, like.device
        return moved

    @property
    def shape(self) -> torch.Size:
        """[N, *shape], as of a tensor."""
        return torch.Size((len(self.rows), *self.reader.shape))

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        return f"LazySamples(shape={tuple(self.shape)})"

    def __getitem__(self, index: Any) -> Tensor:
        """The samples of a number, a slice, or a tensor of numbers, in memory.

        Raises:
            InputError: a sample cannot be read, or contains a NaN or infinity.
        """
        rows = self.rows[index.cpu() if isinstance(index, Tensor) else index]
        chosen = rows.reshape(-1).tolist()
        samples = torch.empty((len(chosen), *self.reader.shape), dtype=self.reader.dtype)
        for start in range(0, len(chosen), _PART):
            part = chosen[start : start + _PART]
            samples[start : start + len(part)] = self.reader.read(part)
            self._check(samples[start : start + len(part)], part)
        moved = samples.to(self.device, self.dtype)
        return moved if rows.ndim else moved[0]

    def _check(self, samples: Tensor, rows: list[int]) -> None:
        finite = samples.isfinite().flatten(1).all(dim=1)
        if not bool(finite.all()):
            bad = rows[int(finite.logical_not().nonzero()[0])]
            raise InputError(
                self.what, expected="finite numbers", got=f"a NaN or infinity in {self.reader.where(bad)}"
            )

    def digest(self) -> str:
        """SHA-256 over the shape, which rows there are, and the content of 64 of them, spread evenly.

        Of computed samples (`Made`) what they are made from stands for the content.
        """
        some = torch.linspace(0, len(self) - 1, min(_DIGESTED, len(self))).round().long()
        made = isinstance(self.reader, Made)
        content = self.reader.origin(self.rows[some].tolist()) if made else [self[some]]  # type: ignore[attr-defined]
        return provenance.digest(torch.tensor(self.shape), self.rows, *content)


Samples: TypeAlias = Tensor | LazySamples


def in_memory(samples: Samples, numbers: int | None = None, seed: int = 0) -> Tensor:
    """Samples as a tensor.

    Args:
        samples: [N, *shape].
        numbers: Most numbers in it, if not all of them: of more samples a random choice is taken.
        seed: Seed of the choice.

    Example:
        >>> nd.data.in_memory(torch.arange(40.0).reshape(20, 2), numbers=10).shape  # five of the samples
        torch.Size([5, 2])
    """
    width = max(1, samples.shape[1:].numel())
    most = len(samples) if numbers is None else max(1, numbers // width)
    if most < len(samples):
        chosen = torch.randperm(len(samples), generator=torch.Generator().manual_seed(seed))[:most]
        return samples[chosen.sort().values.to(samples.device)]
    return samples if isinstance(samples, Tensor) else samples[:]
