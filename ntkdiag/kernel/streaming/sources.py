"""Sources: parameters, and tensors computed from parameters alone (views, casts, normalised or low-rank weights).

A source is where a per-sample gradient is taken; `to_parameters` pulls it back to the parameters behind it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ntkdiag.kernel.streaming.forms import Dense, Form, Outer, RowLayout


@dataclass(frozen=True)
class Geometry:
    """Which elements of a parameter a source shows, each once: inner products are preserved by the pull-back."""

    parameter: str
    size: torch.Size
    stride: tuple[int, ...]
    offset: int

    @property
    def whole(self) -> bool:
        """Whether every element of a contiguous parameter is shown, in order."""
        return self.offset == 0 and self.stride == _contiguous(self.size)


@dataclass(frozen=True)
class Source:
    """A parameter, or a tensor derived from parameters.

    Attributes:
        tensor: With its graph back to `leaves`; for a parameter the leaf itself.
        leaves: Parameter name → detached leaf that requires a gradient.
        geometry: Set where the source merely shows elements of one parameter.
    """

    tensor: Tensor
    leaves: dict[str, Tensor]
    geometry: Geometry | None


def parameter_source(name: str, leaf: Tensor) -> Source:
    """The source of a parameter itself."""
    return Source(leaf, {name: leaf}, Geometry(name, leaf.shape, leaf.stride(), 0))


def derived_source(tensor: Tensor, parents: list[Source], cast: bool) -> Source:
    """The source of a tensor computed from `parents`.

    Args:
        tensor: The result, with its graph.
        parents: The sources among the operation's arguments.
        cast: The operation copies its one parent elementwise (a change of dtype, a clone).
    """
    leaves = {name: leaf for parent in parents for name, leaf in parent.leaves.items()}
    return Source(tensor, leaves, _geometry(tensor, parents, leaves, cast))


def _geometry(
    tensor: Tensor, parents: list[Source], leaves: dict[str, Tensor], cast: bool
) -> Geometry | None:
    if len(leaves) != 1 or len(parents) != 1:
        return None
    (name, leaf), parent = next(iter(leaves.items())), parents[0]
    if cast and parent.geometry is not None and parent.tensor.shape == tensor.shape:
        return parent.geometry
    shared = tensor.untyped_storage().data_ptr() == leaf.untyped_storage().data_ptr()
    if not shared or tensor.dtype != leaf.dtype or _overlaps(tensor):
        return None
    return Geometry(name, tensor.shape, tensor.stride(), tensor.storage_offset() - leaf.storage_offset())


def _overlaps(tensor: Tensor) -> bool:
    """Whether two positions of the tensor may show the same element."""
    reach = 0
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size > 1:
            if stride <= reach:
                return True
            reach += stride * (size - 1)
    return False


def _contiguous(size: torch.Size) -> tuple[int, ...]:
    strides, step = [], 1
    for length in reversed(size):
        strides.append(step)
        step *= max(1, length)
    return tuple(reversed(strides))


def to_parameters(source: Source, form: Form) -> dict[str, Tensor]:
    """Per-sample gradients of the parameters behind a source.

    Args:
        source: Where the gradient was taken.
        form: Per-sample gradients of it.

    Returns:
        Name → [N, *shape of the parameter].
    """
    dense = form.dense() if isinstance(form, Outer) else form
    if not isinstance(dense, Dense):
        rows = dense.rows.new_zeros(dense.rows.shape[0], source.tensor.numel())
        rows[:, dense.index] = dense.rows
        dense = Dense(rows)
    if dense.rowwise is not None:
        return _pull_back_rows(source, dense.rows, dense.rowwise)
    rows = dense.rows.reshape(dense.rows.shape[0], *source.tensor.shape)
    if source.geometry is not None:
        return {source.geometry.parameter: _scatter(source, source.geometry, rows)}
    return _pull_back(source.tensor, source.leaves, rows)


def _scatter(source: Source, geometry: Geometry, rows: Tensor) -> Tensor:
    leaf = source.leaves[geometry.parameter]
    samples = rows.shape[0]
    if geometry.whole and geometry.size == leaf.shape:
        return rows
    full = rows.new_zeros(samples, *leaf.shape)
    flat = full.reshape(samples, -1)
    view = flat.as_strided(
        (samples, *geometry.size), (flat.stride(0), *geometry.stride), flat.storage_offset() + geometry.offset
    )
    view.copy_(rows)
    return full


def _pull_back(tensor: Tensor, leaves: dict[str, Tensor], rows: Tensor) -> dict[str, Tensor]:
    """vᵀ ∂tensor/∂leaf for every row v, batched where autograd can."""
    names, values = list(leaves), list(leaves.values())
    rows = rows.to(tensor.dtype)
    try:
        found = torch.autograd.grad(
            tensor, values, rows, retain_graph=True, allow_unused=True, is_grads_batched=True
        )
    except RuntimeError:  # an operation without a batching rule: one sample at a time, the same result
        each = [
            torch.autograd.grad(tensor, values, row, retain_graph=True, allow_unused=True) for row in rows
        ]
        found = tuple(None if parts[0] is None else torch.stack(parts) for parts in zip(*each, strict=True))
    zeros = (value.new_zeros(rows.shape[0], *value.shape) for value in values)
    return {
        name: zero if gradient is None else gradient
        for name, gradient, zero in zip(names, found, zeros, strict=True)
    }


def _pull_back_rows(source: Source, rows: Tensor, layout: RowLayout) -> dict[str, Tensor]:
    """The pull-back where each sample has rows of its own in the source."""
    tensor = source.tensor
    if layout.outer == 1 and layout.inner == 1 and tensor.stride(layout.dim) == 0:
        # an expanded source: all its rows are one, so the gradient of that one is pulled back
        return _pull_back(
            tensor.select(layout.dim, 0),
            source.leaves,
            rows.reshape(rows.shape[0], *_without(tensor, layout.dim)),
        )
    parts: list[dict[str, Tensor]] = []
    for i in range(layout.samples):
        cotangent = rows.new_zeros(tensor.shape)
        cotangent.unflatten(layout.dim, (layout.outer, layout.samples, layout.inner)).select(
            layout.dim + 1, i
        ).copy_(rows[i].reshape(*_split(tensor, layout)))
        parts.append(_pull_back(tensor, source.leaves, cotangent.unsqueeze(0)))
    return {name: torch.cat([part[name] for part in parts]) for name in source.leaves}


def _without(tensor: Tensor, dim: int) -> list[int]:
    return [size for d, size in enumerate(tensor.shape) if d != dim]


def _split(tensor: Tensor, layout: RowLayout) -> list[int]:
    shape = list(tensor.shape)
    return [*shape[: layout.dim], layout.outer, layout.inner, *shape[layout.dim + 1 :]]
