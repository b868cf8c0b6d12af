"""The fit of a candidate to measured weights: the parameters under which it comes closest, up to a constant factor.

Distances are absolute differences of ln w, so that a curve that agrees over half of its length is recognised there.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import optimize
from torch import Tensor

from ntkdiag.errors import InputError
from ntkdiag.process.schedules.base import Schedule
from ntkdiag.weights.audit.batch_checks import Curve
from ntkdiag.weights.audit.candidates import Candidate, Values
from ntkdiag.weights.audit.known_mistakes import TERMINAL
from ntkdiag.weights.audit.parameter_ranges import COARSE, coarse_values, search_range

# Largest relative difference of weights that counts as equal: SNR computed from float32 ᾱ is off by 6e-4
# at the cleanest step of the usual betas.
TOLERANCE = 1e-3

# An exponent below this is a constant weight by another name.
_LEAST_EXPONENT = 0.05

# How far a bend is moved, in log-SNR, and by what share an exponent is changed, to see whether the curve shows them.
_MOVE = 1.0
_SHARE = 0.5

# Mean |ln ratio| of the best coarse value above which a fine search over one parameter cannot end in equality.
_HOPELESS = 0.5


@dataclass(frozen=True)
class Fit:
    """A candidate with the parameters that fit best.

    Attributes:
        candidate: What was fitted.
        values: Its parameters.
        factor: weights / candidate, the median over noise levels.
        log_snr: Where they were compared [n].
        log_ratio: ln of weights over factor · candidate [n]; ±inf or NaN where the weights are not positive.
        chosen: Names of the parameters that were fitted to the curve, and are not the defaults.
        unseen: Names of the numbers that the curve does not show: another value gives the same weights.
    """

    candidate: Candidate
    values: Values
    factor: float
    log_snr: Tensor
    log_ratio: Tensor
    chosen: frozenset[str]
    unseen: frozenset[str]

    @property
    def rule(self) -> str:
        """Name of the formula."""
        return self.candidate.rule.name

    @property
    def name(self) -> str:
        """Rule, parameters and target, such as "min_snr(gamma=5) on v"."""
        listed = ", ".join(
            f"{name}={value if isinstance(value, str) else f'{value:.4g}'}"
            for name, value in self.values.items()
            if name != TERMINAL
        )
        return f"{self.candidate.rule.name}({listed}) on {self.candidate.target}".replace("()", "")

    @property
    def error(self) -> float:
        """Largest |ln ratio|; infinite where a weight is zero, negative or not finite."""
        return self.log_ratio.abs().nan_to_num(math.inf).max().item()

    @property
    def distance(self) -> float:
        """Mean |ln ratio| over the levels whose weight is positive and finite."""
        sound = self.log_ratio[torch.isfinite(self.log_ratio)]
        return sound.abs().mean().item() if len(sound) else math.inf

    @property
    def equal(self) -> bool:
        """Whether all weights agree to `TOLERANCE`, with enough levels for the number of parameters, all of them seen.

        A parameter that the curve does not show is no evidence of a mistake, nor may one be chosen to fit.
        """
        free = len(self.candidate.rule.parameters) + self.candidate.distortion.fitted
        needed = self.unseen if self.candidate.mistakes else self.unseen & self.chosen
        return len(self.log_ratio) >= 5 + 2 * free and self.error <= TOLERANCE and not needed

    @property
    def complexity(self) -> int:
        """How much must be supposed: mistakes, and parameters chosen to fit.

        The parameter of a formula that was published by mistake is free, since the mistake is known with any.
        """
        return len(self.candidate.mistakes) + (0 if self.candidate.published else len(self.chosen))

    @property
    def rank(self) -> tuple[int, int]:
        """Its place among candidates that fit equally well, the simplest first."""
        return self.complexity, len(self.candidate.rule.parameters)


def fit(
    candidate: Candidate, curve: Curve, schedule: Schedule | None, fixed: Values | None = None
) -> Fit | None:
    """The parameters under which a candidate comes closest.

    Args:
        candidate: A formula.
        curve: The weights.
        schedule: The process, for formulas that need one.
        fixed: Parameters that are given; the others are searched.

    Returns:
        None where the candidate has no finite value at these levels.
    """
    search = _Search(candidate, curve, schedule)
    given = dict(fixed or {})
    grids = {
        name: [given[name]] if name in given else coarse_values(name, candidate, curve.log_snr)
        for name in search.names
    }
    starts: list[Values] = [
        dict(zip(grids, values, strict=True)) for values in itertools.product(*grids.values())
    ]
    if search.power is not None:
        starts = [{**start, **search.exponent(start), **given} for start in starts]
    # Rounded, so that of two conventions which agree the first is taken.
    scored = [(round(search.distance(start), 9), index) for index, start in enumerate(starts)]
    best, index = min(scored, default=(math.inf, 0))
    if not math.isfinite(best):
        return None
    free = [name for name, grid in grids.items() if len(grid) > 1 and isinstance(grid[0], float)]
    values = starts[index]
    # The coarse values of two parameters lie too far apart to judge by.
    several = len([name for name in free if name != TERMINAL]) > 1
    if free and best > 0 and (several or best < _HOPELESS):
        values = search.refine(values, free, given)
    return search.settle(search.rounded(values, given), given)


class _Search:
    """Distances of one candidate from one curve, for any parameters."""

    def __init__(self, candidate: Candidate, curve: Curve, schedule: Schedule | None) -> None:
        self.candidate, self.schedule = candidate, schedule
        positive = torch.isfinite(curve.weight) & (curve.weight > 0)
        self.log_snr = curve.log_snr
        self.log_weight = torch.where(positive, curve.weight, math.nan).log()
        self.log_weight[curve.weight == 0] = -math.inf
        self.positive = positive.nonzero().flatten()
        # ln w is a straight line in an exponent, whose best value needs no search.
        parameters = candidate.rule.parameters
        self.power = next((name for name, parameter in parameters.items() if parameter.exponent), None)
        self.names = [name for name in parameters if name != self.power]
        if candidate.distortion.fitted:
            self.names.append(TERMINAL)

    def log_ratio(self, values: Values) -> Tensor | None:
        """ln of weights over candidate, median 0 over positive weights; None where the candidate is not finite."""
        try:
            read = self.candidate.log_weight(self.log_snr, self.schedule, values)
        except InputError:  # a convention that this target does not have
            return None
        if not len(self.positive) or not torch.isfinite(read).all():
            return None
        return self.log_weight - read

    def distance(self, values: Values) -> float:
        """Mean |ln ratio|, infinite where there is none."""
        if self.power is not None and self.power not in values:
            return math.inf
        ratio = self.log_ratio(values)
        if ratio is None:
            return math.inf
        sound = ratio[self.positive]
        return (sound - sound.median()).abs().mean().item()

    def exponent(self, values: Values) -> Values:
        """The parameter in which ln w is a straight line, by least squares; nothing for rules without one."""
        if self.power is None:
            return {}
        start, end = (self.log_ratio({**values, self.power: value}) for value in (0.0, 1.0))
        if start is None or end is None:
            return {}
        level = start[self.positive] - start[self.positive].mean()
        slope = (start - end)[self.positive]
        slope = slope - slope.mean()
        square = (slope @ slope).item()
        return {self.power: max((level @ slope).item() / square if square > 0 else 0.0, _LEAST_EXPONENT)}

    def refine(self, values: Values, free: list[str], given: Values) -> Values:
        """Search around the best coarse values, over the log-SNR of the bends."""
        ranges = [search_range(name, self.candidate, self.log_snr) for name in free]

        def at(point: Iterable[float]) -> Values:
            moved = {name: one.value(u) for name, one, u in zip(free, ranges, point, strict=True)}
            settled = {**values, **moved}
            return {**settled, **self.exponent(settled), **given}

        def objective(point: Any) -> float:
            return self.distance(at(np.atleast_1d(point).tolist()))

        start = [one.position(float(values[name])) for name, one in zip(free, ranges, strict=True)]
        if len(free) == 1:
            low, high = ranges[0].low, ranges[0].high
            width = 2 * (high - low) / COARSE
            scalar = optimize.minimize_scalar(
                objective,
                bounds=(max(low, start[0] - width), min(high, start[0] + width)),
                method="bounded",
                options={"xatol": 1e-9},
            )
            best = at([float(scalar.x)])
        else:
            found = optimize.fmin(objective, np.asarray(start), xtol=1e-8, ftol=1e-10, maxfun=400, disp=False)
            best = at(found.tolist())
        return best if self.distance(best) < self.distance(values) else values

    def rounded(self, values: Values, given: Values) -> Values:
        """The same values with as few digits as the fit allows: 5 for 4.99998."""
        plain = dict(values)
        for name, value in values.items():
            if name in given or not isinstance(value, float):
                continue
            allowed = 2 * self._worst(plain) + 1e-6
            for digits in range(1, 5):
                shorter = {**plain, name: float(f"{value:.{digits}g}")}
                if self._worst(shorter) <= allowed:
                    plain = shorter
                    break
        return plain

    def settle(self, values: Values, given: Values) -> Fit | None:
        """The fit with these values, its factor included."""
        ratio = self.log_ratio(values)
        if ratio is None:
            return None
        middle = ratio[self.positive].median()
        parameters = self.candidate.rule.parameters
        chosen = {
            name
            for name, value in values.items()
            if name not in given and (name == TERMINAL or value != parameters[name].default)
        }
        unseen = {name for name in parameters if not self._shows(name, values)}
        return Fit(
            self.candidate,
            dict(values),
            middle.exp().item(),
            self.log_snr,
            ratio - middle,
            frozenset(chosen),
            frozenset(unseen),
        )

    def _shows(self, name: str, values: Values) -> bool:
        """Whether the candidate's curve changes when a number is changed, up or down; true of a choice of names."""
        parameter, value = self.candidate.rule.parameters[name], values[name]
        if isinstance(value, str):
            return True
        if parameter.exponent:
            moved = [value * (1 - _SHARE), value * (1 + _SHARE)]
        else:
            bend = parameter.bend_of(value)
            moved = (
                [parameter.at_bend(bend + step) for step in (-_MOVE, _MOVE)]
                if math.isfinite(bend)
                else [value]
            )
        return all(self._change(values, {**values, name: other}) > TOLERANCE for other in moved)

    def _change(self, values: Values, others: Values) -> float:
        """Largest |ln ratio| between the candidate's own curves, up to a factor."""
        before, after = (self.candidate.log_weight(self.log_snr, self.schedule, v) for v in (values, others))
        change = after - before
        return (change - change.median()).abs().max().item()

    def _worst(self, values: Values) -> float:
        ratio = self.log_ratio(values)
        if ratio is None:
            return math.inf
        sound = ratio[self.positive]
        return (sound - sound.median()).abs().max().item()
