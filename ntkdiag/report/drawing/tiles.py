"""Many small images as one picture, a pixel apart."""

from __future__ import annotations

import numpy as np


def tile(images: np.ndarray, gap: float = np.nan) -> np.ndarray:
    """Images [rows, columns, H, W] or [rows, columns, H, W, 3] as one picture [rows·(H+1)+1, columns·(W+1)+1(, 3)].

    Args:
        images: What stands in the cells.
        gap: Value of the pixels between them.
    """
    rows, columns, height, width, *channels = images.shape
    picture = np.full((rows * (height + 1) + 1, columns * (width + 1) + 1, *channels), gap)
    for row in range(rows):
        for place in range(columns):
            top, left = row * (height + 1) + 1, place * (width + 1) + 1
            picture[top : top + height, left : left + width] = images[row, place]
    return picture
