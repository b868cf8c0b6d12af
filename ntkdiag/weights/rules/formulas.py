"""Published loss weights in closed form, each as ln w(λ) on one target: the rule's home.

Logarithms keep every rule stable from log-SNR −∞ to +∞: a product of weights is a sum here, and no SNR
is ever formed. `torch.logaddexp` and `logsigmoid` are used instead of `softplus`, which PyTorch cuts to
a straight line above 20 and which is therefore wrong in the ninth digit there.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from ntkdiag.process.schedules.base import Schedule
from ntkdiag.recoverability import log_amplitude


def constant(log_snr: Tensor) -> Tensor:
    """ln 1: the plain squared error on the target a rule is named after.

    On ε it is the simple loss of Ho et al. 2020 (arXiv 2006.11239, eq. 14), on v the loss of
    Salimans & Ho 2022 (arXiv 2202.00512, "SNR+1" weighting of x0).
    """
    return torch.zeros_like(log_snr)


def min_snr(log_snr: Tensor, *, gamma: float) -> Tensor:
    """ln min(SNR, γ) on x0: Hang et al. 2023, Min-SNR weighting (arXiv 2303.09556)."""
    return torch.clamp(log_snr, max=math.log(gamma))


def soft_min_snr(log_snr: Tensor, *, gamma: float) -> Tensor:
    """ln γ·SNR/(SNR + γ) on x0: Crowson et al. 2024, hourglass diffusion transformer (arXiv 2401.11605)."""
    # −ln(1/SNR + 1/γ): one rounding, and exact where one of the two vanishes.
    return -_log_add(-log_snr, -math.log(gamma))


def p2(log_snr: Tensor, *, k: float, gamma: float) -> Tensor:
    """ln (k + SNR)^−γ on ε: Choi et al. 2022, perception-prioritised training (arXiv 2204.00227)."""
    return -gamma * _log_add(log_snr, math.log(k) if k > 0 else -math.inf)


def debias(log_snr: Tensor) -> Tensor:
    """ln 1/√SNR on ε: Yu et al. 2023, "Debias the Training of Diffusion Models" (arXiv 2310.08442).

    It has no upper bound as SNR → 0: a schedule that ends in pure noise needs a clip on ε. On v it is
    √SNR/(1 + SNR), which vanishes at both ends.
    """
    return -log_snr / 2


def truncated_snr(log_snr: Tensor) -> Tensor:
    """ln max(SNR, 1) on x0: Salimans & Ho 2022, progressive distillation (arXiv 2202.00512, section 4)."""
    return torch.clamp(log_snr, min=0.0)


def edm(log_snr: Tensor, *, sigma_data: float) -> Tensor:
    """ln (s² + σ_d²)/(s σ_d)² = ln (SNR + 1/σ_d²) on x0: Karras et al. 2022 (arXiv 2206.00364, table 1)."""
    return _log_add(log_snr, -2 * math.log(sigma_data))


def sigmoid(log_snr: Tensor, *, bias: float, schedule: Schedule) -> Tensor:
    """ln sigmoid(b − λ)/p(λ) on ε: Kingma & Gao 2023, VDM++ (arXiv 2303.00848).

    The paper fixes the *effective* weight sigmoid(b − λ), what a unit of log-SNR contributes to the
    ε objective whatever the sampling. Training draws λ from the density p(λ), so the weight on the
    loss of a draw is the effective weight divided by p.
    """
    return logsigmoid(bias - log_snr) - torch.log(schedule.density(log_snr))


def erd(log_snr: Tensor, *, target: str, schedule: Schedule | None, convention: str) -> Tensor:
    """ln of the ERD weight, the amplitude of `target` without the constant √2 of v and F: Yao et al. 2026.

    arXiv 2605.10790; the conventions are those of `ntkdiag.recoverability.amplitude`. It is defined anew on
    every target, so ε, x0 and v give three different objectives. Under "official" the weight of 1 at SNR = 0
    is set by `ntkdiag.weights.evaluate`.
    """
    constant = math.sqrt(2) if convention != "official" and target in ("v", "F") else 1.0
    return log_amplitude(target, schedule, log_snr, convention) - math.log(constant)


def uniform(log_snr: Tensor) -> Tensor:
    """ln 1/t² on x0, the plain squared error on the velocity ε − x0 of the linear path.

    Lipman et al. 2023 (arXiv 2210.02747), Liu et al. 2023 (arXiv 2209.03003); t is the linear path's
    noise share, sigmoid(−λ/2), also when the model is trained on another path.
    """
    return -2 * logsigmoid(-log_snr / 2)


def cosmap(log_snr: Tensor) -> Tensor:
    """ln 2/(π(1 − 2t + 2t²)) on the linear path's velocity: Esser et al. 2024 (arXiv 2403.03206).

    The paper (section 3.1) writes it as a density of t, the one that samples log-SNR as the cosine path
    does; as a weight under uniform t it gives the same objective. t as in `uniform`.
    """
    log_share = torch.logaddexp(2 * logsigmoid(log_snr / 2), 2 * logsigmoid(-log_snr / 2))
    return math.log(2 / math.pi) - log_share + uniform(log_snr)


def _log_add(log_snr: Tensor, other: float) -> Tensor:
    """ln(e^log_snr + e^other)."""
    return torch.logaddexp(log_snr, log_snr.new_tensor(other))
