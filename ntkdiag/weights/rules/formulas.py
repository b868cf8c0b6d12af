"""Published loss weights in closed form, each as ln w(λ) on one target: one decorated function is one rule.

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
from ntkdiag.recoverability import CONVENTIONS, log_amplitude
from ntkdiag.weights.rules.catalogue import Parameter, register_rule

_GAMMA = {"gamma": Parameter(5.0, above=0.0)}


@register_rule("constant_v", "v", text="1 on v", reference="Salimans & Ho 2022, arXiv 2202.00512")
@register_rule("constant_x0", "x0", text="1 on x0", reference="Ho et al. 2020, arXiv 2006.11239")
@register_rule("constant_epsilon", "epsilon", text="1 on ε", reference="Ho et al. 2020, arXiv 2006.11239")
def constant(log_snr: Tensor) -> Tensor:
    """ln 1: the plain squared error on the target a rule is named after.

    On ε it is the simple loss of Ho et al. 2020 (arXiv 2006.11239, eq. 14), on v the loss of
    Salimans & Ho 2022 (arXiv 2202.00512, "SNR+1" weighting of x0).
    """
    return torch.zeros_like(log_snr)


@register_rule(
    "min_snr",
    "x0",
    text="min(SNR, γ) on x0",
    reference="Hang et al. 2023, arXiv 2303.09556",
    parameters=_GAMMA,
)
def min_snr(log_snr: Tensor, *, gamma: float) -> Tensor:
    """ln min(SNR, γ) on x0: Hang et al. 2023, Min-SNR weighting (arXiv 2303.09556)."""
    return torch.clamp(log_snr, max=math.log(gamma))


@register_rule(
    "soft_min_snr",
    "x0",
    text="γ·SNR/(SNR + γ) on x0",
    reference="Crowson et al. 2024, arXiv 2401.11605",
    parameters=_GAMMA,
)
def soft_min_snr(log_snr: Tensor, *, gamma: float) -> Tensor:
    """ln γ·SNR/(SNR + γ) on x0: Crowson et al. 2024, hourglass diffusion transformer (arXiv 2401.11605)."""
    # −ln(1/SNR + 1/γ): one rounding, and exact where one of the two vanishes.
    return -_log_add(-log_snr, -math.log(gamma))


@register_rule(
    "p2",
    "epsilon",
    text="(k + SNR)^−γ on ε",
    reference="Choi et al. 2022, arXiv 2204.00227",
    parameters={
        "k": Parameter(1.0, at_least=0.0),
        "gamma": Parameter(1.0, at_least=0.0, exponent=True),
    },
)
def p2(log_snr: Tensor, *, k: float, gamma: float) -> Tensor:
    """ln (k + SNR)^−γ on ε: Choi et al. 2022, perception-prioritised training (arXiv 2204.00227)."""
    return -gamma * _log_add(log_snr, math.log(k) if k > 0 else -math.inf)


@register_rule("debias", "epsilon", text="1/√SNR on ε", reference="Yu et al. 2023, arXiv 2310.08442")
def debias(log_snr: Tensor) -> Tensor:
    """ln 1/√SNR on ε: Yu et al. 2023, "Debias the Training of Diffusion Models" (arXiv 2310.08442).

    It has no upper bound as SNR → 0: a schedule that ends in pure noise needs a clip on ε. On v it is
    √SNR/(1 + SNR), which vanishes at both ends.
    """
    return -log_snr / 2


@register_rule(
    "truncated_snr", "x0", text="max(SNR, 1) on x0", reference="Salimans & Ho 2022, arXiv 2202.00512"
)
def truncated_snr(log_snr: Tensor) -> Tensor:
    """ln max(SNR, 1) on x0: Salimans & Ho 2022, progressive distillation (arXiv 2202.00512, section 4)."""
    return torch.clamp(log_snr, min=0.0)


@register_rule(
    "edm",
    "x0",
    text="SNR + 1/σ_d² on x0 (1 on F)",
    reference="Karras et al. 2022, arXiv 2206.00364",
    parameters={"sigma_data": Parameter(0.5, above=0.0, bend="sigma")},
)
def edm(log_snr: Tensor, *, sigma_data: float) -> Tensor:
    """ln (s² + σ_d²)/(s σ_d)² = ln (SNR + 1/σ_d²) on x0: Karras et al. 2022 (arXiv 2206.00364, table 1)."""
    return _log_add(log_snr, -2 * math.log(sigma_data))


@register_rule(
    "sigmoid",
    "epsilon",
    text="sigmoid(b − λ)/p(λ) on ε",
    reference="Kingma & Gao 2023, arXiv 2303.00848",
    parameters={"bias": Parameter(2.0)},
)
def sigmoid(log_snr: Tensor, *, bias: float, schedule: Schedule) -> Tensor:
    """ln sigmoid(b − λ)/p(λ) on ε: Kingma & Gao 2023, VDM++ (arXiv 2303.00848).

    The paper fixes the *effective* weight sigmoid(b − λ), what a unit of log-SNR contributes to the
    ε objective whatever the sampling. Training draws λ from the density p(λ), so the weight on the
    loss of a draw is the effective weight divided by p.
    """
    return logsigmoid(bias - log_snr) - torch.log(schedule.density(log_snr))


@register_rule(
    "erd",
    None,
    text="ε: σ, x0: α, v: α σ, each its own objective",
    reference="Yao et al. 2026, arXiv 2605.10790",
    parameters={"convention": Parameter("vp", choices=CONVENTIONS)},
    # The published code sets the weight to one where there is no signal at all.
    at_zero_snr=lambda convention: 1.0 if convention == "official" else None,
)
def erd(log_snr: Tensor, *, target: str, convention: str, schedule: Schedule | None = None) -> Tensor:
    """ln of the ERD weight, the amplitude of `target` without the constant √2 of v and F: Yao et al. 2026.

    arXiv 2605.10790; the conventions are those of `ntkdiag.recoverability.amplitude`. Each target has an ERD weight of
    its own, so ε, x0 and v give three different objectives.
    """
    constant = math.sqrt(2) if convention != "official" and target in ("v", "F") else 1.0
    return log_amplitude(target, schedule, log_snr, convention) - math.log(constant)


@register_rule(
    "uniform", "x0", text="1 on the linear path's velocity", reference="Lipman et al. 2023, arXiv 2210.02747"
)
def uniform(log_snr: Tensor) -> Tensor:
    """ln 1/t² on x0, the plain squared error on the velocity ε − x0 of the linear path.

    Lipman et al. 2023 (arXiv 2210.02747), Liu et al. 2023 (arXiv 2209.03003); t is the linear path's
    noise share, sigmoid(−λ/2), also when the model is trained on another path.
    """
    return -2 * logsigmoid(-log_snr / 2)


@register_rule(
    "cosmap",
    "x0",
    text="2/(π(1 − 2t + 2t²)) on the linear path's velocity",
    reference="Esser et al. 2024, arXiv 2403.03206",
)
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
