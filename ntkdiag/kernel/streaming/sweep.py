"""One sweep: a forward over some samples under the recorder, then one backward a probe.

As a backward reaches the output of an operation in which parameters met the batch, their per-sample gradients are formed,
contracted and freed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ntkdiag.errors import MeasurementError
from ntkdiag.kernel.directions import Directions, checked_output
from ntkdiag.kernel.streaming.accumulate import Accumulator
from ntkdiag.kernel.streaming.layout import Fingerprint, Layout, find_layout
from ntkdiag.kernel.streaming.recorder import Recorder
from ntkdiag.kernel.streaming.registry import Unsupported, Use
from ntkdiag.kernel.streaming.sources import Source, parameter_source

# Largest relative difference of an activation between two batches that still counts as rounding; tuned here.
ROUNDING = {torch.float64: 1e-8, torch.float32: 1e-3, torch.bfloat16: 0.1, torch.float16: 0.02}


class Refused(Exception):
    """A rule found during the backward that it cannot serve a parameter; the sweep must be run without it."""

    def __init__(self, names: list[str], reason: str) -> None:
        super().__init__(reason)
        self.names, self.reason = names, reason


@dataclass
class Operation:
    """An operation in which parameters met the batch."""

    family: str
    uses: list[tuple[Source, Use]]
    layout: Layout | None = None


@dataclass
class Trace:
    """What the forward over a few samples leaves behind: fingerprints to read layouts by.

    Attributes:
        chosen: Samples it ran over, as positions in the first sweep.
        fingerprints: One an operation, in order.
        layouts: (dim, outer, inner) an operation, read off in the first sweep.
        output: The network's output.
        bytes_per_sample: Saved for backward, a sample.
    """

    chosen: Tensor
    fingerprints: list[Fingerprint] = field(default_factory=list)
    layouts: list[Layout] = field(default_factory=list)
    output: Tensor | None = None
    bytes_per_sample: float = 0.0


class _Tap(torch.autograd.Function):
    """Makes a tensor require a gradient in place, so that a hook on it fires; the anchor is the graph's only leaf."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, anchor: Tensor) -> Tensor:  # type: ignore[override]
        ctx.mark_dirty(tensor)
        return tensor

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, None]:
        return None, None


@dataclass(frozen=True)
class Network:
    """A module and the parameters its kernel is over, with those that other engines take care of left out."""

    module: nn.Module
    parameters: dict[str, nn.Parameter]

    def without(self, names: set[str]) -> Network:
        """The same with fewer parameters."""
        return Network(self.module, {name: p for name, p in self.parameters.items() if name not in names})

    def recorder(self, inputs: tuple[Tensor, ...], on_use: Callable[..., None]) -> Recorder:
        """A fresh recorder for one forward over `inputs`."""
        chosen: dict[int, Source] = {}
        keep = {id(parameter) for parameter in self.parameters.values()}
        for name, parameter in self.parameters.items():
            leaf = parameter.detach().requires_grad_()
            source = parameter_source(name, leaf)
            chosen[id(parameter)] = chosen[id(leaf)] = source
        frozen = {
            id(p): p.detach() for p in self.module.parameters() if id(p) not in keep and p.requires_grad
        }
        return Recorder(chosen, frozen, inputs, on_use)


def trace(network: Network, inputs: tuple[Tensor, ...], chosen: Tensor) -> tuple[Trace, dict[str, str]]:
    """A forward over a few samples.

    Args:
        network: What is measured.
        inputs: Of the first sweep.
        chosen: Which of its samples to take.

    Returns:
        The trace, and parameters that no rule serves with the reason.
    """
    few = tuple(tensor.index_select(0, chosen.to(tensor.device)) for tensor in inputs)
    found = Trace(chosen)
    storages: dict[int, int] = {}

    def weigh(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    def note(family: str, uses: list[tuple[Source, Use]], out: Tensor) -> None:
        found.fingerprints.append(Fingerprint.of(out))
        _require_gradient(out, anchor)

    anchor = torch.zeros((), requires_grad=True, device=few[0].device)
    recorder = network.recorder(few, note)
    with (
        torch.enable_grad(),
        torch.autograd.graph.saved_tensors_hooks(weigh, lambda tensor: tensor),
        recorder,
    ):
        out = checked_output(network.module(*few), len(chosen))
    found.output = out.detach()
    weights = {p.untyped_storage().data_ptr() for p in network.module.parameters()}
    saved = sum(size for pointer, size in storages.items() if pointer not in weights)
    found.bytes_per_sample = saved / len(chosen)
    return found, recorder.unsupported


def sweep(
    network: Network,
    inputs: tuple[Tensor, ...],
    picked: Tensor,
    directions: Directions,
    traced: Trace,
    group: Callable[[str], str],
    weights: dict[str, Tensor],
    coverage: dict[str, str],
) -> dict[str, Tensor]:
    """Gram matrices of some samples.

    Args:
        network: What is measured.
        inputs: Tensors [m, ...].
        picked: Positions of these samples among all, [m].
        directions: See `ntkdiag.kernel.directions`.
        traced: See `trace`; the first sweep completes its layouts.
        group: Parameter name → group label.
        weights: Diagonal preconditioner by parameter name.
        coverage: Parameter name → families of its uses; filled here.

    Returns:
        Group label → [R, m, m] float64.

    Raises:
        Refused: some parameters need another engine.
        MeasurementError: samples depend on each other.
    """
    operations: list[Operation] = []
    anchor = torch.zeros((), requires_grad=True, device=inputs[0].device)
    receive: list[Accumulator] = []

    def note(family: str, uses: list[tuple[Source, Use]], out: Tensor) -> None:
        operation = Operation(family, uses)
        operation.layout = _layout(traced, len(operations), out, inputs[0].shape[0], uses)
        operations.append(operation)
        _require_gradient(out, anchor)
        out.register_hook(partial(_on_gradient, operation, receive))

    recorder = network.recorder(inputs, note)
    with torch.enable_grad(), recorder:
        out = checked_output(network.module(*inputs), inputs[0].shape[0])
    if recorder.unsupported:
        reasons = recorder.unsupported
        raise Refused(list(reasons), next(iter(reasons.values())))
    for operation in operations:
        for source, _ in operation.uses:
            for name in source.leaves:
                coverage.setdefault(name, operation.family)
    cotangents = directions(out.detach(), picked)
    uses = Counter(name for op in operations for source, _ in op.uses for name in source.leaves)
    gathered = Accumulator(inputs[0].shape[0], cotangents.shape[0], uses, group, weights, out.device)
    receive.append(gathered)
    if out.requires_grad:
        _backward(out, anchor, cotangents, gathered, operations)
    return gathered.grams


def _backward(
    out: Tensor, anchor: Tensor, cotangents: Tensor, gathered: Accumulator, operations: list[Operation]
) -> None:
    probes = cotangents.shape[0]
    for probe in range(probes):
        gathered.start(probe)
        last = probe == probes - 1
        torch.autograd.grad(
            out, anchor, cotangents[probe].to(out.dtype), retain_graph=not last, allow_unused=True
        )
        gathered.finish()
    operations.clear()


def _on_gradient(operation: Operation, receive: list[Accumulator], gradient: Tensor) -> None:
    """Per-sample gradients of the parameters of one operation, at the moment its output's gradient is known."""
    assert operation.layout is not None  # set before the hook
    for source, use in operation.uses:
        try:
            form = use.form(gradient.detach(), operation.layout)
        except Unsupported as reason:
            raise Refused(list(source.leaves), f"{operation.family}: {reason}") from None
        receive[0].add(source, form)


def _require_gradient(out: Tensor, anchor: Tensor) -> None:
    if not out.requires_grad:
        _Tap.apply(out, anchor)


def _layout(
    traced: Trace, position: int, out: Tensor, samples: int, uses: list[tuple[Source, Use]]
) -> Layout:
    names = sorted({name for source, _ in uses for name in source.leaves})
    if position < len(traced.layouts):
        known = traced.layouts[position]
        return Layout(known.dim, known.outer, samples, known.inner)
    if position >= len(traced.fingerprints):
        raise MeasurementError(
            f"network: expected the same operations for every batch; a larger one took more (at {', '.join(names)})."
        )
    layout, difference = find_layout(out, traced.fingerprints[position], traced.chosen, samples)
    if layout is None:
        shapes = f"{tuple(out.shape)} for {samples} samples, {tuple(traced.fingerprints[position].shape)} for a few"
        raise Refused(names, f"no dimension of a layer's output grows with the batch: {shapes}")
    if not difference <= ROUNDING.get(out.dtype, 1e-3):
        raise MeasurementError(
            f"network: expected each sample's activations to be its own; at the layer with {', '.join(names)} "
            f"they differ by {difference:.1e} (relative) between two batches. "
            "Look for batch statistics, dropout, or randomness in the forward."
        )
    traced.layouts.append(layout)
    return layout
