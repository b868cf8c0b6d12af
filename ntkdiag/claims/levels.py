"""How much a verification measures: samples, probes and fresh networks, and what that costs in training steps."""

from __future__ import annotations

from dataclasses import dataclass

from ntkdiag.errors import require_one_of


@dataclass(frozen=True)
class Level:
    """Sizes of a measurement.

    Attributes:
        samples, probes: N and R of every bucket.
        controls: Number of fresh networks.
    """

    samples: int
    probes: int
    controls: int


# How often a factor of 1.5 is found at the sizes of "quick" and "standard", and how often a word is wrong at the margin:
# analysis/calibration.
LEVELS = {"quick": Level(64, 8, 3), "standard": Level(128, 16, 5), "thorough": Level(256, 24, 8)}
STANDARD = "standard"
# Of a measurement that was asked for without a level.
DEFAULT_SIZES = Level(64, 8, 5)
# In forward and backward passes of training for each sample: the residual kernel and the first probe, and each further probe
# (measured in analysis/speed).
_FIRST, _FURTHER = 2.6, 0.85


def level_named(name: str) -> Level:
    """The sizes of quick, standard or thorough.

    Raises:
        InputError: another name.
    """
    return LEVELS[require_one_of("level", name, LEVELS)]


def training_steps(networks: int, buckets: int, samples: int, probes: int, batch: int = 128) -> int:
    """About how many training steps of a batch a measurement costs.

    Args:
        networks: The network and its controls.
        buckets, samples, probes: Of each of them.
        batch: Samples in a training step.
    """
    each = _FIRST + _FURTHER * (probes - 1)
    return max(1, round(networks * buckets * samples * each / batch))
