"""The 1,797 handwritten digits of 8×8 pixels that scikit-learn includes: real images without a download.

Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI repository, 1998 (the test
part, which is the one that scikit-learn includes).
"""

from __future__ import annotations

import torch

from ntkdiag.data.dataset import Data, split_order

_HELD_OUT = 397  # leaves 1,400 to train on


def digits(seed: int = 0) -> Data:
    """Digits as [N, 1, 8, 8] float32 in [-1, 1], labels 0 to 9: 1,400 to train on, 397 held out.

    Args:
        seed: Seed of the split.

    Example:
        >>> digits = nd.data.digits()
        >>> digits.shape, len(digits.train), digits.labels.unique().numel()
        ((1, 8, 8), 1400, 10)
    """
    from sklearn.datasets import load_digits

    found = load_digits()
    images = torch.from_numpy(found.images)  # [1797, 8, 8], whole numbers from 0 to 16
    scaled, labels = (images / 8 - 1).float().unsqueeze(1), torch.from_numpy(found.target).long()
    kept, out = split_order(len(scaled), _HELD_OUT, seed)
    return Data("digits", scaled[kept], scaled[out], labels=labels[kept], held_out_labels=labels[out])
