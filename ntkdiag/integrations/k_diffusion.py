"""Weights in k-diffusion, whose denoiser weighs the squared error of F by a function of sigma.

    model = K.config.make_denoiser_wrapper(config)(inner_model)
    attach(model, ntkdiag.WeightTable.load("weights.csv"))

The releases so far refuse a function as the `weighting=` of the constructor (it falls through to "Unknown
weighting type"), so it is set on the denoiser. With a `Refresher`, add `model.weighting.after_step(step)` after
the optimiser's step.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ntkdiag.errors import InputError
from ntkdiag.integrations.wrapped import Wrapped
from ntkdiag.process import schedules
from ntkdiag.process.target import convert_weight
from ntkdiag.weights import WeightSource

_TARGETS = ("F", "x0")


class SigmaWeighting(Wrapped):
    """A function sigma [N] → weights [N] for the squared error of F.

    Args:
        weights: Weights for F, or for x0, which are written on F with c_out²; or the path of a table.
        sigma_data: The denoiser's: F depends on it.

    Raises:
        InputError: weights for another target.
    """

    def __init__(self, weights: WeightSource | Path | str, sigma_data: float = 1.0) -> None:
        super().__init__(weights)
        if self.target not in _TARGETS:
            raise InputError(
                "weights",
                expected="weights for F or x0, which k-diffusion predicts",
                got=f"weights for {self.target}",
            )
        self._schedule = schedules.edm(sigma_data)

    def __call__(self, sigma: Tensor) -> Tensor:
        """Weights for noise levels of any shape, in their shape and dtype."""
        log_snr = -2 * sigma.to(torch.float64).log()
        return convert_weight(self.source(log_snr), log_snr, self._schedule, self.target, "F").to(sigma)


def attach(denoiser: Any, weights: WeightSource | Path | str) -> SigmaWeighting:
    """Give a k-diffusion denoiser weights.

    Args:
        denoiser: A `k_diffusion.layers.Denoiser`; its `weighting` is replaced, its `sigma_data` read.
        weights: See `SigmaWeighting`.

    Returns:
        What `denoiser.weighting` is now.

    Raises:
        InputError: not such a denoiser, or weights for another target.

    Example:
        >>> class Denoiser(torch.nn.Module):  # stands for k_diffusion.layers.Denoiser
        ...     sigma_data, weighting = 0.5, staticmethod(torch.ones_like)
        >>> denoiser = Denoiser()
        >>> weighting = attach(denoiser, nd.weights.rule("constant_epsilon", "F", nd.schedules.edm()))
        >>> denoiser.weighting is weighting, weighting(torch.tensor([0.5, 2.0])).shape
        (True, torch.Size([2]))
    """
    if not hasattr(denoiser, "weighting") or not hasattr(denoiser, "sigma_data"):
        raise InputError("denoiser", expected="a k_diffusion.layers.Denoiser", got=type(denoiser).__name__)
    denoiser.weighting = SigmaWeighting(weights, float(denoiser.sigma_data))
    weighting: SigmaWeighting = denoiser.weighting
    return weighting
