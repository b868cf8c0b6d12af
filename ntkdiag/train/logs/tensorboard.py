"""The same numbers and pictures for TensorBoard, where it is installed (`pip install ntkdiag[tensorboard]`)."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ntkdiag.process.buckets import Buckets

_GROUPS = ("loss_bucket", "weight_bucket")


class TensorBoard:
    """Events of one run; does nothing where TensorBoard is not installed.

    Args:
        folder: Folder of the events, made at the first of them.
        buckets: Those of the history, whose centres name the curves.
    """

    def __init__(self, folder: Path, buckets: Buckets) -> None:
        self.folder, self.buckets = folder, buckets
        self._writer: Any = None
        self._installed = importlib.util.find_spec("tensorboard") is not None

    def row(self, row: Mapping[str, float]) -> None:
        """A row of the history."""
        writer = self._open(int(row["step"]))
        for name, value in row.items():
            if writer is not None and name != "step":
                writer.add_scalar(self._curve(name), value, int(row["step"]))

    def picture(self, pixels: np.ndarray[Any, np.dtype[np.uint8]], step: int) -> None:
        """A grid of samples [H, W, 3]."""
        writer = self._open(step)
        if writer is not None:
            writer.add_image("samples", pixels, step, dataformats="HWC")

    def close(self) -> None:
        """Write what is waiting, and close the file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _open(self, step: int) -> Any:
        """The writer; events of this and later steps that an earlier process wrote are left out."""
        if self._writer is None and self._installed:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(self.folder), purge_step=step)
        return self._writer

    def _curve(self, column: str) -> str:
        """loss_bucket_3 → loss_bucket/log_snr_-1.25, so that a group of curves is together; others as they are."""
        group, _, place = column.rpartition("_")
        return f"{group}/log_snr_{self.buckets.centers[int(place)]:+.3g}" if group in _GROUPS else column
