"""Where the sketched rows of a probe are kept: in memory, or in a file that is mapped into memory where that ends."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ntkdiag.errors import MeasurementError


@dataclass(frozen=True)
class RowStorage:
    """Makes the rows of one probe.

    Attributes:
        lengths: Parameter name → numbers in a row.
        samples: N.
        dtypes: Parameter name → dtype of its rows.
        device: Where they are; files serve the CPU alone.
        in_file: Whether they are in a file of the folder for temporary files (TMPDIR).
    """

    lengths: Mapping[str, int]
    samples: int
    dtypes: Mapping[str, torch.dtype]
    device: torch.device
    in_file: bool = False

    @property
    def bytes(self) -> int:
        """Memory of the rows of one probe."""
        return sum(self.samples * length * self.dtypes[n].itemsize for n, length in self.lengths.items())

    def make(self) -> dict[str, Tensor]:
        """Parameter name → zeros [N, length]."""
        memory = _mapped(self.bytes) if self.in_file else None
        found, start = {}, 0
        # the widest numbers first, so that all of them are aligned
        for name in sorted(self.lengths, key=lambda each: -self.dtypes[each].itemsize):
            shape, dtype = (self.samples, self.lengths[name]), self.dtypes[name]
            if memory is None:
                found[name] = torch.zeros(shape, dtype=dtype, device=self.device)
                continue
            stop = start + self.samples * self.lengths[name] * dtype.itemsize
            found[name] = memory[start:stop].view(dtype).reshape(shape)
            start = stop
        return found


def _mapped(size: int) -> Tensor:
    """Zeros [size] uint8 in a file that no name leads to, so that it goes with the tensor.

    Raises:
        MeasurementError: the disk is full.
    """
    handle, path = tempfile.mkstemp(prefix="ntkdiag-rows-")
    try:
        os.posix_fallocate(
            handle, 0, max(1, size)
        )  # a hole that cannot be filled later would end the process
        return torch.from_file(path, shared=True, size=size, dtype=torch.uint8)
    except OSError as error:
        raise MeasurementError(
            f"rows of the sketch: expected {size / 1024**3:.1f} GiB of disk in {tempfile.gettempdir()}; got "
            f"{error.strerror or error}. Set TMPDIR to a folder with more, or sketch to fewer numbers."
        ) from error
    finally:
        os.close(handle)
        Path(path).unlink()
