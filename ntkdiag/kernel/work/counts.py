"""What each of several processes does for a kernel: operations, bytes exchanged and memory, counted from the layers."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, field

import torch

from ntkdiag.kernel.streaming.contraction.contract import sample_block, through_tokens_is_cheaper
from ntkdiag.kernel.streaming.memory import WORKING, memory_budget, samples_at_once, samples_that_fit
from ntkdiag.kernel.streaming.rules.convolution import WINDOW_BYTES
from ntkdiag.kernel.streaming.shared import EXCHANGED_BYTES
from ntkdiag.kernel.streaming.shared_parts import channels_are_less, factors_are_less
from ntkdiag.kernel.streaming.sketched_sweeps import ROWS_SHARE
from ntkdiag.kernel.work.layers import Layer, Shape

# Passes of one sample that the check and the rehearsal take.
CHECK, REHEARSAL = 6, 2
# Exchanges of a kernel beside those of gradients: what is given, memory, outputs, sums, verdicts.
_MEETINGS = 30


@dataclass(frozen=True)
class Kernel:
    """A kernel that is asked for.

    Attributes:
        samples, probes: N and R.
        processes: How many share the samples.
        sketched: Whether gradients are sketched.
        checked, rehearsed: Whether it is compared with plain autograd, and whether nothing is known of the forward yet; both
            are so in the first call of a kind.
        memory: Bytes that each process has to work in; None for a share of what is free, on a CPU divided by the processes.
        device: Where.
    """

    samples: int
    probes: int
    processes: int = 1
    sketched: bool = False
    checked: bool = True
    rehearsed: bool = True
    memory: int | None = None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def own(self) -> int:
        """Samples of the process that has most of them."""
        return -(-self.samples // self.processes)

    @property
    def budget(self) -> float:
        """Bytes that a process has."""
        shared = self.processes if self.memory is None and self.device.type == "cpu" else 1
        return memory_budget(self.memory, self.device) / shared


@dataclass(frozen=True)
class Sweeps:
    """How the samples pass through the network.

    Attributes:
        count: Sweeps.
        own: Samples of a process in the largest of them.
        passed: Samples of a process in all of them.
        forwards: How often each forward is made.
    """

    count: int
    own: int
    passed: int
    forwards: int = 1

    @classmethod
    def of(cls, shape: Shape, kernel: Kernel) -> Sweeps:
        """As the engine plans them."""
        own, budget = kernel.own, kernel.budget
        fit = min(own, samples_that_fit(shape.kept, int(budget), kernel.device))
        tile = own if fit >= own else max(1, fit // 2)
        if not kernel.sketched:
            tiles = -(-own // tile)
            if tiles == 1:
                return cls(1, own, own)
            return cls(tiles * (tiles - 1) // 2, min(own, 2 * tile), (tiles - 1) * own)
        count = -(-own // min(tile, samples_at_once(shape.kept, kernel.device)))
        rows = shape.width * own * sum(layer.length for layer in shape.layers)
        together = sys.maxsize if count == 1 else max(1, int(ROWS_SHARE * budget // max(1, rows)))
        return cls(count, -(-own // count), own, -(-kernel.probes // together))

    def together(self, kernel: Kernel) -> int:
        """Samples of all processes between which products are formed at a time, on average."""
        return (
            kernel.samples
            if kernel.sketched
            else min(kernel.samples, self.passed * kernel.processes // self.count)
        )


@dataclass(frozen=True)
class Work:
    """What each of the processes does for one kernel.

    Attributes:
        passes: Forwards of one sample, or backwards to activations, which cost about the same.
        contraction: Floating point operations of per-sample gradients and their products.
        sketching: The same of sketched gradients.
        received: Bytes from other processes.
        meetings: How often all wait for each other.
        memory: Bytes, at its peak.
    """

    passes: float = 0.0
    contraction: float = 0.0
    sketching: float = 0.0
    received: float = 0.0
    meetings: float = 0.0
    memory: float = 0.0

    def __add__(self, other: Work) -> Work:
        sums = {name: value + getattr(other, name) for name, value in vars(self).items()}
        return Work(**sums | {"memory": max(self.memory, other.memory)})

    def operations(self, forward: float) -> float:
        """Floating point operations, where a forward of one sample takes some."""
        return self.passes * forward + self.contraction + self.sketching


@dataclass(frozen=True)
class Part:
    """What a process does of a layer's products for one probe.

    Attributes:
        kind: "blocks", "factors", "channels", "columns" (see `shared_parts`), "rows" of sketches.
        operations: Floating point operations.
        numbers: Numbers that it has of each sample afterwards, its own included.
    """

    kind: str
    operations: float
    numbers: float


def part_of(layer: Layer, samples: int, processes: int, sketched: bool) -> Part:
    """What a process does of a layer's products for one probe.

    Args:
        layer: One of them.
        samples: N, of all processes in one sweep.
        processes: How many there are.
        sketched: Whether gradients are sketched.
    """
    n, t, p, q, count = samples, layer.tokens, layer.rows, layer.columns, processes
    if sketched:
        k = math.sqrt(layer.length)
        operations = 2.0 * n * t * (p + q + k) * k if t and layer.length < p * q else 0.0
        return Part("rows", (operations + n * n * layer.length) / count, layer.length / count)
    if t and through_tokens_is_cheaper(n, t, p, q):
        return Part("blocks", 2.0 * pairs_of(n, t, count) * t * t * (p + q), t * (p + q) / 2)
    if t:
        less = count == 1 or factors_are_less(t, p, q, count)
        numbers = t * (max(p, q) / count + min(p, q)) if less else p * q / count
        return Part("factors" if less else "columns", 2.0 * n * (t + n) * p * q / count, numbers)
    size = p * q if layer.left else min(layer.size, p * n)
    forming = 2.0 * n * layer.left / p * size / count if layer.left else 0.0
    operations = forming + 2.0 * n * n * size / count
    if layer.left and count > 1 and channels_are_less(layer.left, layer.right, p, size, count):
        return Part("channels", operations, layer.left / count + layer.right)
    return Part("columns", operations, size / count)


def _temporary(shape: Shape, layer: Layer, own: int, kernel: Kernel) -> float:
    """Bytes that a layer's gradients take while they are formed."""
    if not layer.left:
        return shape.width * own * (0 if layer.tokens or kernel.sketched else layer.size)
    windows = shape.width * own * layer.left / layer.rows * layer.columns
    formed = shape.width * own * (layer.length if kernel.sketched else layer.size)
    return formed + min(WINDOW_BYTES.get(kernel.device.type, WINDOW_BYTES["cuda"]), windows)


def pairs_of(samples: int, tokens: int, processes: int) -> float:
    """Pairs of samples whose products a process forms through tokens, in blocks on and above its diagonal and beside it."""
    own = samples / processes
    blocks = -(-own // sample_block(math.ceil(own), tokens))
    return own * own * ((1 + 1 / blocks) / 2 + (processes - 1) / 2)


def work_of(shape: Shape, kernel: Kernel) -> Work:
    """What each process does for one kernel.

    Args:
        shape: Of the network.
        kernel: What is asked for.
    """
    sweeps, count = Sweeps.of(shape, kernel), kernel.processes
    probes, n = kernel.probes, kernel.samples
    together = sweeps.together(kernel)
    parts = [part_of(layer, together, count, kernel.sketched) for layer in shape.layers]
    repeats = probes * (1 if kernel.sketched else sweeps.count)
    operations = repeats * sum(part.operations for part in parts)
    each = shape.width * together * sum(part.numbers for part in parts)
    others, sums = 1 - 1 / count, 8.0 * n * n * probes
    largest = shape.width * together * max((part.numbers for part in parts), default=0.0)
    while_formed = max((_temporary(shape, each, sweeps.own, kernel) for each in shape.layers), default=0.0)
    buffers = 3 * min(each, EXCHANGED_BYTES + largest) if count > 1 else 0.0
    rows = shape.width * kernel.own * sum(layer.length for layer in shape.layers) if kernel.sketched else 0.0
    extra = CHECK * kernel.checked + REHEARSAL * kernel.rehearsed
    return Work(
        passes=sweeps.passed * (sweeps.forwards + probes) + extra,
        contraction=0.0 if kernel.sketched else operations,
        sketching=operations if kernel.sketched else 0.0,
        received=others * (repeats * each + n * shape.output + 3 * sums),
        meetings=repeats * math.ceil(each / EXCHANGED_BYTES) + _MEETINGS if count > 1 else 0,
        memory=WORKING * shape.kept * sweeps.own + 2 * sums + buffers + rows + while_formed,
    )
