"""How the noise levels of a batch are drawn: at random, stratified, or in proportion to weights, with the correction.

A level is drawn as a quantile u of the training density, which is uniform in u. Importance sampling draws u from a density
q(u) that is constant on each of many cells; the loss of a sample counts 1/q(u) times, so that the objective stays the same.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ntkdiag.errors import MeasurementError
from ntkdiag.process.schedules.base import Schedule
from ntkdiag.process.schedules.discrete import TableSchedule
from ntkdiag.weights import WeightTable
from ntkdiag.weights.source import WeightSource

SAMPLING = ("density", "table")

# Cells of equal probability under the training density.
_CELLS = 1024
# A cell is drawn at least this many times its share, so that none is left out and no loss counts 1000 times. Tuned here.
_LEAST = 1e-3


class NoiseLevels:
    """Draws the noise levels of a batch.

    Args:
        schedule: Its density is that of training.
        stratified: Divide the quantiles into as many parts as there are samples, and draw one level from each.
        weights: Draw in proportion to these weights times the density; None for the density alone.

    Example:
        >>> erd = nd.weights.rule("erd", "v", nd.schedules.cosine())
        >>> levels = NoiseLevels(nd.schedules.cosine(), stratified=True, weights=erd)
        >>> level, ratio = levels.draw(1000, torch.Generator().manual_seed(0))
        >>> torch.allclose(erd(level) * ratio, torch.ones(1000).double(), atol=0.02)  # the weight is in the draws instead
        True
    """

    def __init__(
        self, schedule: Schedule, stratified: bool = False, weights: WeightSource | WeightTable | None = None
    ) -> None:
        self.schedule = schedule
        self.stratified = stratified
        self.weights = weights
        # A table never changes; other weights may, in every step.
        self._shares: Tensor | None = None

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor | None]:
        """Draw levels.

        Args:
            count: Number of levels, N.
            generator: Random generator; the results are on its device.

        Returns:
            Log-SNR [N], float64, and the density of training over that drawn from, [N] with mean 1 over draws, float64; None
            where it is 1.

        Raises:
            MeasurementError: weights that are not finite.
        """
        if self.weights is None and not self.stratified:
            return self.schedule.sample(count, generator), None
        device = generator.device
        uniform = torch.rand(count, generator=generator, device=device, dtype=torch.float64)
        if self.stratified:
            uniform = (torch.arange(count, device=device) + uniform) / count
        ratio = None
        if self.weights is not None:
            uniform, ratio = _by_share(uniform, self._shares_on(device))
        return self._levels_at(uniform), ratio

    def _levels_at(self, share: Tensor) -> Tensor:
        """The level below which a share of training lies; of a discrete schedule, one of its steps."""
        if isinstance(self.schedule, TableSchedule):
            steps = torch.tensor(sorted(self.schedule.levels), dtype=torch.float64, device=share.device)
            return steps[(share * len(steps)).long().clamp(max=len(steps) - 1)]
        # torch.rand includes 0, which an unbounded schedule would map to −inf.
        return self.schedule.quantile(share.clamp(min=2.0**-54))

    @torch.no_grad()
    def _shares_on(self, device: torch.device) -> Tensor:
        """Probability of each cell, [cells]."""
        if self._shares is not None and isinstance(self.weights, WeightTable):
            return self._shares
        middle = (torch.arange(_CELLS, device=device, dtype=torch.float64) + 0.5) / _CELLS
        weight = self.weights(self._levels_at(middle)).double()  # type: ignore[misc]
        mean = weight.mean()
        if not torch.isfinite(mean):
            raise MeasurementError(
                "sampling='table': expected finite loss weights; got some that are not. Clip the weights, or draw levels by "
                "the training density."
            )
        weight = torch.where(mean > 0, weight.clamp(min=_LEAST * mean), 1.0)
        self._shares = weight / weight.sum()
        return self._shares


def _by_share(uniform: Tensor, shares: Tensor) -> tuple[Tensor, Tensor]:
    """Quantiles of the cells' distribution in place of uniform ones, and 1/q there."""
    above = shares.cumsum(0)
    above = above / above[-1]
    cell = torch.searchsorted(above, uniform, right=True).clamp(max=len(shares) - 1)
    width = shares[cell]
    within = ((uniform - (above[cell] - width)) / width).clamp(0, 1)
    return (cell + within) / len(shares), 1 / (len(shares) * width)
