"""Seconds of a core that each process takes for a kernel: what was timed here on a few samples, times what is counted."""

from __future__ import annotations

from dataclasses import dataclass

from ntkdiag.kernel.work.contraction import seconds_of
from ntkdiag.kernel.work.counts import Kernel, Sweeps, part_of, work_of
from ntkdiag.kernel.work.layers import Shape
from ntkdiag.kernel.work.speed import Speed


@dataclass(frozen=True)
class Timed:
    """What each of the processes does for a kernel, in units that a rate makes seconds of.

    Attributes:
        passes: Seconds of forwards and backwards, the rehearsal, the check and of forming or sketching gradients, as timed.
        products: Seconds of products between samples, as timed.
        received: Bytes from other processes.
        meetings: How often all wait for each other.
        calls: Kernels.
    """

    passes: float = 0.0
    products: float = 0.0
    received: float = 0.0
    meetings: float = 0.0
    calls: float = 0.0

    def __add__(self, other: Timed) -> Timed:
        return Timed(**{name: value + getattr(other, name) for name, value in vars(self).items()})

    def times(self, count: int) -> Timed:
        """So many of them."""
        return Timed(**{name: value * count for name, value in vars(self).items()})


@dataclass(frozen=True)
class Rates:
    """Seconds of a core for each unit of `Timed`; fitted by `analysis/processes`, whose README says how well."""

    passes: float
    products: float
    received: float
    meetings: float
    calls: float

    def seconds(self, timed: Timed) -> float:
        """What a process takes."""
        rates: tuple[float, ...] = tuple(vars(self).values())
        units: tuple[float, ...] = tuple(vars(timed).values())
        return sum(rate * unit for rate, unit in zip(rates, units, strict=True))


# Fitted by `python -m analysis.processes.run` (its rates.json) on processor seconds.
RATES = Rates(passes=1.12, products=1.00, received=3.0e-9, meetings=3.8e-4, calls=7.3e-3)


def timed(shape: Shape, speed: Speed, kernel: Kernel) -> Timed:
    """What each process does for one kernel.

    Args:
        shape, speed: Of the network, the latter for a kernel like this one.
        kernel: What is asked for.
    """
    sweeps, work, probes = Sweeps.of(shape, kernel), work_of(shape, kernel), kernel.probes
    together = sweeps.together(kernel)
    forward = sweeps.count * speed.sweep + sweeps.passed * speed.forward_sample
    backward = sweeps.count * speed.backward + sweeps.passed * speed.backward_sample
    passes = sweeps.forwards * forward + probes * backward
    products = sum(
        seconds_of(layer, part_of(layer, together, kernel.processes, kernel.sketched), kernel, together)
        for layer in shape.layers
    )
    return Timed(
        passes=passes + kernel.checked * speed.check + kernel.rehearsed * speed.rehearsal,
        products=probes * (1 if kernel.sketched else sweeps.count) * products,
        received=work.received,
        meetings=work.meetings,
        calls=1.0,
    )
