"""One sweep: a forward over some samples under the recorder, then one backward for each probe.

When a backward reaches the output of an operation that uses parameters, their per-sample gradients are formed, contracted
and freed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from ntkdiag.kernel.directions import Directions
from ntkdiag.kernel.streaming.accumulate import Accumulator
from ntkdiag.kernel.streaming.contraction.gradients import PerSampleGradient
from ntkdiag.kernel.streaming.recording.derived import DerivedParameter
from ntkdiag.kernel.streaming.recording.forward import Forward, Network, forward
from ntkdiag.kernel.streaming.recording.recorder import RecordedOperation
from ntkdiag.kernel.streaming.recording.rehearsal import Rehearsal, rehearse_backward
from ntkdiag.kernel.streaming.refusal import Refused, Unsupported
from ntkdiag.kernel.streaming.rules.general import ParameterUse
from ntkdiag.kernel.streaming.sample_axis.axis import SampleAxis


@dataclass(frozen=True)
class Task:
    """What every sweep of a measurement has in common.

    Attributes:
        network: What is measured.
        directions: See `ntkdiag.kernel.directions`.
        group: Parameter name → group label.
        inverse_preconditioner: Parameter name → 1/p, for a diagonal preconditioner p.
    """

    network: Network
    directions: Directions
    group: Callable[[str], str]
    inverse_preconditioner: dict[str, Tensor]


@dataclass(frozen=True)
class Swept:
    """Result of a sweep over m samples.

    Attributes:
        grams: Group label → [R, m, m] float64.
        corners: Parameter name → products of its gradients for the first and the last sample, [2, 2], for the first probe.
        output: The network's output [m, *out].
    """

    grams: dict[str, Tensor]
    corners: dict[str, Tensor]
    output: Tensor


@dataclass(frozen=True)
class AllSamples:
    """What sweeps over all N samples found together; see `Swept`."""

    grams: dict[str, Tensor]
    corners: dict[str, Tensor]
    output: Tensor
    coverage: dict[str, str]


class Receiver(Protocol):
    """What the per-sample gradients of a sweep are passed to, one probe after another."""

    def start(self, probe: int) -> None:
        """Begin the backward of a probe."""

    def add(self, parameter: DerivedParameter, gradient: PerSampleGradient) -> None:
        """Take the per-sample gradients of one use."""

    def finish(self) -> None:
        """End the backward."""


R = TypeVar("R", bound=Receiver)
# (parameter name → how often the forward uses it, number of probes, device) → receiver
Receiving = Callable[["Counter[str]", int, torch.device], R]


@dataclass
class _HookedOperation:
    """What the backward needs of a recorded operation; its output is left to autograd."""

    family: str
    names: list[str]
    uses: list[tuple[DerivedParameter, ParameterUse]]
    axes: list[SampleAxis]


class _GradientHooks:
    """Hooks on the outputs of recorded operations, which form per-sample gradients during each backward.

    Attributes:
        operations: In the order of the forward.
        refused: Parameter name → why it needs the exact engine.
        receiver: Takes the per-sample gradients; None until the forward is over.
        last: Whether this is the last backward, which may free what operations keep of the forward.
    """

    def __init__(self, rehearsal: Rehearsal, network: Network, samples: int) -> None:
        self.operations: list[_HookedOperation] = []
        self.refused: dict[str, str] = {}
        self.receiver: Receiver | None = None
        self.last = False
        self._rehearsal = rehearsal
        self._network = network
        self._samples = samples

    def on_operation(self, operation: RecordedOperation) -> None:
        """Note an operation of the forward, and hook its output."""
        position = len(self.operations)
        axes = self._rehearsal.possible_axes(position, operation, self._samples)
        self.operations.append(_HookedOperation(operation.family, operation.names, operation.uses, axes))
        operation.output.register_hook(partial(self._on_gradient, position))

    @property
    def ambiguous(self) -> set[int]:
        """Positions of operations with several possible sample axes."""
        return {position for position, operation in enumerate(self.operations) if len(operation.axes) > 1}

    def _on_gradient(self, position: int, gradient: Tensor) -> None:
        operation, receiver = self.operations[position], self.receiver
        if receiver is None:
            self.refused.update(dict.fromkeys(operation.names, "a gradient is taken inside the forward"))
            return
        self._network.require(operation.names)
        gradient = gradient.detach()
        uses = operation.uses
        if self.last:
            operation.uses = []
        try:
            if len(operation.axes) > 1:
                self._settle_axis(position, gradient)
            for parameter, use in uses:
                receiver.add(parameter, use.gradient(gradient, operation.axes[0]))
        except Unsupported as reason:
            self.refused.update(dict.fromkeys(operation.names, f"{operation.family}: {reason}"))

    def _settle_axis(self, position: int, gradient: Tensor) -> None:
        operation = self.operations[position]
        operation.axes = self._rehearsal.narrow_down(position, gradient, self._samples)
        if len(operation.axes) > 1 and gradient.any():  # of zeros, any axis is right
            raise Unsupported("the sample axis of its output is ambiguous")


def sweep(
    task: Task, inputs: tuple[Tensor, ...], picked: Tensor, rehearsal: Rehearsal, coverage: dict[str, str]
) -> Swept:
    """Gram matrices of some samples.

    Args:
        task: What is measured.
        inputs: Tensors [m, ...].
        picked: Positions of these samples among all, [m].
        rehearsal: See `rehearse`; the first sweep adds the sample axes.
        coverage: Parameter name → families of the rules that served it; filled here.

    Raises:
        Refused: some parameters need another engine.
        MeasurementError: samples depend on each other.
    """

    def accumulator(uses: Counter[str], probes: int, device: torch.device) -> Accumulator:
        names, samples = task.network.parameters, len(picked)
        return Accumulator(names, uses, probes, samples, task.group, task.inverse_preconditioner, device)

    found, output = sweep_into(accumulator, task, inputs, picked, rehearsal, coverage)
    return Swept(found.grams, found.corners, output)


def sweep_into(
    receiving: Receiving[R],
    task: Task,
    inputs: tuple[Tensor, ...],
    picked: Tensor,
    rehearsal: Rehearsal,
    coverage: dict[str, str],
) -> tuple[R, Tensor]:
    """Pass the per-sample gradients of some samples to a receiver.

    Args:
        receiving: Makes the receiver, once the forward is over.
        task, inputs, picked, rehearsal, coverage: See `sweep`, also for what is raised.

    Returns:
        The receiver, and the network's output [m, *out].
    """
    samples = inputs[0].shape[0]
    hooks = _GradientHooks(rehearsal, task.network, samples)
    passed = forward(task.network, inputs, hooks.on_operation)
    _raise_if_refused(passed.refused | hooks.refused)
    rehearsal.require_same_output(passed.output)
    if task.network.any_process(bool(hooks.ambiguous)):
        rehearse_backward(rehearsal, task.network, task.directions, picked, hooks.ambiguous)
    cotangents = task.directions(passed.output.detach(), picked)
    receiver = receiving(_uses(hooks.operations, coverage), cotangents.shape[0], passed.output.device)
    hooks.receiver = receiver
    if passed.ends:
        _backwards(passed, cotangents, hooks, rehearsal)
    return receiver, passed.output.detach()


def in_order(sweeps: list[Tensor], rows: list[Tensor]) -> Tensor:
    """Rows of all samples [N, ...], from those of sweeps that hold every sample at least once.

    Args:
        sweeps: Positions of the samples of each sweep.
        rows: Of each sweep.
    """
    if len(sweeps) == 1:
        return rows[0]
    positions = torch.cat(sweeps)
    found = rows[0].new_empty(int(positions.max()) + 1, *rows[0].shape[1:])
    found[positions.to(found.device)] = torch.cat(rows)
    return found


def _uses(operations: list[_HookedOperation], coverage: dict[str, str]) -> Counter[str]:
    """How often each parameter is used; the families of rules that serve it go into the coverage."""
    uses: Counter[str] = Counter()
    families: dict[str, list[str]] = {}
    for operation in operations:
        for parameter, _ in operation.uses:
            uses.update(parameter.leaves.keys())
            for name in parameter.leaves:
                families.setdefault(name, []).append(operation.family)
    coverage.update({name: ", ".join(dict.fromkeys(used)) for name, used in families.items()})
    return uses


def _backwards(passed: Forward, cotangents: Tensor, hooks: _GradientHooks, rehearsal: Rehearsal) -> None:
    probes, receiver = cotangents.shape[0], hooks.receiver
    assert receiver is not None  # the sweep sets it after the forward
    # under the caller's autocast, what is summed here would be rounded
    with torch.autocast(passed.output.device.type, enabled=False):
        for probe in range(probes):
            hooks.last = probe == probes - 1
            receiver.start(probe)
            torch.autograd.grad(
                passed.output,
                passed.ends,
                cotangents[probe].to(passed.output.dtype),
                retain_graph=not hooks.last,
                allow_unused=True,
            )
            _raise_if_refused(hooks.refused)
            receiver.finish()
            rehearsal.gradients.clear()  # they belong to the first probe


def _raise_if_refused(reasons: dict[str, str]) -> None:
    if reasons:
        raise Refused(reasons)
