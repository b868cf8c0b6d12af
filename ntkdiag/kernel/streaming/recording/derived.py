"""Sources: parameters, and tensors computed from parameters alone (views, casts, normalised or low-rank weights).

A source is where a per-sample gradient is taken; `pull_back` pulls it back to the parameters behind it.
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
    """Which elements of one parameter a source shows, each once: the pull-back keeps inner products.

    Attributes:
        parameter: Its name.
        size, stride, offset: Of the source within the parameter's memory.
        in_order: The source shows the whole parameter, element after element.
    """

    parameter: str
    size: torch.Size
    stride: tuple[int, ...]
    offset: int
    in_order: bool


@dataclass(frozen=True)
class DerivedParameter:
    """A parameter, or a tensor derived from parameters.

    Attributes:
        tensor: With its graph back to `leaves`; for a parameter the leaf itself.
        edge: Where that graph begins, as the tensor is now: it may be written into later.
        leaves: Parameter name → detached leaf that requires a gradient.
        geometry: Set where the source merely shows elements of one parameter.
        spread: The source that this one repeats along dimensions where that has size one.
    """

    tensor: Tensor
    edge: GradientEdge
    leaves: dict[str, Tensor]
    geometry: StridedView | None = None
    spread: DerivedParameter | None = None


def parameter_itself(name: str, leaf: Tensor) -> DerivedParameter:
    """The source of a parameter itself."""
    return DerivedParameter(
        leaf,
        get_gradient_edge(leaf),
        {name: leaf},
        StridedView(name, leaf.shape, leaf.stride(), 0, in_order=True),
    )


def derived_parameter(
    tensor: Tensor, parents: list[DerivedParameter], *, copied: bool = False, spread: bool = False
) -> DerivedParameter:
    """The source of a tensor computed from `parents`.

    Args:
        tensor: The result, with its graph.
        parents: The sources among the operation's arguments.
        copied: The operation copies its one parent elementwise (a change of dtype, a clone).
        spread: The operation repeats its one parent along dimensions.
    """
    leaves = {name: leaf for parent in parents for name, leaf in parent.leaves.items()}
    plain = DerivedParameter(tensor, get_gradient_edge(tensor), leaves)
    if len(parents) != 1:
        return plain
    if spread and _broadcasts(parents[0].tensor.shape, tensor.shape):
        return replace(plain, spread=parents[0])
    if copied:
        return replace(plain, geometry=parents[0].geometry, spread=parents[0].spread)
    return replace(plain, geometry=_geometry(tensor, leaves))


def overwritten_parameter(tensor: Tensor, parents: list[DerivedParameter]) -> DerivedParameter:
    """The source of a tensor that something computed from `parents` was written into."""
    leaves = {name: leaf for parent in parents for name, leaf in parent.leaves.items()}
    return DerivedParameter(tensor, get_gradient_edge(tensor), leaves)


def _broadcasts(shape: torch.Size, to: torch.Size) -> bool:
    pairs = zip(reversed(shape), reversed(to), strict=False)
    return len(shape) <= len(to) and all(size in (1, wide) for size, wide in pairs)


def _geometry(tensor: Tensor, leaves: dict[str, Tensor]) -> StridedView | None:
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


def gathered(source: DerivedParameter, form: PerSampleGradient) -> tuple[DerivedParameter, PerSampleGradient]:
    """The source that was spread, and the gradients summed over where it was spread to."""
    while source.spread is not None:
        shape, parent = source.tensor.shape, source.spread
        form = summed(shaped(as_dense(form), shape), shape, parent.tensor.shape)
        source = parent
    return source, form


def shaped(dense: Dense, shape: torch.Size) -> Dense:
    """Rows [N, *shape]; rows that samples have for themselves are shaped already."""
    return dense if dense.own is not None else Dense(dense.rows.reshape(len(dense.rows), *shape))


def pull_back(source: DerivedParameter, form: PerSampleGradient) -> dict[str, Tensor]:
    """Per-sample gradients of the parameters behind a source.

    Args:
        source: Where the gradient was taken.
        form: Per-sample gradients of it.

    Returns:
        Name → [N, *shape of the parameter].
    """
    source, form = gathered(source, form)
    dense = shaped(as_dense(form), source.tensor.shape)
    if dense.own is not None:
        return _pull_back_own(source, dense.rows, dense.own)
    if source.geometry is not None:
        return {source.geometry.parameter: _scatter(source, source.geometry, dense.rows)}
    return _pull_back(source, dense.rows)


def _scatter(source: DerivedParameter, geometry: StridedView, rows: Tensor) -> Tensor:
    """Rows of the elements shown, put where they are in the parameter; [N, *shape of the parameter]."""
    leaf, samples = source.leaves[geometry.parameter], rows.shape[0]
    if geometry.in_order:
        return rows.reshape(samples, *leaf.shape)
    reach = 1 + sum((size - 1) * stride for size, stride in zip(leaf.shape, leaf.stride(), strict=True))
    memory = rows.new_zeros(samples, reach)
    memory.as_strided((samples, *geometry.size), (reach, *geometry.stride), geometry.offset).copy_(rows)
    return memory.as_strided((samples, *leaf.shape), (reach, *leaf.stride()))


def _pull_back(source: DerivedParameter, rows: Tensor) -> dict[str, Tensor]:
    """vᵀ ∂source/∂leaf for every row v, batched where autograd can."""
    leaves = list(source.leaves.values())
    rows = rows.to(source.tensor.dtype)

    def pull(cotangent: Tensor, batched: bool) -> tuple[Tensor, ...]:
        return torch.autograd.grad(
            source.edge,
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
    return dict(zip(source.leaves, found, strict=True))


def _pull_back_own(source: DerivedParameter, rows: Tensor, own: SampleAxis) -> dict[str, Tensor]:
    """The pull-back where each sample has rows of its own in the source: zero elsewhere, a sample at a time."""
    parts = []
    for i, row in enumerate(rows):
        cotangent = rows.new_zeros(source.tensor.shape)
        own.first(cotangent)[i].copy_(row)
        parts.append(_pull_back(source, cotangent.unsqueeze(0)))
    return {name: torch.cat([part[name] for part in parts]) for name in source.leaves}
