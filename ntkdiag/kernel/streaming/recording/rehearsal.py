"""The rehearsal: a forward over a few samples before all sweeps, by which the sample axis of each activation is found.

The first sweep compares its activations with those of the rehearsal. Where several axes fit (behind a layer of zeros, say),
a backward over the few samples is run as well, and gradients are compared.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor

from ntkdiag.kernel.directions import Directions
from ntkdiag.kernel.guards import require_same, require_small
from ntkdiag.kernel.precision import computed_in
from ntkdiag.kernel.problem import few_samples
from ntkdiag.kernel.streaming.memory import bytes_of
from ntkdiag.kernel.streaming.recording.forward import Network, forward
from ntkdiag.kernel.streaming.recording.recorder import RecordedOperation
from ntkdiag.kernel.streaming.refusal import Refused
from ntkdiag.kernel.streaming.sample_axis.axis import SampleAxis
from ntkdiag.kernel.streaming.sample_axis.detection import (
    AxisCandidate,
    ReferenceSlices,
    candidate_axes,
    compared,
)


@dataclass
class Rehearsal:
    """What is kept of the forward over a few samples. Operations are known by their position in the forward.

    Attributes:
        inputs: The few samples.
        chosen: Their positions in the first sweep.
        names: Parameters of each operation, in order.
        activations: Slices of each operation's output.
        output: The network's output.
        bytes_per_sample: Memory that a sample takes until the backward.
        axes: Operation → possible sample axes of its output, found in the first sweep.
        gradients: Operation → slices of its output's gradient, for the first probe of the first sweep; only where the
            activations leave more than one axis.
        compared: Whether a sweep's output has been compared with `output`.
        known: Whether nothing is left to compare: every axis was found in an earlier call.
    """

    inputs: tuple[Tensor, ...]
    chosen: Tensor
    names: list[list[str]]
    activations: list[ReferenceSlices]
    output: Tensor
    bytes_per_sample: float
    axes: dict[int, list[SampleAxis]] = field(default_factory=dict)
    gradients: dict[int, ReferenceSlices] = field(default_factory=dict)
    compared: bool = False
    known: bool = False

    def remembered(self) -> Rehearsal | None:
        """What later calls need of it, without its tensors; None if an operation has several possible axes."""
        if len(self.axes) < len(self.names) or any(len(axes) > 1 for axes in self.axes.values()):
            return None
        return replace(self, inputs=(), activations=[], output=self.output[:0], gradients={}, known=True)

    def possible_axes(self, position: int, operation: RecordedOperation, samples: int) -> list[SampleAxis]:
        """Possible sample axes of an operation's output, the most likely first.

        Raises:
            MeasurementError: samples are not independent.
            Refused: no dimension holds the samples, or the rehearsal had another operation here.
        """
        if position >= len(self.names) or self.names[position] != operation.names:
            everyone = {name for names in (*self.names, operation.names) for name in names}
            raise Refused(
                dict.fromkeys(sorted(everyone), "the network takes other operations for other samples")
            )
        if position in self.axes:
            return [axis.resized(samples) for axis in self.axes[position]]
        found = candidate_axes(operation.output, self.activations[position], self.chosen, samples)
        if not found:
            few = f"{tuple(self.activations[position].shape)} for {len(self.chosen)}"
            sizes = f"{tuple(operation.output.shape)} for {samples} samples, {few}"
            reason = f"no dimension of a layer's output grows with the batch: {sizes}"
            raise Refused(dict.fromkeys(operation.names, reason))
        where = f"behind the layer with {', '.join(operation.names)}"
        require_small(found[0].difference, computed_in(operation.output), where)
        return self._keep(position, found)

    def narrow_down(self, position: int, gradient: Tensor, samples: int) -> list[SampleAxis]:
        """Those sample axes that also explain the gradient of the operation's output."""
        reference = self.gradients.get(position)
        if reference is None:
            return [axis.resized(samples) for axis in self.axes[position]]
        return self._keep(position, compared(self.axes[position], gradient, reference, self.chosen))

    def require_same_output(self, output: Tensor) -> None:
        """Raise a MeasurementError if the few samples have another output in the first sweep, or if it is not finite."""
        if self.known:  # whether it is finite is all that is left
            require_same(output.detach(), output.detach(), "in the output")
        if self.known or self.compared:
            return
        self.compared = True
        require_same(output.detach()[self.chosen.to(output.device)], self.output, "in the output")

    def _keep(self, position: int, found: list[AxisCandidate]) -> list[SampleAxis]:
        self.axes[position] = [each.axis for each in found]
        return self.axes[position]


def rehearsed_samples(samples: int, sizes: set[int], checked: bool) -> Tensor:
    """Positions of the few samples.

    Their number differs from that of every sweep. The check against plain autograd looks at both ends of the batch, so that
    one sample is enough with it.

    Args:
        samples: Samples of the first sweep.
        sizes: Samples of every sweep.
        checked: Whether there is that check.
    """
    return few_samples(samples, besides=sizes, at_least=1 if checked else 2)


def rehearse(network: Network, inputs: tuple[Tensor, ...], chosen: Tensor) -> Rehearsal:
    """Run the forward over a few samples.

    Args:
        network: What is measured.
        inputs: Inputs of the first sweep.
        chosen: Positions of the few samples among them.

    Raises:
        Refused: no rule serves some parameters.
    """
    few = tuple(tensor.index_select(0, chosen.to(tensor.device)) for tensor in inputs)
    names: list[list[str]] = []
    activations: list[ReferenceSlices] = []
    kept: list[Tensor] = []

    def note(operation: RecordedOperation) -> None:
        names.append(operation.names)
        activations.append(ReferenceSlices.of(operation.output))
        kept.extend(operation.operands)  # rules keep them, beside what autograd keeps

    passed = forward(network, few, note)
    if passed.refused:
        raise Refused(passed.refused)
    with network.looking():
        size = bytes_of([*kept, *passed.kept()], besides=network.module.parameters())
    return Rehearsal(few, chosen, names, activations, passed.output.detach(), size / len(chosen))


def rehearse_backward(
    rehearsal: Rehearsal, network: Network, directions: Directions, picked: Tensor, positions: set[int]
) -> None:
    """Add gradients to a rehearsal, by a forward and a backward over its few samples.

    Args:
        rehearsal: Where they are added.
        network: What is measured.
        directions: Its first probe is taken.
        picked: Positions of the first sweep's samples among all samples.
        positions: The operations whose sample axis is in question.
    """
    place = 0

    def keep(position: int, gradient: Tensor) -> None:
        rehearsal.gradients[position] = ReferenceSlices.of(gradient)

    def note(operation: RecordedOperation) -> None:
        nonlocal place
        if place in positions:
            rehearsal.gradients[place] = ReferenceSlices.of(torch.zeros_like(operation.output))
            operation.output.register_hook(partial(keep, place))
        place += 1

    passed = forward(network, rehearsal.inputs, note)
    cotangent = directions(passed.output.detach(), picked[rehearsal.chosen])[0].to(passed.output.dtype)
    if passed.ends:
        torch.autograd.grad(passed.output, passed.ends, cotangent, allow_unused=True)
