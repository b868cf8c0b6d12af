"""The forward over a few samples that goes before all sweeps: what it leaves tells where samples are in each activation.

The first sweep reads layouts off activations. Where these are alike under several readings (behind a layer of zeros, say), a
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
from ntkdiag.kernel.streaming.layouts.layout import Fingerprint, Reading, difference, plausible, read
from ntkdiag.kernel.streaming.recording.forward import Network, forward
from ntkdiag.kernel.streaming.recording.recorder import Meeting
from ntkdiag.kernel.streaming.refusal import Refused


@dataclass
class Trace:
    """What the forward over a few samples leaves behind.

    Attributes:
        inputs: Of the few samples.
        chosen: Which they are, as positions in the first sweep.
        names: Parameters of each meeting, in order.
        fingerprints: Of each meeting's output.
        output: The network's.
        bytes_per_sample: Kept for the backward, a sample.
        found: Position of a meeting → layouts that its output may have, read off in the first sweep.
        gradients: Position of a meeting → fingerprint of its output's gradient, for the first probe of the first sweep;
            taken only where activations leave more than one layout.
    """

    inputs: tuple[Tensor, ...]
    chosen: Tensor
    names: list[list[str]]
    fingerprints: list[Fingerprint]
    output: Tensor
    bytes_per_sample: float
    found: dict[int, list[Reading]] = field(default_factory=dict)
    gradients: dict[int, Fingerprint] = field(default_factory=dict)

    def readings(self, position: int, meeting: Meeting, samples: int) -> list[Reading]:
        """Layouts that the output of a meeting may have, the likeliest first.

        Raises:
            MeasurementError: samples are not independent.
            Refused: the samples are nowhere in it, or another meeting stood here.
        """
        if position >= len(self.names) or self.names[position] != meeting.names:
            everyone = {name for names in (*self.names, meeting.names) for name in names}
            raise Refused(
                dict.fromkeys(sorted(everyone), "the network takes other operations for other samples")
            )
        if position in self.found:
            return [Reading(each.layout.of(samples), each.difference) for each in self.found[position]]
        found = read(meeting.output, self.fingerprints[position], self.chosen, samples)
        if not found:
            sizes = f"{tuple(meeting.output.shape)} for {samples} samples, {tuple(self.fingerprints[position].shape)}"
            reason = f"no dimension of a layer's output grows with the batch: {sizes} for {len(self.chosen)}"
            raise Refused(dict.fromkeys(meeting.names, reason))
        where = f"behind the layer with {', '.join(meeting.names)}"
        require_small(found[0].difference, meeting.output.dtype, where)
        self.found[position] = found
        return found

    def settle(self, position: int, gradient: Tensor) -> list[Reading]:
        """Those layouts that also explain the gradient of a meeting's output."""
        found, few = self.found[position], self.gradients.get(position)
        if few is not None:
            again = [Reading(r.layout, difference(gradient, few, r.layout, self.chosen)) for r in found]
            self.found[position] = plausible(again, gradient.dtype)
        return self.found[position]

    def require_same_output(self, output: Tensor) -> None:
        """Raise a MeasurementError if the few samples' outputs were others among all samples."""
        require_same(output.detach()[self.chosen.to(output.device)], self.output, "in the output")


def trace(network: Network, inputs: tuple[Tensor, ...], chosen: Tensor) -> Trace:
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
    fingerprints: list[Fingerprint] = []
    kept: list[Tensor] = []

    def note(meeting: Meeting) -> None:
        names.append(meeting.names)
        fingerprints.append(Fingerprint.of(meeting.output))
        kept.extend(meeting.operands)  # by rules, beside what autograd keeps

    passed = forward(network, few, note)
    if passed.refused:
        raise Refused(passed.refused)
    size = _bytes([*kept, *passed.kept()], besides=network.module.parameters())
    return Trace(few, chosen, names, fingerprints, passed.output.detach(), size / len(chosen))


def trace_gradients(
    traced: Trace, network: Network, directions: Directions, picked: Tensor, positions: set[int]
) -> None:
    """Add fingerprints of gradients to a trace, from a forward and a backward over its few samples.

    Args:
        traced: Where they are added.
        network: What is measured.
        directions: Whose first probe is taken.
        picked: Positions among all samples of those of the first sweep.
        positions: The meetings that are in question.
    """
    place = 0

    def keep(position: int, gradient: Tensor) -> None:
        traced.gradients[position] = Fingerprint.of(gradient)

    def note(meeting: Meeting) -> None:
        nonlocal place
        if place in positions:
            traced.gradients[place] = Fingerprint.of(torch.zeros_like(meeting.output))
            meeting.output.register_hook(partial(keep, place))
        place += 1

    passed = forward(network, traced.inputs, note)
    cotangent = directions(passed.output.detach(), picked[traced.chosen])[0].to(passed.output.dtype)
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
