"""Derived parameters: parameters, and tensors computed from parameters alone (views, casts, normalised or low-rank weights).

A rule takes per-sample gradients with respect to a derived parameter; `pull_back` turns them into those of the parameters.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge

from ntkdiag.kernel.streaming.contraction.broadcasting import summed
from ntkdiag.kernel.streaming.contraction.gradients import Dense, PerSampleGradient, as_dense
from ntkdiag.kernel.streaming.sample_axis.axis import SampleAxis


@dataclass(frozen=True)
class StridedView:
    """Which elements of one parameter a tensor shows, each at most once: inner products of gradients are then the same.

    Attributes:
        parameter: Its name.
        size, stride, offset: Of the tensor within the parameter's memory.
        in_order: The tensor shows the whole parameter, element after element.
    """

    parameter: str
    size: torch.Size
    stride: tuple[int, ...]
    offset: int
    in_order: bool


@dataclass(frozen=True)
class DerivedParameter:
    """A parameter, or a tensor computed from parameters.

    Attributes:
        tensor: With its autograd graph back to `leaves`; for a parameter the leaf itself.
        edge: Where that graph begins now: the tensor may be overwritten later.
        leaves: Parameter name → detached leaf that requires a gradient.
        view: Set where the tensor shows elements of one parameter unchanged.
        expanded_from: The derived parameter that this one repeats along dimensions of size one.
    """

    tensor: Tensor
    edge: GradientEdge
    leaves: dict[str, Tensor]
    view: StridedView | None = None
    expanded_from: DerivedParameter | None = None


def parameter_itself(name: str, leaf: Tensor) -> DerivedParameter:
    """A parameter, as the derived parameter that it trivially is."""
    view = StridedView(name, leaf.shape, leaf.stride(), 0, in_order=True)
    return DerivedParameter(leaf, get_gradient_edge(leaf), {name: leaf}, view)


def derived_parameter(
    tensor: Tensor, parents: list[DerivedParameter], *, copied: bool = False, expanded: bool = False
) -> DerivedParameter:
    """A tensor computed from `parents`.

    Args:
        tensor: The result, with its graph.
        parents: The derived parameters among the operation's arguments.
        copied: The operation copies its one parent element by element (a change of dtype, a clone).
        expanded: The operation repeats its one parent along dimensions.
    """
    plain = overwritten_parameter(tensor, parents)
    if len(parents) != 1:
        return plain
    if expanded and _broadcasts(parents[0].tensor.shape, tensor.shape):
        return replace(plain, expanded_from=parents[0])
    if copied:
        return replace(plain, view=parents[0].view, expanded_from=parents[0].expanded_from)
    return replace(plain, view=_view(tensor, plain.leaves))


def overwritten_parameter(tensor: Tensor, parents: list[DerivedParameter]) -> DerivedParameter:
    """A tensor into which something computed from `parents` was written."""
    leaves = {name: leaf for parent in parents for name, leaf in parent.leaves.items()}
    return DerivedParameter(tensor, get_gradient_edge(tensor), leaves)


def _broadcasts(shape: torch.Size, to: torch.Size) -> bool:
    pairs = zip(reversed(shape), reversed(to), strict=False)
    return len(shape) <= len(to) and all(size in (1, wide) for size, wide in pairs)


def _view(tensor: Tensor, leaves: dict[str, Tensor]) -> StridedView | None:
    """Set for a view of one leaf that shows none of its elements twice."""
    if len(leaves) != 1:
        return None
    name, leaf = next(iter(leaves.items()))
    shared = tensor.untyped_storage().data_ptr() == leaf.untyped_storage().data_ptr()
    if not shared or tensor.dtype != leaf.dtype or _overlaps(tensor) or _overlaps(leaf):
        return None
    offset = int(tensor.storage_offset() - leaf.storage_offset())
    same = tensor.shape == leaf.shape and tensor.stride() == leaf.stride()
    flat = tensor.numel() == leaf.numel() and tensor.is_contiguous() and leaf.is_contiguous()
    return StridedView(name, tensor.shape, tensor.stride(), offset, in_order=offset == 0 and (same or flat))


def _overlaps(tensor: Tensor) -> bool:
    """Whether two positions of the tensor may show the same element."""
    reach = 0
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size > 1:
            if stride <= reach:
                return True
            reach += stride * (size - 1)
    return False


def sum_over_copies(
    parameter: DerivedParameter, gradient: PerSampleGradient
) -> tuple[DerivedParameter, PerSampleGradient]:
    """The parameter before it was expanded, and its gradients: sums over the copies."""
    while parameter.expanded_from is not None:
        shape, original = parameter.tensor.shape, parameter.expanded_from
        gradient = summed(_shaped(as_dense(gradient), shape), shape, original.tensor.shape)
        parameter = original
    return parameter, gradient


def _shaped(dense: Dense, shape: torch.Size) -> Dense:
    """Rows [N, *shape]; rows that belong to one sample each have their shape already."""
    return dense if dense.own is not None else Dense(dense.rows.reshape(len(dense.rows), *shape))


def pull_back(parameter: DerivedParameter, gradient: PerSampleGradient) -> dict[str, Tensor]:
    """Per-sample gradients of the parameters behind a derived parameter.

    Args:
        parameter: Not expanded from another one; see `sum_over_copies`.
        gradient: Per-sample gradients of it.

    Returns:
        Name → [N, *shape of the parameter].
    """
    dense = _shaped(as_dense(gradient), parameter.tensor.shape)
    if dense.own is not None:
        return _through_graph_each(parameter, dense.rows, dense.own)
    if parameter.view is not None:
        return {parameter.view.parameter: _scatter(parameter, parameter.view, dense.rows)}
    return _through_graph(parameter, dense.rows)


def _scatter(parameter: DerivedParameter, view: StridedView, rows: Tensor) -> Tensor:
    """Rows of the elements shown, put where they are in the parameter; [N, *shape of the parameter]."""
    leaf, samples = parameter.leaves[view.parameter], rows.shape[0]
    if view.in_order:
        return rows.reshape(samples, *leaf.shape)
    reach = 1 + sum((size - 1) * stride for size, stride in zip(leaf.shape, leaf.stride(), strict=True))
    memory = rows.new_zeros(samples, reach)
    memory.as_strided((samples, *view.size), (reach, *view.stride), view.offset).copy_(rows)
    return memory.as_strided((samples, *leaf.shape), (reach, *leaf.stride()))


def _through_graph(parameter: DerivedParameter, rows: Tensor) -> dict[str, Tensor]:
    """vᵀ ∂tensor/∂leaf for every row v, by autograd, all rows at once where it can."""
    leaves = list(parameter.leaves.values())
    rows = rows.to(parameter.tensor.dtype)

    def pull(cotangent: Tensor, batched: bool) -> tuple[Tensor, ...]:
        return torch.autograd.grad(
            parameter.edge,
            leaves,
            cotangent,
            retain_graph=True,
            is_grads_batched=batched,
            materialize_grads=True,
        )

    try:
        found = pull(rows, batched=True)
    except RuntimeError:  # an operation without a batching rule: one sample at a time, the same result
        each = [pull(row, batched=False) for row in rows]
        found = tuple(torch.stack(parts) for parts in zip(*each, strict=True))
    return dict(zip(parameter.leaves, found, strict=True))


def _through_graph_each(parameter: DerivedParameter, rows: Tensor, own: SampleAxis) -> dict[str, Tensor]:
    """The same where each sample has rows of its own in the tensor: zero elsewhere, one sample at a time."""
    parts = []
    for i, row in enumerate(rows):
        cotangent = rows.new_zeros(parameter.tensor.shape)
        own.first(cotangent)[i].copy_(row)
        parts.append(_through_graph(parameter, cotangent.unsqueeze(0)))
    return {name: torch.cat([part[name] for part in parts]) for name in parameter.leaves}
