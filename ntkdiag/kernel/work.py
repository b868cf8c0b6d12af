"""What a kernel costs before it is computed: operations, bytes exchanged and memory of each of several processes.

The network runs once on a few samples, so that the layers and what a sample keeps are known; the rest is counted.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ntkdiag.kernel.eager import plain_eager
from ntkdiag.kernel.parameters import select_parameters
from ntkdiag.kernel.sketch import Sketch
from ntkdiag.kernel.streaming.memory import WORKING
from ntkdiag.kernel.streaming.recording.forward import Network, forward
from ntkdiag.kernel.streaming.recording.recorder import RecordedOperation
from ntkdiag.kernel.streaming.recording.rehearsal import rehearse
from ntkdiag.kernel.streaming.shared import EXCHANGED_BYTES
from ntkdiag.modes import measuring

# Families of rules by which a sample touches few rows of a table.
_TABLES = ("embedding", "index", "embedding bag")
# Families whose gradients are products of factors, and those that form them before they are exchanged.
_PRODUCTS = ("linear", "matmul", "addmm", "einsum", "convolution", "transposed convolution")
_FORMED = ("convolution", "transposed convolution")
# Passes of one sample that every process makes for itself: the rehearsal and the check.
_CHECK = 8
# Exchanges of a kernel beside those of gradients: what is given, memory, outputs, sums, verdicts.
_MEETINGS = 30


@dataclass(frozen=True)
class Layer:
    """One use of a parameter by the network.

    Attributes:
        tokens: T, how many places of a sample it is applied at; 0 where the gradient is no product of factors.
        rows, columns: p and q of its gradient as the rule forms it; elements that a sample touches, and 1, of a table.
        length: Numbers in a sketched row of it.
        formed: Whether its gradient is formed before it is exchanged.
        first: Whether it is the first use of its parameter: sketches of uses are added up before they are exchanged.
    """

    tokens: int
    rows: int
    columns: int
    length: int
    formed: bool = False
    first: bool = True


@dataclass(frozen=True)
class Shape:
    """What a network does with one sample.

    Attributes:
        layers: Uses of parameters.
        forward: Floating point operations of the forward, two for a multiplication with an addition.
        kept: Bytes that a sample keeps until the backward.
        output: Bytes of the output of a sample.
        weights: Bytes of the network.
        left_out: Parameters that only the slow engines serve, which are not counted.
    """

    layers: tuple[Layer, ...]
    forward: float
    kept: float
    output: int
    weights: int
    left_out: tuple[str, ...]


@dataclass(frozen=True)
class Work:
    """What each of the processes does for one kernel.

    Attributes:
        passes: Forwards of one sample, or backwards to activations, which cost about the same.
        contraction: Floating point operations of per-sample gradients and their products.
        sketching: The same of sketched gradients.
        signs: Random signs that are drawn.
        uses: Uses of parameters that a backward passes.
        received: Bytes from other processes.
        meetings: How often all wait for each other.
        memory: Bytes, at its peak.
    """

    passes: float = 0.0
    contraction: float = 0.0
    sketching: float = 0.0
    signs: float = 0.0
    uses: float = 0.0
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
class Rates:
    """Seconds of a core of each process, from counts; fitted by `analysis/processes`, whose README says how well.

    Attributes:
        passes: Of a forward, in units of `pass_seconds`.
        contraction, sketching: Of an operation, in units of a large matrix product's.
        per_sign: Of a sign.
        per_use: Of a use of a parameter.
        per_byte: Of a byte received.
        per_meeting: Of a meeting.
        constant: Of a kernel.
    """

    passes: float
    contraction: float
    sketching: float
    per_sign: float
    per_use: float
    per_byte: float
    per_meeting: float
    constant: float

    def seconds(self, work: Work, pass_seconds: float, gemm_rate: float) -> float:
        """What a process takes for some work.

        Args:
            work: See `work_of`.
            pass_seconds: Of one forward of a sample here, see `pass_seconds`.
            gemm_rate: Operations a second here, see `gemm_rate`.
        """
        rates: tuple[float, ...] = tuple(vars(self).values())
        return sum(r * u for r, u in zip(rates, units(work, pass_seconds, gemm_rate), strict=True))


def units(work: Work, pass_seconds: float, gemm_rate: float) -> tuple[float, ...]:
    """What each of the rates is multiplied by, in their order."""
    return (
        work.passes * pass_seconds,
        work.contraction / gemm_rate,
        work.sketching / gemm_rate,
        work.signs,
        work.uses,
        work.received,
        work.meetings,
        1.0,
    )


# Fitted by `python -m analysis.processes.run` (its rates.json) on processor seconds.
RATES = Rates(
    passes=0.56,
    contraction=1.08,
    sketching=1.73,
    per_sign=6.7e-8,
    per_use=3.3e-4,
    per_byte=2.9e-9,
    per_meeting=0.0,
    constant=0.0,
)


def pass_seconds(module: nn.Module, inputs: tuple[Tensor, ...], most: int = 8) -> float:
    """Seconds of a core that a third of a training pass takes for one sample, the faster of two tries.

    Args:
        module: Called as module(*inputs).
        inputs: Tensors [m, ...].
        most: Samples of the pass.
    """
    parameters = [one for one in module.parameters() if one.requires_grad]
    few = tuple(tensor[:most] for tensor in inputs)
    took = []
    with measuring(module), torch.enable_grad():
        for _ in range(2):
            started = time.process_time()
            output = module(*(tensor.clone() for tensor in few))
            torch.autograd.grad(output.sum(), parameters, allow_unused=True)
            took.append(time.process_time() - started)
    return min(took) / (3 * len(few[0]))


def gemm_rate(size: int = 768) -> float:
    """Floating point operations a second of a core in a square matrix product, the fastest of three tries."""
    matrix = torch.rand(size, size)
    took = []
    for _ in range(3):
        started = time.process_time()
        matrix @ matrix
        took.append(time.process_time() - started)
    return 2 * size**3 / max(min(took), 1e-9)


def shape_of(
    module: nn.Module, inputs: tuple[Tensor, ...], params: str | Sequence[str] | None = None, sketch: int = 64
) -> Shape:
    """Look at a network by forwards of two samples.

    Args:
        module: Called as module(*inputs).
        inputs: Tensors [m, ...] of at least one sample.
        params: As in `gram_of`.
        sketch: k.
    """
    parameters = select_parameters(module, params)
    few = tuple(tensor[:1].repeat(2, *(1,) * (tensor.ndim - 1)) for tensor in inputs)
    layers: list[Layer] = []

    seen: set[str] = set()

    def note(operation: RecordedOperation) -> None:
        each = operation.output.numel() // 2
        for name in (name for parameter, _ in operation.uses for name in parameter.leaves):
            found = _layer(operation.family, each, parameters[name], Sketch(sketch, 0))
            layers.append(replace(found, first=name not in seen))
            seen.add(name)

    with measuring(module), plain_eager():
        passed = forward(Network(module, parameters), few, note)
        network = Network(module, parameters).without(set(passed.refused))
        kept = rehearse(network, few, torch.tensor([1])).bytes_per_sample
        with torch.no_grad():
            output = module(*(tensor[:1].clone() for tensor in few))
        flops = _operations(module, tuple(tensor[:1] for tensor in few))
    weights = sum(parameter.nbytes for parameter in module.parameters())
    return Shape(tuple(layers), flops, kept, output.nbytes, weights, tuple(passed.refused))


def work_of(shape: Shape, samples: int, probes: int, processes: int = 1, sketched: bool = False) -> Work:
    """What each process does for one kernel of all samples, all of which fit into one sweep.

    Args:
        shape: Of the network.
        samples, probes: N and R.
        processes: How many share the samples.
        sketched: Whether gradients are sketched.
    """
    n, own, others = samples, samples / processes, 1 - 1 / processes
    found = [(_sketched if sketched else _exact)(layer, n, processes) for layer in shape.layers]
    received = sum(exchanged for _, exchanged in found)
    operations = float(probes * sum(flops for flops, _ in found))
    sums = 8.0 * n * n * probes
    signs = sum((each.rows + each.columns) * math.sqrt(each.length) for each in shape.layers if each.tokens)
    buffers = 2 * min(received, EXCHANGED_BYTES + max((each for _, each in found), default=0.0))
    return Work(
        passes=own * (1 + probes) + _CHECK,
        contraction=0.0 if sketched else operations,
        sketching=operations if sketched else 0.0,
        signs=probes * signs if sketched else 0.0,
        uses=len(shape.layers) * (probes + 3),
        received=others * (probes * received + n * shape.output + 3 * sums),
        meetings=probes * math.ceil(received / EXCHANGED_BYTES) + _MEETINGS if processes > 1 else 0,
        memory=shape.weights
        + WORKING * shape.kept * own
        + 2 * sums
        + (buffers if processes > 1 or sketched else 0.0),
    )


def _operations(module: nn.Module, inputs: tuple[Tensor, ...]) -> float:
    """Floating point operations of a forward, as torch counts them; 0 where it cannot."""
    counter = FlopCounterMode(display=False)
    try:
        with torch.no_grad(), counter:
            module(*(tensor.clone() for tensor in inputs))
    except Exception:  # such as a mode of torch that the network's code does not bear
        return 0.0
    return float(counter.get_total_flops())


def _exact(layer: Layer, samples: int, processes: int) -> tuple[float, float]:
    """Operations of a process for a layer and a probe, and bytes of its part of all samples' gradients."""
    n, t = samples, layer.tokens
    p, q = max(layer.rows, layer.columns), min(layer.rows, layer.columns)
    if t == 0 or layer.formed:
        if not layer.first:  # uses are summed before they are exchanged
            return 2.0 * n * t * p * q / processes, 0.0
        return 2.0 * n * (t + n) * p * q / processes, 4.0 * n * p * q / processes
    part = p / processes
    materialised = 2.0 * (t + n) * n * part * q
    through_tokens = 2.0 * n * n * t * t * (part + q)
    return min(materialised, through_tokens), 4.0 * n * t * (part + q if processes > 1 else 0)


def _sketched(layer: Layer, samples: int, processes: int) -> tuple[float, float]:
    """The same where gradients are sketched."""
    n, t, k = samples, layer.tokens, math.sqrt(layer.length)
    sketching = 2.0 * n * t * (layer.rows + layer.columns + k) * k if t else 0.0
    if not layer.first:
        return sketching / processes, 0.0
    return (sketching + n * n * layer.length) / processes, 4.0 * n * layer.length / processes


def _layer(family: str, output: int, parameter: Tensor, sketch: Sketch) -> Layer:
    length = sketch.length(parameter.shape)
    if family in _TABLES:
        return Layer(0, min(parameter.numel(), output), 1, length)
    rows = parameter.shape[0] if parameter.ndim > 1 else 1
    if family not in _PRODUCTS or parameter.ndim < 2 or output % rows:
        return Layer(0, parameter.numel(), 1, length)
    return Layer(output // rows, rows, parameter.numel() // rows, length, family in _FORMED)
