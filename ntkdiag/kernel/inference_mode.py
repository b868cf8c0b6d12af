"""Measuring inside `torch.inference_mode()`: the mode is left for the time, because no autograd graph can be made in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


@contextmanager
def outside_inference_mode() -> Iterator[None]:
    """The block, or the decorated function, runs outside of inference mode."""
    if not torch.is_inference_mode_enabled():
        yield
        return
    with torch.inference_mode(False):
        yield


def usable(tensor: Tensor) -> Tensor:
    """A copy of a tensor that was made in inference mode, which autograd cannot save."""
    if not tensor.is_inference():
        return tensor
    with torch.inference_mode(False):
        return tensor.clone()
