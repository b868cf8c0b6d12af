"""How much a verification measures: samples, probes, fresh networks and noise levels, and what that costs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from ntkdiag.errors import require_one_of
from ntkdiag.process.buckets import DEFAULT_COUNT


@dataclass(frozen=True)
class Level:
    """Sizes of a measurement.

    Attributes:
        samples, probes: N and R of every bucket.
        controls: Number of fresh networks.
        buckets: Number of noise levels.
    """

    samples: int
    probes: int
    controls: int
    buckets: int = DEFAULT_COUNT

    @property
    def passes(self) -> float:
        """Forward and backward passes of a sample in training that cost as much."""
        return _passes(1 + self.controls, self.buckets, self.samples, self.probes)


# How often a factor of 1.5 is found at the sizes of "quick" and "standard", and how often a word is wrong at the margin:
# analysis/calibration.
LEVELS = {"quick": Level(64, 8, 3), "standard": Level(128, 16, 5), "thorough": Level(256, 24, 8)}
QUICK, STANDARD = "quick", "standard"
# What "quick" measures of networks for which its sizes are too much work: the first that is not, or else the last.
SMALLER = (Level(48, 6, 3, 6), Level(32, 4, 3, 6), Level(32, 4, 3, 3), Level(16, 3, 3, 3))
# Floating point operations of "quick": some minutes on two cores (tuned here: about 50 billion a second on each).
QUICK_WORK = 15e12
# Of a measurement that was asked for without a level.
DEFAULT_SIZES = Level(64, 8, 5)
# In forward and backward passes of training for each sample: the residual kernel and the first probe, and each further probe
# (measured in analysis/speed).
_FIRST, _FURTHER = 2.6, 0.85
# Forwards that cost as much as a forward and backward pass of training.
_PASS = 3


def level_named(name: str) -> Level:
    """The sizes of quick, standard or thorough.

    Raises:
        InputError: another name.
    """
    return LEVELS[require_one_of("level", name, LEVELS)]


def fitting(name: str, operations: int, **given: int | None) -> Level:
    """The sizes of a level for one network.

    "quick" is smaller for a network of many operations. They are counted, not timed, so that a command measures the same on
    every machine, and goes on after an interruption.

    Args:
        name: quick, standard or thorough.
        operations: Floating point operations of the forward of one sample; 0 if they are not known.
        given: Sizes that stay as they are, by name; None for those that the level says.

    Raises:
        InputError: another name.

    Example:
        >>> fitting("quick", 10_000_000)
        Level(samples=64, probes=8, controls=3, buckets=10)
        >>> fitting("quick", 6_000_000_000)
        Level(samples=16, probes=3, controls=3, buckets=3)
        >>> fitting("quick", 6_000_000_000, samples=32, buckets=None).samples
        32
    """
    wanted: dict[str, Any] = {size: value for size, value in given.items() if value is not None}
    choice = [level_named(name), *(SMALLER if name == QUICK else ())]
    sizes: list[Level] = [replace(one, **wanted) for one in choice]
    fast = (one for one in sizes if one.passes * _PASS * operations <= QUICK_WORK)
    return next(fast, sizes[-1])


def training_steps(networks: int, buckets: int, samples: int, probes: int, batch: int = 128) -> int:
    """About how many training steps of a batch a measurement costs.

    Args:
        networks: The network and its controls.
        buckets, samples, probes: Of each of them.
        batch: Samples in a training step.
    """
    return max(1, round(_passes(networks, buckets, samples, probes) / batch))


def _passes(networks: int, buckets: int, samples: int, probes: int) -> float:
    return networks * buckets * samples * (_FIRST + _FURTHER * (probes - 1))
