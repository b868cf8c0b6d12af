"""Predictions under classifier-free guidance, which every sampler asks for."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ntkdiag.conditions import placed
from ntkdiag.denoiser import Denoiser
from ntkdiag.errors import InputError


def guided(denoiser: Denoiser, x: Tensor, level: Tensor, cond: Any, guidance: float | None) -> Tensor:
    """The prediction f(x) + w (f(x, cond) − f(x)); without guidance f(x, cond).

    Args:
        denoiser: The network.
        x: Samples [N, *shape].
        level: Log-SNR [N].
        cond: Conditions by name, [N, ...]; None calls the network without.
        guidance: w, or None.

    Raises:
        InputError: guidance of a network without conditions.
    """
    conditioned: Tensor = denoiser(x, level, cond)
    if guidance is None:
        return conditioned
    if cond is None or not denoiser.conditions:
        raise InputError("guidance", expected="a network with conditions to guide by", got="none")
    without: Tensor = denoiser(x, level, placed(denoiser.null_conditions(len(x)), x))
    return without + guidance * (conditioned - without)
