"""Data points that are chosen by their numbers: a tensor, or samples that are read when they are chosen."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor


class Points(Protocol):
    """What draws and estimators ask of data [N, *shape]."""

    @property
    def shape(self) -> torch.Size:
        """[N, *shape]."""

    @property
    def dtype(self) -> torch.dtype:
        """Floating point."""

    @property
    def device(self) -> torch.device:
        """Where chosen points are."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: Any, /) -> Tensor: ...
