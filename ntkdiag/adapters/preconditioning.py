"""EDM's preconditioning (Karras et al. 2022, table 1): D(x; σ) = c_skip x + c_out F(c_in x; c_noise).

x = x0 + σ ε, c_skip = σ_d²/(σ² + σ_d²), c_out = σ σ_d/√(σ² + σ_d²), c_in = 1/√(σ² + σ_d²), c_noise = ln(σ)/4.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ntkdiag.adapters.reading import sigma_of
from ntkdiag.process.log_snr import expand, widen


def input_factor(sigma_data: float) -> Callable[[Tensor], Tensor]:
    """c_in as a function of log-SNR."""

    def c_in(log_snr: Tensor) -> Tensor:
        return 1 / torch.hypot(sigma_of(log_snr), torch.full_like(log_snr, sigma_data))

    return c_in


def network_inside(sigma_data: float) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """From D to F = (D − c_skip x)/c_out.

    F depends on the parameters as D/c_out does, so its kernel is that of the network inside D.
    """

    def to_f(denoised: Tensor, x: Tensor, log_snr: Tensor) -> Tensor:
        sigma = sigma_of(widen(log_snr))
        total = torch.hypot(sigma, torch.full_like(sigma, sigma_data))
        c_skip = (sigma_data / total).square()
        c_out = sigma * sigma_data / total
        return (denoised - expand(c_skip, x) * x) / expand(c_out, x)

    return to_f


def c_noise(log_snr: Tensor) -> Tensor:
    """ln(σ)/4."""
    return -log_snr / 8
