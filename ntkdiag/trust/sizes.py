"""How much a comparison of a kernel with real steps measures, and what that costs in training steps."""

from __future__ import annotations

from dataclasses import dataclass

from ntkdiag.claims.levels import training_steps as kernel_steps
from ntkdiag.errors import require_one_of

# Factors of the real step at which the linear model is compared with the network.
FRACTIONS = (1e-3, 1e-2, 1e-1, 1.0)
# In forward and backward passes of training: J u and a forward (`Linearization`: three to four forwards), and a forward.
_PUSH_AND_FORWARD, _FORWARD = 1.5, 1 / 3
# The comparison runs in float64, which takes about twice the time of float32 on a CPU.
_WIDE = 2.0


@dataclass(frozen=True)
class Sizes:
    """Sizes of a comparison.

    Attributes:
        samples: N of every bucket.
        repeats: Continuations of training from the same state, with batches of their own.
        steps: Real steps of each.
        gradients: Batches of the mean gradient by which the plain and the preconditioned kernel are compared. With one
            repeat each is compared with the loss changes alone: a single continuation has no spread, so that which is better
            at a noise level cannot be said.
    """

    samples: int
    repeats: int
    steps: int
    gradients: int

    @property
    def grid(self) -> tuple[int, ...]:
        """Numbers of steps at which the network is compared: powers of two, and the last step."""
        powers = (2**k for k in range(self.steps.bit_length()))
        return tuple(sorted({*powers, self.steps}))

    def training_steps(self, buckets: int, batch: int = 128) -> int:
        """About how many training steps of a batch the comparison costs."""
        points = self.repeats * (len(self.grid) * _PUSH_AND_FORWARD + (len(FRACTIONS) - 1) * _FORWARD)
        kernels = 2 * _PUSH_AND_FORWARD
        real = self.repeats * self.steps + self.gradients
        return max(1, round(real + _WIDE * (points + kernels) * buckets * self.samples / batch))


LEVELS = {"quick": Sizes(8, 1, 8, 4), "standard": Sizes(16, 4, 32, 8), "thorough": Sizes(32, 8, 128, 16)}


def sizes_named(name: str) -> Sizes:
    """The sizes of quick, standard or thorough.

    Raises:
        InputError: another name.

    Example:
        >>> sizes_named("quick").grid, sizes_named("quick").training_steps(10)
        ((1, 2, 4, 8), 24)
    """
    return LEVELS[require_one_of("level", name, LEVELS)]


@dataclass(frozen=True)
class RunSizes:
    """Sizes of everything that is measured of a run beside real steps.

    Attributes:
        samples, probes: N and R of the kernel of every kept step and bucket.
        most: Kept steps that are measured, at most: the first, the last, and some between.
        forwards: Samples of every bucket whose activations and outputs are read.
    """

    samples: int
    probes: int
    most: int
    forwards: int

    def training_steps(self, kept: int, buckets: int, batch: int = 128) -> int:
        """About how many training steps of a batch they cost, for a run that kept some steps."""
        kernels = kernel_steps(min(kept, self.most), buckets, self.samples, self.probes, batch)
        return kernels + round(3 * _FORWARD * buckets * self.forwards / batch)


RUN_LEVELS = {
    "quick": RunSizes(8, 3, 3, 16),
    "standard": RunSizes(64, 8, 8, 128),
    "thorough": RunSizes(128, 16, 32, 256),
}


def run_sizes_named(name: str) -> RunSizes:
    """The sizes of quick, standard or thorough.

    Raises:
        InputError: another name.
    """
    return RUN_LEVELS[require_one_of("level", name, RUN_LEVELS)]
