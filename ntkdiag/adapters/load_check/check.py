"""Which reading of a network fits: the one that is stated, a neighbour, or none.

A reading is a way of calling the network and a meaning of its output. All are evaluated on the same few samples and noise.
A neighbour is named only where it fits and its error is clearly smaller than that of the stated reading: by a sixth at
least, and by the lower limit of an interval over samples that allows for the number of readings. Forwards are what this
costs: all meanings share those of one call, and another call than the stated one sees all samples only if it is no worse on
the first few.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ntkdiag.adapters.load_check import neighbours
from ntkdiag.adapters.load_check.draws import CheckDraws
from ntkdiag.adapters.load_check.errors import Errors, log_ratio
from ntkdiag.adapters.load_check.outputs import (
    errors_of,
    is_same,
    outputs_of,
    predictions_of,
    stated_outputs,
    times_and_scales,
)
from ntkdiag.adapters.reading import Calling, Reading
from ntkdiag.errors import InputError
from ntkdiag.modes import evaluating
from ntkdiag.process.target import coefficients
from ntkdiag.progress import Progress

# Probability that chance alone makes one of all readings look better.
_MISS = 1e-3
# Smallest ratio of errors that counts as clearly better (tuned here, as are the next three): a time of flow that is shifted
# by 3 makes 1.2 to 1.3, and no neighbour of a network that fits was better than it (analysis/foreign).
_CLEARLY = math.log(1.2)
# A reading fits if it explains this share of its target at one level, and its x0 is better than a multiple of x over all
# levels together, and nowhere worse by a factor of two.
_EXPLAINS, _OVERALL, _AT_ANY_LEVEL = 0.1, 1.0, 2.0
# Of how many samples one is among the first few, and the error there of a call that fits nothing (tuned here).
_FEW, _HOPELESS = 8, 1.5
# What a NaN or infinity counts as: further off than any network that fits.
_FAR = 1e3


@dataclass(frozen=True)
class LoadCheck:
    """What the load check found where it did not refuse.

    Attributes:
        stated: The reading that is stated, in words.
        fits: Whether it explains its target; False for an untrained network.
        error: Error of the x0 that follows from it over that of the best multiple of x, geometric mean over the levels.
        closest: The neighbour with the smallest error, and that error; where it is clear from a few samples, that of the
            stated reading times the ratio on those.
        samples, levels: How many samples, and at which log-SNR.

    Example:
        >>> found = denoiser.load_check(data)
        >>> found.fits, found.stated  # it is not trained
        (False, 'v at log-SNR')
    """

    stated: str
    fits: bool
    error: float
    closest: tuple[str, float]
    samples: int
    levels: tuple[float, ...]

    def __str__(self) -> str:
        name, error = self.closest
        if not self.fits:
            return (
                f"load check: untrained, or trained on other data: as {self.stated} it does no better than a multiple of x "
                f"(error {self.error:.3g}, {name} {error:.3g}), so there is nothing to check"
            )
        compared = f"error {self.error:.3g}, where a multiple of x has 1; next: {name}, {error:.3g}"
        return f"load check: {self.stated} fits ({compared})"


@dataclass(frozen=True)
class _Found:
    """A reading and its errors.

    Attributes:
        name: In words.
        errors: On all samples, or on the first few.
        beside: Errors of the stated reading on the same samples.
        whole: Whether these are all samples.
    """

    name: str
    errors: Errors
    beside: Errors
    whole: bool = True

    @property
    def ratio(self) -> float:
        """Its error over that of the stated reading."""
        return self.errors.overall / self.beside.overall

    @property
    def may_be_better(self) -> bool:
        """Whether more samples may show that it fits better than what is stated."""
        explains = float((1 - self.errors.direct.mean(1)).max()) > _EXPLAINS / 2
        return explains and self.ratio < 1 and self.errors.overall < _HOPELESS


def check_load(reading: Reading, draws: CheckDraws, progress: Progress | None = None) -> LoadCheck:
    """Compare the stated reading of a network with its neighbours.

    Args:
        reading: What is stated.
        draws: Samples and levels.
        progress: Called with ("load check", calls done, calls in total).

    Returns:
        What was found.

    Raises:
        InputError: a neighbour fits clearly better, which is named; or the forward fails.
    """
    with evaluating(reading.network) as like:
        search = _Search(reading, draws.to(like), progress or (lambda what, done, total: None))
        search.read(neighbours.callings(reading))
        chosen = search.better()
        if chosen is None and not search.fits:
            search.read(neighbours.other_paths(reading))
            chosen = search.better()
    if chosen is not None:
        raise _refusal(search.name, search.stated, chosen)
    if not search.finite:
        raise InputError(
            "network", expected=f"finite numbers as {search.name}", got="a NaN or infinity in its output"
        )
    closest = min(search.found, key=lambda one: one.ratio)
    return LoadCheck(
        search.name,
        search.fits,
        search.stated.overall,
        (closest.name, search.stated.overall * closest.ratio),
        len(draws.x0),
        tuple(draws.levels.tolist()),
    )


class _Search:
    """What has been found of a network so far.

    Args:
        reading: What is stated.
        draws: Samples and levels, where the network is.
        progress: See `check_load`.

    Attributes:
        name: What is stated, in words.
        stated: Its errors.
        finite: Whether all of its outputs are finite.
        found: Other readings.
    """

    def __init__(self, reading: Reading, draws: CheckDraws, progress: Progress) -> None:
        self._reading, self._draws, self._progress = reading, draws, progress
        self._few = draws.part(slice(max(2, len(draws.x0) // _FEW)))
        self.name = f"{reading.target} at {reading.call.time_name}"
        self.found: list[_Found] = []
        output, predicted = stated_outputs(reading, draws)
        self.finite = bool(predicted.isfinite().all())
        far = predicted if self.finite else torch.nan_to_num(predicted, nan=_FAR, posinf=_FAR, neginf=-_FAR)
        far = far if self.finite else far.clamp(-_FAR, _FAR)
        meaning = self._target
        self.stated = errors_of(far, meaning, draws, draws)
        self._beside_few = errors_of(far[:, : len(self._few.x0)], meaning, self._few, draws)
        self._seen = [times_and_scales(reading.call, draws.levels)]
        if output.isfinite().all():
            self.found += self._readings(reading.call.time_name, reading.call, output, draws)

    @property
    def fits(self) -> bool:
        """Whether what is stated explains its target."""
        return _fits(self.stated, max(1, len(self.found)))

    def better(self) -> _Found | None:
        """The neighbour with the smallest error, if it fits and is clearly better than what is stated."""
        for one in sorted((one for one in self.found if one.whole), key=lambda each: each.errors.overall):
            estimate, low = log_ratio(self.stated, one.errors, _MISS / len(self.found))
            if estimate < _CLEARLY:
                return None
            if low > 0 and _fits(one.errors, len(self.found)):
                return one
        return None

    def read(self, callings: Iterable[tuple[str, Calling]]) -> None:
        """Add every meaning of the output under other ways of calling."""
        listed = list(callings)
        for place, (name, call) in enumerate(listed):
            self._progress("load check", place, len(listed))
            told = times_and_scales(call, self._draws.levels)
            if not told[0].isfinite().all() or any(is_same(told, before) for before in self._seen):
                continue
            self._seen.append(told)
            few = outputs_of(self._reading, call, self._few)
            if few is None:
                continue
            readings = self._readings(name, call, few, self._few)
            if any(one.may_be_better for one in readings):
                rest = outputs_of(self._reading, call, self._draws.part(slice(len(self._few.x0), None)))
                if rest is None:
                    continue
                readings = self._readings(name, call, torch.cat([few, rest], 1), self._draws)
            self.found += readings
        self._progress("load check", len(listed), len(listed))

    @property
    def _target(self) -> tuple[Tensor, Tensor]:
        return coefficients(self._reading.target, self._reading.schedule, self._draws.levels)

    def _readings(self, name: str, call: Calling, output: Tensor, draws: CheckDraws) -> list[_Found]:
        """Every meaning of the outputs [B, n, *shape] of a call, but for what is stated."""
        whole = draws is self._draws
        beside = self.stated if whole else self._beside_few
        is_stated = call is self._reading.call
        own = _meaning(self._reading, self._draws.levels)
        found = []
        for meaning, pair in neighbours.outputs(self._reading, self._draws.levels):
            if not (is_stated and _same(pair, own)):
                each = errors_of(output, pair, draws, self._draws)
                found.append(_Found(f"{meaning} at {name}", each, beside, whole))
        if call.convert is not None and not is_stated:
            restored = predictions_of(self._reading, replace(call, sign=1.0), output, draws)
            each = errors_of(restored, self._target, draws, self._draws)
            found.append(_Found(f"{self._reading.target} at {name}", each, beside, whole))
        return found


def _meaning(reading: Reading, levels: Tensor) -> tuple[Tensor, Tensor]:
    """Coefficients of what the output itself is stated to be, with its sign."""
    target = reading.call.output_target or reading.target
    c_x, c_epsilon = coefficients(target, reading.schedule, levels)
    return reading.call.sign * c_x, reading.call.sign * c_epsilon


def _fits(found: Errors, readings: int) -> bool:
    within = found.overall <= _OVERALL and found.worst <= _AT_ANY_LEVEL
    return within and found.explained(_MISS / readings) >= _EXPLAINS


def _refusal(name: str, stated: Errors, chosen: _Found) -> InputError:
    return InputError(
        "network",
        expected=f"one that fits {name}, as is stated (error {stated.overall:.3g}; a multiple of x has 1)",
        got=f"one that looks like {chosen.name} (error {chosen.errors.overall:.3g})",
        fix="State that, or check the data's scale. Without data, or with --no-load-check, a network is taken unchecked.",
    )


def _same(one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> bool:
    return all(torch.allclose(a.double(), b.double()) for a, b in zip(one, other, strict=True))
