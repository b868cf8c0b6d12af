"""Which reading of a network fits: the one that is stated, a neighbour, or none.

A reading is a way of calling the network and a meaning of its output. All are evaluated on the same few samples and noise.
A neighbour is named only where it fits and its error is clearly smaller than that of the stated reading: by a fifth at
least, and by the lower limit of an interval over samples that allows for the number of readings.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from ntkdiag.adapters.load_check import neighbours
from ntkdiag.adapters.load_check.draws import CheckDraws
from ntkdiag.adapters.load_check.errors import Errors, errors, log_ratio
from ntkdiag.adapters.reading import Calling, Reading
from ntkdiag.errors import InputError, first_line
from ntkdiag.modes import evaluating
from ntkdiag.process.log_snr import level_like
from ntkdiag.process.target import coefficients

# Probability that chance alone makes one of all readings look better.
_MISS = 1e-3
# Smallest ratio of errors that counts as clearly better (tuned here, as are the next three).
_CLEARLY = math.log(1.25)
# A reading fits if it explains this share of its target at one level, and its x0 is better than a multiple of x over all
# levels together, and nowhere worse by a factor of two.
_EXPLAINS, _OVERALL, _AT_ANY_LEVEL = 0.1, 1.0, 2.0


# What a NaN or infinity counts as: further off than any network that fits.
_FAR = 1e3


@dataclass(frozen=True)
class LoadCheck:
    """What the load check found where it did not refuse.

    Attributes:
        stated: The reading that is stated, in words.
        fits: Whether it explains its target; False for an untrained network.
        error: Error of the x0 that follows from it over that of the best multiple of x, geometric mean over the levels.
        closest: The neighbour with the smallest error, and that error.
        samples, levels: How many samples, and at which log-SNR.
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
    name: str
    errors: Errors
    finite: bool = True


def check_load(reading: Reading, draws: CheckDraws) -> LoadCheck:
    """Compare the stated reading of a network with its neighbours.

    Args:
        reading: What is stated.
        draws: Samples and levels.

    Returns:
        What was found.

    Raises:
        InputError: a neighbour fits clearly better, which is named; or the forward fails.
    """
    with evaluating(reading.network) as like:
        placed = draws.to(like)
        stated = _stated(reading, placed)
        own = (reading.call.time_name, reading.call)
        found = _read(reading, placed, [own, *neighbours.callings(reading)])
        chosen = _better(stated, found)
        if chosen is None and not _fits(stated.errors, len(found)):
            more = _read(reading, placed, neighbours.other_paths(reading))
            found += more
            chosen = _better(stated, found)
    if chosen is None and not stated.finite:
        raise InputError(
            "network", expected=f"finite numbers as {stated.name}", got="a NaN or infinity in its output"
        )
    if chosen is not None:
        raise _refusal(stated, chosen)
    closest = min(found, key=lambda one: one.errors.overall)
    return LoadCheck(
        stated.name,
        _fits(stated.errors, len(found)),
        stated.errors.overall,
        (closest.name, closest.errors.overall),
        len(draws.x0),
        tuple(draws.levels.tolist()),
    )


def _stated(reading: Reading, draws: CheckDraws) -> _Found:
    """The errors of what the call predicts, in its own target."""
    name = f"{reading.target} at {reading.call.time_name}"
    rows = []
    try:
        for level in draws.levels.tolist():
            x, log_snr = _inputs(reading, draws, level)
            rows.append(reading.call(reading.network, x, log_snr, draws.cond))
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            "network",
            expected=f"one that takes samples of shape {list(draws.x0.shape[1:])} at {reading.call.time_name}",
            got=first_line(error),
        ) from error
    c_x, c_epsilon = coefficients(reading.target, reading.schedule, draws.levels)
    output = torch.stack(rows)
    if output.isfinite().all():
        return _Found(name, _errors(output, (c_x, c_epsilon), draws))
    far = torch.nan_to_num(output, nan=_FAR, posinf=_FAR, neginf=-_FAR).clamp(-_FAR, _FAR)
    return _Found(name, _errors(far, (c_x, c_epsilon), draws), finite=False)


def _read(reading: Reading, draws: CheckDraws, callings: Iterable[tuple[str, Calling]]) -> list[_Found]:
    """Errors of every meaning of the output under every way of calling, but for what is stated."""
    own = _meaning(reading, draws.levels)
    seen: list[tuple[Tensor, Tensor]] = []
    found = []
    for name, call in callings:
        output = _outputs(reading, call, draws, seen)
        if output is None:
            continue
        is_stated = call is reading.call
        for meaning, pair in neighbours.outputs(reading, draws.levels):
            if not (is_stated and _same(pair, own)):
                found.append(_Found(f"{meaning} at {name}", _errors(output, pair, draws)))
        if call.convert is not None and not is_stated:
            restored = torch.stack(
                [
                    _converted(reading, call, draws, level, row)
                    for level, row in zip(draws.levels.tolist(), output, strict=True)
                ]
            )
            pair = coefficients(reading.target, reading.schedule, draws.levels)
            found.append(_Found(f"{reading.target} at {name}", _errors(restored, pair, draws)))
    return found


def _outputs(
    reading: Reading, call: Calling, draws: CheckDraws, seen: list[tuple[Tensor, Tensor]]
) -> Tensor | None:
    """The network's outputs [B, N, *shape]; None where it fails, or where the call is one that was made before."""
    times = call.time(draws.levels).double()
    scales = torch.ones_like(times) if call.scale is None else call.scale(draws.levels).double()
    if any(_close(times, a) and _close(scales, b) for a, b in seen):
        return None
    if not bool(times.isfinite().all()):
        return None
    seen.append((times, scales))
    rows = []
    try:
        for level in draws.levels.tolist():
            x, log_snr = _inputs(reading, draws, level)
            rows.append(call.output(reading.network, x, log_snr, draws.cond))
    except Exception:  # a table of embeddings without such a row, for one
        return None
    output = torch.stack(rows)
    return output if output.shape[1:] == draws.x0.shape and bool(output.isfinite().all()) else None


def _close(one: Tensor, other: Tensor) -> bool:
    """Whether two times or scales are the same to any network: 999 t and 1000 t are."""
    return bool(((one - other).abs() <= 5e-3 * other.abs().max()).all())


def _inputs(reading: Reading, draws: CheckDraws, level: float) -> tuple[Tensor, Tensor]:
    log_snr = level_like(level, draws.x0).expand(len(draws.x0))
    return reading.schedule.diffuse(draws.x0, draws.epsilon, log_snr), log_snr


def _converted(reading: Reading, call: Calling, draws: CheckDraws, level: float, output: Tensor) -> Tensor:
    x, log_snr = _inputs(reading, draws, level)
    assert call.convert is not None
    return call.convert(output, x, log_snr)


def _meaning(reading: Reading, levels: Tensor) -> tuple[Tensor, Tensor]:
    """Coefficients of what the output itself is stated to be, with its sign."""
    target = reading.call.output_target or reading.target
    c_x, c_epsilon = coefficients(target, reading.schedule, levels)
    return reading.call.sign * c_x, reading.call.sign * c_epsilon


def _errors(output: Tensor, meaning: tuple[Tensor, Tensor], draws: CheckDraws) -> Errors:
    return errors(
        output.flatten(2).double().cpu(),
        (meaning[0].double(), meaning[1].double()),
        draws.levels.exp(),
        draws.x0.flatten(1).double().cpu(),
        draws.epsilon.flatten(1).double().cpu(),
    )


def _fits(found: Errors, readings: int) -> bool:
    within = found.overall <= _OVERALL and found.worst <= _AT_ANY_LEVEL
    return within and found.explained(_MISS / readings) >= _EXPLAINS


def _better(stated: _Found, found: list[_Found]) -> _Found | None:
    """The neighbour with the smallest error, if it fits and is clearly better than what is stated."""
    for one in sorted(found, key=lambda each: each.errors.overall):
        estimate, low = log_ratio(stated.errors, one.errors, _MISS / len(found))
        if estimate < _CLEARLY:
            return None
        if low > 0 and _fits(one.errors, len(found)):
            return one
    return None


def _refusal(stated: _Found, chosen: _Found) -> InputError:
    return InputError(
        "network",
        expected=f"one that fits {stated.name}, as is stated (error {stated.errors.overall:.3g}; a multiple of x has 1)",
        got=f"one that looks like {chosen.name} (error {chosen.errors.overall:.3g})",
        fix="State that, or check the data's scale. Without data, or with --no-load-check, a network is taken unchecked.",
    )


def _same(one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> bool:
    return all(torch.allclose(a.double(), b.double()) for a, b in zip(one, other, strict=True))
