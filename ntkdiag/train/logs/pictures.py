"""Samples of a network in training, and a grid of those that are pictures."""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ntkdiag.conditions import rows_of
from ntkdiag.data import Data
from ntkdiag.denoiser import Denoiser
from ntkdiag.train.sampling import sample

# Samples that are drawn each time, the same noise and conditions every time.
SHOWN = 64
_STEPS, _SEED = 32, 0
# Black between two pictures, in pixels.
_GAP = 1


def shown_samples(denoiser: Denoiser, data: Data) -> Tensor:
    """Samples [SHOWN, *shape] on the CPU, under the conditions of the first training samples where the network takes any."""
    count = min(SHOWN, len(data.train))
    cond = rows_of(denoiser.conditions_from(data.conditions), torch.arange(count))
    return sample(denoiser, count, data.shape, steps=_STEPS, seed=_SEED, cond=cond or None).float().cpu()


def grid(samples: Tensor) -> np.ndarray[Any, np.dtype[np.uint8]] | None:
    """Pictures of one or three channels, from −1 (black) to 1, side by side: [H, W, 3]; None for other samples.

    Args:
        samples: [N, *shape].
    """
    if samples.ndim != 4 or samples.shape[1] not in (1, 3):
        return None
    count, _, height, width = samples.shape
    columns = math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    pixels = ((samples.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).expand(-1, 3, -1, -1)
    whole = np.zeros((rows * (height + _GAP) - _GAP, columns * (width + _GAP) - _GAP, 3), dtype=np.uint8)
    for place, picture in enumerate(pixels.permute(0, 2, 3, 1).numpy()):
        top, left = place // columns * (height + _GAP), place % columns * (width + _GAP)
        whole[top : top + height, left : left + width] = picture
    return whole


def png(pixels: np.ndarray[Any, np.dtype[np.uint8]]) -> bytes:
    """Pixels [H, W, 3] as a PNG file."""
    from matplotlib.image import imsave

    file = io.BytesIO()
    imsave(file, pixels, format="png", metadata={"Software": None})  # type: ignore[dict-item]
    return file.getvalue()
