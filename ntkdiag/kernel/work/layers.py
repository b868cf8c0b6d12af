"""What a network does with one sample: the gradients of its parameters, its operations and its memory.

They are seen in a sweep of the streaming engine over two samples, so that they are those that a kernel is made of.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ntkdiag.kernel.directions import given
from ntkdiag.kernel.eager import plain_eager
from ntkdiag.kernel.parameters import select_parameters
from ntkdiag.kernel.sketch import Sketch
from ntkdiag.kernel.streaming.accumulate import Accumulator
from ntkdiag.kernel.streaming.contraction.gradients import Compressed, Outer, PerSampleGradient, Unformed
from ntkdiag.kernel.streaming.recording.forward import Network
from ntkdiag.kernel.streaming.recording.rehearsal import Rehearsal, rehearse
from ntkdiag.kernel.streaming.refusal import Refused
from ntkdiag.kernel.streaming.sweep import Task, sweep_into
from ntkdiag.kernel.work.operations import OperationCounter
from ntkdiag.modes import measuring

_TWO = 2


@dataclass(frozen=True)
class Layer:
    """The gradient of a parameter for one sample, all uses of it together.

    Attributes:
        tokens: T, where it is a product of factors [T, p] and [T, q]; else 0.
        rows, columns: p and q; without factors, the elements that a sample touches, or channels and the rest.
        size: Elements of the parameter.
        length: Numbers in a sketched row of it.
        left, right: Numbers that it is formed from, where that may wait until they are exchanged; else 0.
    """

    tokens: int
    rows: int
    columns: int
    size: int
    length: int
    left: int = 0
    right: int = 0


@dataclass(frozen=True)
class Shape:
    """What a network does with one sample.

    Attributes:
        layers: By parameter.
        forward: Floating point operations of the forward, two for a multiplication with an addition.
        kept: Bytes that a sample keeps until the backward.
        output: Bytes of the output of a sample.
        weights: Bytes of the network.
        width: Bytes of a number of a gradient.
        left_out: Parameters that only the slow engines serve, which are not counted.
    """

    layers: tuple[Layer, ...]
    forward: float
    kept: float
    output: int
    weights: int
    width: int
    left_out: tuple[str, ...]


class Watcher(Accumulator):
    """Sees the gradients of a sweep, and contracts none of them.

    Args:
        task: What is measured.
        uses, probes, samples, device: As `Accumulator`.
        seen: Called with each parameter's name and gradient.
    """

    def __init__(
        self,
        task: Task,
        uses: Any,
        probes: int,
        samples: int,
        device: torch.device,
        seen: Callable[[str, PerSampleGradient], None],
    ) -> None:
        super().__init__(task.network.parameters, uses, probes, samples, task.group, {}, device)
        self._seen = seen

    def _take(self, name: str, gradient: PerSampleGradient, scale: Tensor | None) -> None:
        self._seen(name, gradient)


def shape_of(
    module: nn.Module, inputs: tuple[Tensor, ...], params: str | Sequence[str] | None = None, sketch: int = 64
) -> Shape:
    """Look at a network by a sweep over two samples.

    Args:
        module: Called as module(*inputs).
        inputs: Tensors [m, ...] of at least one sample.
        params: As in `gram_of`.
        sketch: k.
    """
    parameters = select_parameters(module, params)
    few = repeated(inputs, _TWO)
    layers: dict[str, Layer] = {}

    def seen(name: str, gradient: PerSampleGradient) -> None:
        layers[name] = _layer(gradient, parameters[name], Sketch(sketch, 0))

    with measuring(module), plain_eager():
        task, rehearsal, refused = rehearsed(Network(module, parameters), few, seen)
        with torch.no_grad():
            output = module(*(tensor[:1].clone() for tensor in few))
        flops = _operations(module, tuple(tensor[:1] for tensor in few))
    ordered = tuple(layers[name] for name in task.network.parameters if name in layers)
    weights = sum(parameter.nbytes for parameter in module.parameters())
    width = max(4, next(iter(parameters.values())).element_size())
    return Shape(ordered, flops, rehearsal.bytes_per_sample, output.nbytes, weights, width, refused)


def rehearsed(
    network: Network, few: tuple[Tensor, ...], seen: Callable[[str, PerSampleGradient], None]
) -> tuple[Task, Rehearsal, tuple[str, ...]]:
    """What sweeps over other samples of a network need, after one over a few of them.

    Args:
        network: The module and the parameters that are asked for.
        few: Inputs of the sweep.
        seen: See `Watcher`.

    Returns:
        The task for the parameters that rules serve, the rehearsal, and the other parameters.
    """
    with torch.no_grad():
        output = network.module(*(tensor.clone() for tensor in few))
    generator = torch.Generator().manual_seed(0)
    cotangents = torch.randn(2, *output.shape[1:], generator=generator).to(output)
    refused: dict[str, str] = {}
    while True:
        task = Task(network.without(set(refused)), given(cotangents), lambda name: "", {})
        try:
            rehearsal = rehearse(task.network, few, torch.tensor([len(few[0]) - 1]))

            def receiver(uses: Any, probes: int, device: torch.device, task: Task = task) -> Watcher:
                return Watcher(task, uses, probes, len(few[0]), device, seen)

            if task.network.parameters:
                sweep_into(receiver, task, few, torch.arange(len(few[0])), rehearsal, {})
        except Refused as refusal:
            refused.update(refusal.reasons)
        else:
            return task, rehearsal, tuple(refused)


def repeated(inputs: tuple[Tensor, ...], samples: int) -> tuple[Tensor, ...]:
    """Inputs of so many samples, by taking some again where there are fewer."""
    rows = torch.arange(samples) % len(inputs[0])
    return tuple(tensor.index_select(0, rows.to(tensor.device)) for tensor in inputs)


def _layer(gradient: PerSampleGradient, parameter: Tensor, sketch: Sketch) -> Layer:
    size, length = parameter.numel(), sketch.length(parameter.shape)
    if isinstance(gradient, Outer):
        _, tokens, p = gradient.left.shape
        return Layer(tokens, p, gradient.right.shape[2], size, length)
    if isinstance(gradient, Unformed):
        left, right = gradient.left[0], gradient.right[0]
        return Layer(0, left.shape[1], size // left.shape[1], size, length, left.numel(), right.numel())
    touched = gradient.index.numel() / _TWO if isinstance(gradient, Compressed) else size
    return Layer(0, int(touched), 1, size, length)


def _operations(module: nn.Module, inputs: tuple[Tensor, ...]) -> float:
    """Floating point operations of a forward, as torch counts them; 0 where it cannot."""
    counter = OperationCounter()
    try:
        with torch.no_grad(), counter:
            module(*(tensor.clone() for tensor in inputs))
    except Exception:  # such as a mode of torch that the network's code does not bear
        return 0.0
    return float(counter.total)
