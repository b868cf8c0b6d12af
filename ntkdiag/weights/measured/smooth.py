"""Smoothing of weights over log-SNR, in ln w, so that weights stay positive and within their range."""

from __future__ import annotations

import torch
from torch import Tensor

from ntkdiag.errors import InputError, require_number


def smooth(log_snr: Tensor, weight: Tensor, bandwidth: float) -> Tensor:
    """Kernel regression of ln w on log-SNR (Nadaraya 1964, Watson 1964), with a normal kernel.

    Every smoothed weight is a geometric mean of those near it, so it lies between the least and the largest of them,
    and curves that do not cross stay in order.

    Args:
        log_snr: Where [n].
        weight: > 0 [n].
        bandwidth: Standard deviation of the kernel in units of log-SNR, ≥ 0; 0 leaves the weights alone.

    Returns:
        [n].

    Raises:
        InputError: a bandwidth that is negative or not finite, or a weight of zero.
    """
    require_number("bandwidth", bandwidth, at_least=0.0)
    if bandwidth == 0:
        return weight
    if not (weight > 0).all():
        raise InputError(
            "floor",
            expected="a number above 0, since ln w is smoothed",
            got="a weight of zero",
            fix="Raise {floor}.",
            arguments={"floor": None},
        )
    distance = (log_snr[:, None] - log_snr[None, :]) / bandwidth
    kernel = torch.softmax(-(distance**2) / 2, dim=1)
    return (kernel @ weight.log()).exp()
