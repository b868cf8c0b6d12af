"""The linear model of a network, f(θ) + J u, beside the network at θ + u, on samples at every noise level.

Both are computed in float64: at a thousandth of a step the difference between them is below the rounding of float32.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ntkdiag.conditions import repeated
from ntkdiag.denoiser import Denoiser
from ntkdiag.kernel.operator.linearization import Linearization
from ntkdiag.kernel.parameters import select_parameters
from ntkdiag.modes import evaluating
from ntkdiag.process.buckets import Buckets
from ntkdiag.process.paired_draws import PairedDraws
from ntkdiag.train.network_state import copied


class LinearModel:
    """f and J at the current weights.

    Args:
        denoiser: Left as it is.
        draws: N samples, the same in every bucket.
        buckets: B noise levels, their centres.

    Attributes:
        outputs: f(θ), [B, N, D].
        wanted: Targets y, [B, N, D].
        dtype: Of all numbers here: float64, or that of the network where it does not run in float64.
    """

    def __init__(self, denoiser: Denoiser, draws: PairedDraws, buckets: Buckets) -> None:
        self._shape = (len(buckets), len(draws), -1)
        self._chunk = len(draws)
        try:
            self._bind(copied(denoiser).double(), draws, buckets)
        except RuntimeError:  # a cast to float32 inside the network, or a device without float64
            self._bind(copied(denoiser), draws, buckets)

    def _bind(self, denoiser: Denoiser, draws: PairedDraws, buckets: Buckets) -> None:
        place = next(p for p in denoiser.parameters() if p.requires_grad)
        count = len(buckets)
        x0, noise = (
            part.to(place).repeat(count, *(1,) * (part.ndim - 1)) for part in (draws.x0, draws.epsilon)
        )
        level = torch.tensor(buckets.centers, dtype=torch.float64).to(place).repeat_interleave(len(draws))
        cond = repeated(denoiser.conditions_from(draws.cond), count)
        x, wanted = denoiser.training_pair(x0, noise, level)
        self._inputs = denoiser.inputs(x, level, cond or None)
        self._parameters = select_parameters(denoiser)
        self._moved = copied(denoiser)
        self.dtype = place.dtype
        self.wanted = wanted.reshape(self._shape)
        self.outputs = self.network({name: torch.zeros_like(p) for name, p in self._parameters.items()})
        self._linear = Linearization(denoiser, self._parameters, self._inputs, self._chunk)
        self._linear.forget()

    @property
    def names(self) -> list[str]:
        """The trained parameters, in order."""
        return list(self._parameters)

    @property
    def method(self) -> str:
        """How J u is computed."""
        return self._linear.method

    def push(self, moved: dict[str, Tensor]) -> Tensor:
        """J u for u by parameter name, [B, N, D]."""
        tangent = tuple(moved[name].to(p) for name, p in self._parameters.items())
        return self._linear.push(tangent).reshape(self._shape)

    def network(self, moved: dict[str, Tensor], scale: float = 1.0) -> Tensor:
        """f(θ + scale · u), [B, N, D]."""
        own = dict(self._moved.named_parameters())
        with torch.no_grad():
            for name, p in self._parameters.items():
                own[name].copy_(p + scale * moved[name].to(p))
        with evaluating(self._moved):
            parts = [
                self._moved(*inputs)
                for inputs in zip(*(tensor.split(self._chunk) for tensor in self._inputs), strict=True)
            ]
        return torch.cat(parts).reshape(self._shape)

    def losses(self, outputs: Tensor) -> Tensor:
        """Mean squared error of outputs, [B, N, D] → [B]."""
        return (outputs - self.wanted).square().mean((1, 2))
