"""The forward over a few samples that goes before all sweeps: what it leaves tells where samples are in each activation.

The first sweep reads layouts off activations. Where these are alike under several candidates
(behind a layer of zeros, say), a
backward over the few samples is run as well, and gradients tell.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from ntkdiag.kernel.directions import Directions
from ntkdiag.kernel.guards import require_same, require_small
from ntkdiag.kernel.streaming.recording.forward import Network, forward
from ntkdiag.kernel.streaming.recording.recorder import RecordedOperation
from ntkdiag.kernel.streaming.refusal import Refused
from ntkdiag.kernel.streaming.sample_axis.axis import (
    AxisCandidate,
    ReferenceSlices,
    difference,
    plausible,
    read,
)


@dataclass
class Rehearsal:
    """What the forward over a few samples leaves behind.

    Attributes:
        inputs: Of the few samples.
        chosen: Which they are, as positions in the first sweep.
        names: Parameters of each operation, in order.
        fingerprints: Of each operation's output.
        output: The network's.
        bytes_per_sample: Kept for the backward, a sample.
        found: Position of a operation → layouts that its output may have, read off in the first sweep.
        gradients: Position of a operation → fingerprint of its output's gradient, for the first probe of the first sweep;
            taken only where activations leave more than one axis.
    """

    inputs: tuple[Tensor, ...]
    chosen: Tensor
    names: list[list[str]]
    fingerprints: list[ReferenceSlices]
    output: Tensor
    bytes_per_sample: float
    found: dict[int, list[AxisCandidate]] = field(default_factory=dict)
    gradients: dict[int, ReferenceSlices] = field(default_factory=dict)

    def candidates(self, position: int, operation: RecordedOperation, samples: int) -> list[AxisCandidate]:
        """Layouts that the output of a operation may have, the likeliest first.

        Raises:
            MeasurementError: samples are not independent.
            Refused: the samples are nowhere in it, or another operation stood here.
        """
        if position >= len(self.names) or self.names[position] != operation.names:
            everyone = {name for names in (*self.names, operation.names) for name in names}
            raise Refused(
                dict.fromkeys(sorted(everyone), "the network takes other operations for other samples")
            )
        if position in self.found:
            return [AxisCandidate(each.axis.of(samples), each.difference) for each in self.found[position]]
        found = read(operation.output, self.fingerprints[position], self.chosen, samples)
        if not found:
            sizes = f"{tuple(operation.output.shape)} for {samples} samples, {tuple(self.fingerprints[position].shape)}"
            reason = f"no dimension of a layer's output grows with the batch: {sizes} for {len(self.chosen)}"
            raise Refused(dict.fromkeys(operation.names, reason))
        where = f"behind the layer with {', '.join(operation.names)}"
        require_small(found[0].difference, operation.output.dtype, where)
        self.found[position] = found
        return found

    def settle(self, position: int, gradient: Tensor) -> list[AxisCandidate]:
        """Those layouts that also explain the gradient of a operation's output."""
        found, few = self.found[position], self.gradients.get(position)
        if few is not None:
            again = [AxisCandidate(r.axis, difference(gradient, few, r.axis, self.chosen)) for r in found]
            self.found[position] = plausible(again, gradient.dtype)
        return self.found[position]

    def require_same_output(self, output: Tensor) -> None:
        """Raise a MeasurementError if the few samples' outputs were others among all samples."""
        require_same(output.detach()[self.chosen.to(output.device)], self.output, "in the output")


def rehearse(network: Network, inputs: tuple[Tensor, ...], chosen: Tensor) -> Rehearsal:
    """A forward over a few samples.

    Args:
        network: What is measured.
        inputs: Of the first sweep.
        chosen: Which of its samples to take.

    Raises:
        Refused: no rule serves some parameters.
    """
    few = tuple(tensor.index_select(0, chosen.to(tensor.device)) for tensor in inputs)
    names: list[list[str]] = []
    fingerprints: list[ReferenceSlices] = []
    kept: list[Tensor] = []

    def note(operation: RecordedOperation) -> None:
        names.append(operation.names)
        fingerprints.append(ReferenceSlices.of(operation.output))
        kept.extend(operation.operands)  # by rules, beside what autograd keeps

    passed = forward(network, few, note)
    if passed.refused:
        raise Refused(passed.refused)
    size = _bytes([*kept, *passed.kept()], besides=network.module.parameters())
    return Rehearsal(few, chosen, names, fingerprints, passed.output.detach(), size / len(chosen))


def rehearse_backward(
    rehearsal: Rehearsal, network: Network, directions: Directions, picked: Tensor, positions: set[int]
) -> None:
    """Add fingerprints of gradients to a rehearsal, from a forward and a backward over its few samples.

    Args:
        rehearsal: Where they are added.
        network: What is measured.
        directions: Whose first probe is taken.
        picked: Positions among all samples of those of the first sweep.
        positions: The meetings that are in question.
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


def _bytes(tensors: Iterable[Tensor], besides: Iterable[Tensor]) -> int:
    """Memory behind some tensors, each piece counted once, without that behind others."""
    others = {_memory(tensor)[0] for tensor in besides}
    return sum(size for place, size in dict(map(_memory, tensors)).items() if place not in others)


def _memory(tensor: Tensor) -> tuple[int, int]:
    """Where a tensor's memory is, and how much."""
    try:
        storage = tensor.untyped_storage()
        return storage.data_ptr(), storage.nbytes()
    except RuntimeError:  # sparse tensors and those of torch.func's transforms have no storage of their own
        return id(tensor), tensor.numel() * tensor.element_size()
