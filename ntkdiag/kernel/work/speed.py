"""How fast a network runs through the engine on this machine: sweeps over a few samples, timed."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ntkdiag.kernel.eager import plain_eager
from ntkdiag.kernel.pair import pair_of
from ntkdiag.kernel.parameters import select_parameters
from ntkdiag.kernel.problem import Problem
from ntkdiag.kernel.sketch import full_precision, sketch_of
from ntkdiag.kernel.streaming.contraction.gradients import Outer, PerSampleGradient, Unformed
from ntkdiag.kernel.streaming.recording.forward import Network
from ntkdiag.kernel.streaming.recording.rehearsal import rehearse
from ntkdiag.kernel.streaming.row_storage import RowStorage
from ntkdiag.kernel.streaming.shared_parts import Channels, Columns, part_of
from ntkdiag.kernel.streaming.sketched_rows import SketchedRows
from ntkdiag.kernel.streaming.sweep import Receiver, Task, sweep_into
from ntkdiag.kernel.work.counts import Kernel
from ntkdiag.kernel.work.layers import Watcher, rehearsed, repeated
from ntkdiag.modes import measuring

# Samples of the smaller sweep, and seconds that the larger one may take.
_FEW, _SECONDS = 2, 0.4


@dataclass(frozen=True)
class Speed:
    """Seconds of a core that a process takes for passes through the network, gradients formed or sketched, not multiplied.

    Attributes:
        rehearsal, check: Of one.
        sweep, backward: Of a sweep and of each of its backwards, whatever their samples.
        forward_sample, backward_sample: Of each sample beside.
    """

    rehearsal: float
    check: float
    sweep: float
    backward: float
    forward_sample: float
    backward_sample: float


def speed_of(
    module: nn.Module, inputs: tuple[Tensor, ...], kernel: Kernel, params: Any = None, sketch: int = 64
) -> Speed:
    """Time the parts of a kernel on a few samples, in a fraction of a second unless a single pass takes as long.

    Args:
        module, inputs, params, sketch: See `shape_of`.
        kernel: The samples, processes and engine that it is to be like.
    """
    parameters = select_parameters(module, params)
    few = repeated(inputs, _FEW)
    with measuring(module), plain_eager():
        task, rehearsal, _ = rehearsed(Network(module, parameters), few, lambda name, gradient: None)
        if not task.network.parameters:
            return Speed(0, 0, 0, 0, 0, 0)
        known = rehearsal.remembered() or rehearsal
        problem = Problem(module, task.network.parameters, few, task.directions, task.group, {})
        if kernel.sketched:
            problem = _sketched(problem, sketch)

        def timed(samples: int) -> tuple[float, float]:
            some = repeated(inputs, samples)
            return min(_sweep(task, some, known, problem, kernel) for _ in range(2))

        small = timed(_FEW)
        each = max(sum(small) / _FEW, 1e-6)
        samples = max(2 * _FEW, min(kernel.own, int(_SECONDS / each)))
        large = timed(samples)
        forward, backward = (max(0.0, (large[i] - small[i]) / (samples - _FEW)) for i in range(2))
        return Speed(
            rehearsal=processor_seconds(lambda: rehearse(task.network, few, torch.tensor([1]))),
            check=processor_seconds(lambda: pair_of(problem, [torch.eye(2)])),
            sweep=max(0.0, small[0] - _FEW * forward),
            backward=max(0.0, small[1] - _FEW * backward),
            forward_sample=forward,
            backward_sample=backward,
        )


def _sketched(problem: Problem, size: int) -> Problem:
    return replace(problem, sketch=sketch_of(size, 0, problem.parameters, {}))


def processor_seconds(call: Callable[[], object]) -> float:
    """Of the faster of two calls, on all cores of this process."""
    took = []
    for _ in range(2):
        started = time.process_time()
        call()
        took.append(time.process_time() - started)
    return min(took)


class _Timed:
    """A receiver that notes when each backward begins and ends, and what it would take beside.

    Args:
        receiver: Takes the gradients.
        beside: Seconds to be added, for each backward.
    """

    def __init__(self, receiver: Receiver, beside: list[float]) -> None:
        self.receiver, self.beside = receiver, beside
        self.times: list[float] = []
        self.made = time.process_time()

    def start(self, probe: int) -> None:
        self.times.append(time.process_time())
        self.receiver.start(probe)

    def add(self, parameter: Any, gradient: PerSampleGradient) -> None:
        self.receiver.add(parameter, gradient)

    def finish(self) -> None:
        self.receiver.finish()
        self.times.append(time.process_time())


class _Uncontracted(SketchedRows):
    def _contract(self, kept: dict[str, Tensor]) -> None:
        pass


def _sweep(
    task: Task, inputs: tuple[Tensor, ...], rehearsal: Any, problem: Problem, kernel: Kernel
) -> tuple[float, float]:
    """Seconds of the forward, and of one of the backwards."""
    samples, beside = len(inputs[0]), [0.0]

    def formed(name: str, gradient: PerSampleGradient) -> None:
        beside[0] += _form(gradient, kernel)

    def receiver(uses: Any, probes: int, device: torch.device) -> _Timed:
        if problem.sketch is None:
            return _Timed(Watcher(task, uses, probes, samples, device, formed), beside)
        sizes = {name: problem.sketch.length(p.shape) for name, p in problem.parameters.items()}
        kinds = {name: full_precision(p.dtype) for name, p in problem.parameters.items()}
        rows = _Uncontracted(problem, RowStorage(sizes, samples, kinds, device), 0)
        rows.begin(torch.arange(samples))
        return _Timed(rows, beside)

    started = time.process_time()
    found, _ = sweep_into(receiver, task, inputs, torch.arange(samples), rehearsal, {})
    first, second = (found.times[2 * i + 1] - found.times[2 * i] for i in range(2))
    return found.made - started, (first + second + beside[0]) / 2


def _form(gradient: PerSampleGradient, kernel: Kernel) -> float:
    """Form a gradient as far as a process does so for its own samples; the seconds that it takes beside for others'."""
    if not isinstance(gradient, (Outer, Unformed)):
        return 0.0
    part = part_of(gradient, None, kernel.samples, kernel.processes, 0) if kernel.processes > 1 else None
    if isinstance(gradient, Outer):
        return 0.0  # done by `part_of`, where it is
    if not isinstance(part, Channels):
        if part is None or not isinstance(part, Columns):
            gradient.dense()
        return 0.0
    started = time.process_time()
    channels = -(-gradient.left.shape[2] // kernel.processes)
    gradient.form(gradient.left[:, :, :channels], gradient.right)
    return (kernel.processes - 1) * (time.process_time() - started)
