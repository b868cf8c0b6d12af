"""One sweep: a forward over some samples under the recorder, then one backward a probe.

As a backward reaches the output of an operation in which parameters met the batch, their per-sample gradients are formed,
contracted and freed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from ntkdiag.kernel.directions import Directions
from ntkdiag.kernel.streaming.accumulate import Accumulator
from ntkdiag.kernel.streaming.recording.derived import DerivedParameter
from ntkdiag.kernel.streaming.recording.forward import Forward, Network, forward
from ntkdiag.kernel.streaming.recording.recorder import RecordedOperation
from ntkdiag.kernel.streaming.recording.rehearsal import Rehearsal, rehearse_backward
from ntkdiag.kernel.streaming.refusal import Refused, Unsupported
from ntkdiag.kernel.streaming.rules.general import ParameterUse
from ntkdiag.kernel.streaming.sample_axis.axis import AxisCandidate, SampleAxis


@dataclass(frozen=True)
class Task:
    """What is asked of every sweep.

    Attributes:
        network: What is measured.
        directions: See `ntkdiag.kernel.directions`.
        group: Parameter name → group label.
        weights: Parameter name → positive factors of its elements (a diagonal preconditioner, inverted).
    """

    network: Network
    directions: Directions
    group: Callable[[str], str]
    weights: dict[str, Tensor]


@dataclass
class _HookedOperation:
    """A operation, as far as the backward needs it; the output itself is left to autograd."""

    family: str
    names: list[str]
    uses: list[tuple[DerivedParameter, ParameterUse]]
    candidates: list[AxisCandidate]


class _GradientHooks:
    """Told of meetings during the forward, and of their outputs' gradients during each backward."""

    def __init__(self, rehearsal: Rehearsal, samples: int) -> None:
        self.steps: list[_HookedOperation] = []
        self.refused: dict[str, str] = {}
        self.gathered: Accumulator | None = None  # set when the forward is over
        self.last = (
            False  # whether this backward is the last: what uses keep of the forward is then freed on the way
        )
        self.rehearsal = rehearsal
        self._samples = samples

    def on_operation(self, operation: RecordedOperation) -> None:
        position = len(self.steps)
        candidates = self.rehearsal.candidates(position, operation, self._samples)
        self.steps.append(_HookedOperation(operation.family, operation.names, operation.uses, candidates))
        operation.output.register_hook(partial(self._on_gradient, position))

    @property
    def unsettled(self) -> set[int]:
        """Meetings whose axis is not known yet."""
        return {position for position, step in enumerate(self.steps) if len(step.candidates) > 1}

    def _on_gradient(self, position: int, gradient: Tensor) -> None:
        """Per-sample gradients of the parameters of one operation, at the moment its output's gradient is known."""
        step = self.steps[position]
        if self.gathered is None:
            self.refused.update(dict.fromkeys(step.names, "a gradient is taken inside the forward"))
            return
        gradient = gradient.detach()
        uses = step.uses
        if self.last:
            step.uses = []
        try:
            axis = self._sample_axis(position, gradient)
            for source, use in uses:
                self.gathered.add(source, use.gradient(gradient, axis))
        except Unsupported as reason:
            raise Refused(dict.fromkeys(step.names, f"{step.family}: {reason}")) from None

    def _sample_axis(self, position: int, gradient: Tensor) -> SampleAxis:
        step = self.steps[position]
        if len(step.candidates) > 1:
            step.candidates = self.rehearsal.settle(position, gradient)
        if len(step.candidates) > 1 and gradient.any():  # all candidates of zeros are right
            raise Unsupported("which rows belong to which sample cannot be told")
        return step.candidates[0].axis


def sweep(
    task: Task, inputs: tuple[Tensor, ...], picked: Tensor, rehearsal: Rehearsal, coverage: dict[str, str]
) -> tuple[dict[str, Tensor], Tensor]:
    """Gram matrices of some samples.

    Args:
        task: What is asked.
        inputs: Tensors [m, ...].
        picked: Positions of these samples among all, [m].
        rehearsal: See `rehearse`; the first sweep completes its layouts.
        coverage: Parameter name → families of its uses; filled here.

    Returns:
        Group label → [R, m, m] float64, and the network's output [m, *out].

    Raises:
        Refused: some parameters need another engine.
        MeasurementError: samples depend on each other.
    """
    samples = inputs[0].shape[0]
    listener = _GradientHooks(rehearsal, samples)
    first = not rehearsal.found
    passed = forward(task.network, inputs, listener.on_operation)
    refused = passed.refused | listener.refused
    if refused:
        raise Refused(refused)
    if first:
        rehearsal.require_same_output(passed.output)
    if listener.unsettled:
        rehearse_backward(rehearsal, task.network, task.directions, picked, listener.unsettled)
    cotangents = task.directions(passed.output.detach(), picked)
    uses = _uses(listener.steps, coverage)
    names = task.network.parameters
    probes, device = cotangents.shape[0], passed.output.device
    listener.gathered = Accumulator(names, uses, probes, samples, task.group, task.weights, device)
    if passed.ends:
        _backwards(passed, cotangents, listener)
    return listener.gathered.grams, passed.output.detach()


def _uses(steps: list[_HookedOperation], coverage: dict[str, str]) -> Counter[str]:
    """How often each parameter was used; the families it was used by go into the coverage."""
    uses: Counter[str] = Counter()
    families: dict[str, list[str]] = {}
    for step in steps:
        for source, _ in step.uses:
            uses.update(source.leaves.keys())
            for name in source.leaves:
                families.setdefault(name, []).append(step.family)
    coverage.update({name: ", ".join(dict.fromkeys(used)) for name, used in families.items()})
    return uses


def _backwards(passed: Forward, cotangents: Tensor, listener: _GradientHooks) -> None:
    gathered, probes = listener.gathered, cotangents.shape[0]
    assert gathered is not None  # set by the sweep once the forward is over
    # the caller's autocast must not round what is summed here
    with torch.autocast(passed.output.device.type, enabled=False):
        for probe in range(probes):
            listener.last = probe == probes - 1
            gathered.start(probe)
            torch.autograd.grad(
                passed.output,
                passed.ends,
                cotangents[probe].to(passed.output.dtype),
                retain_graph=not listener.last,
                allow_unused=True,
            )
            gathered.finish()
            listener.rehearsal.gradients.clear()  # they are those of the first probe
