"""Training and evaluation mode for a while, and every module back as it was found."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def training(module: nn.Module) -> Iterator[None]:
    """Training mode inside the block."""
    with _modes_kept(module):
        module.train()
        yield


@contextmanager
def evaluating(module: nn.Module) -> Iterator[Tensor]:
    """Evaluation mode without gradients; yields a parameter, for its dtype and device."""
    with _modes_kept(module), torch.no_grad():
        module.eval()
        yield next(module.parameters(), torch.empty(0))


@contextmanager
def _modes_kept(module: nn.Module) -> Iterator[None]:
    before = {part: part.training for part in module.modules()}
    try:
        yield
    finally:
        for part, mode in before.items():
            part.training = mode
