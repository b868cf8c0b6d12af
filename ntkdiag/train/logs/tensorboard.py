"""The same numbers and pictures for TensorBoard, where it is installed (`pip install ntkdiag[tensorboard]`)."""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from ntkdiag.errors import InputError
from ntkdiag.process.buckets import Buckets

_GROUPS = ("loss_bucket", "weight_bucket")
# The thread in which TensorBoard writes.
_THREAD = "_AsyncWriterThread"


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
        """A row of the history.

        Raises:
            InputError: events cannot be written.
        """
        with self._writing(int(row["step"])) as writer:
            for name, value in row.items():
                if writer is not None and name != "step":
                    writer.add_scalar(self._curve(name), value, int(row["step"]))

    def picture(self, pixels: np.ndarray[Any, np.dtype[np.uint8]], step: int) -> None:
        """A grid of samples [H, W, 3].

        Raises:
            InputError: events cannot be written.
        """
        with self._writing(step) as writer:
            if writer is not None:
                writer.add_image("samples", pixels, step, dataformats="HWC")

    def close(self) -> None:
        """Write what is waiting, and close the file.

        Events that cannot be written now are left out: they are copies of the tables, whose own errors are raised.
        """
        if self._writer is not None:
            with suppress(OSError):
                self._writer.close()
            self._writer = None

    @contextmanager
    def _writing(self, step: int) -> Iterator[Any]:
        """The writer; events of this and later steps that an earlier process wrote are left out."""
        try:
            if self._writer is None and self._installed:
                from torch.utils.tensorboard import SummaryWriter

                self.folder.mkdir(
                    exist_ok=True
                )  # not its parents: the run's folder is there, or was taken away
                _silence_thread()
                self._writer = SummaryWriter(str(self.folder), purge_step=step)
            yield self._writer
        except OSError as error:
            got = error.strerror or error
            raise InputError(
                str(self.folder), expected="a folder that can be written to, with room for events", got=got
            ) from error

    def _curve(self, column: str) -> str:
        """loss_bucket_3 → loss_bucket/log_snr_-1.25, so that a group of curves is together; others as they are."""
        group, _, place = column.rpartition("_")
        return f"{group}/log_snr_{self.buckets.centers[int(place)]:+.3g}" if group in _GROUPS else column


def _silence_thread() -> None:
    """Print no traceback of an error in TensorBoard's thread: its next call raises that error here."""
    before = threading.excepthook

    def hook(failed: threading.ExceptHookArgs) -> None:
        if type(failed.thread).__name__ != _THREAD or not isinstance(failed.exc_value, OSError):
            before(failed)

    if getattr(before, "__module__", None) != __name__:
        threading.excepthook = hook
