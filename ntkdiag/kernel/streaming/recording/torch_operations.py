"""Sets of torch operations that the recorder treats in a particular way: copies, expansions, operations in place, and those
that are decomposed into others.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ntkdiag.kernel.streaming.recording.attention import multi_head_attention, scaled_dot_product_attention

Operation = Callable[..., Any]

# The result equals the argument, element by element.
COPIES: set[Operation] = {
    Tensor.to, Tensor.float, Tensor.double, Tensor.half, Tensor.bfloat16, Tensor.type, Tensor.type_as,
    Tensor.clone, torch.clone, Tensor.contiguous, Tensor.cpu, Tensor.cuda,
}  # fmt: skip

# The result repeats the argument along dimensions; where these have size one, it is a broadcast.
EXPANSIONS: set[Operation] = {
    Tensor.expand, Tensor.expand_as, Tensor.broadcast_to, torch.broadcast_to, Tensor.repeat, Tensor.tile, torch.tile,
    Tensor.repeat_interleave, torch.repeat_interleave,
}  # fmt: skip

# Of the arguments after the first, only shape, dtype or device matter, not the values.
SHAPE_FROM_OTHERS: set[Operation] = {
    Tensor.to, Tensor.type, Tensor.type_as, Tensor.expand_as, Tensor.view_as, Tensor.reshape_as
}  # fmt: skip

# The same for all arguments.
SHAPE_FROM_ALL: set[Operation] = {
    Tensor.new_zeros, Tensor.new_ones, Tensor.new_full, Tensor.new_tensor, torch.zeros_like, torch.ones_like, torch.full_like
}  # fmt: skip

# Operations that write rows at places given by data: where the rows of the result are depends on the target alone.
SCATTERS: set[Operation] = {
    Tensor.__setitem__, Tensor.index_put_, Tensor.index_put, torch.index_put, Tensor.index_add_, Tensor.index_add,
    torch.index_add, Tensor.index_copy_, Tensor.index_copy, torch.index_copy, Tensor.scatter_, Tensor.scatter, torch.scatter,
    Tensor.scatter_add_, Tensor.scatter_add, torch.scatter_add, Tensor.masked_scatter_, Tensor.masked_scatter,
}  # fmt: skip

_SELECTIONS: set[Operation] = {
    torch.nonzero, Tensor.nonzero, torch.argwhere, Tensor.argwhere, torch.masked_select, Tensor.masked_select, torch.take,
    Tensor.take, torch.unique, Tensor.unique,
}  # fmt: skip
_LOOKUPS: set[Operation] = {Tensor.__getitem__, torch.index_select, Tensor.index_select}


def selects_rows_by_data(operation: Operation, from_batch: list[bool]) -> bool:
    """Whether data decides which rows the result has, and in what order (as where experts select tokens).

    Args:
        operation: Any operation.
        from_batch: For each of its tensor arguments, whether it depends on the inputs.
    """
    return operation in _SELECTIONS or (
        operation in _LOOKUPS and len(from_batch) > 1 and from_batch[0] and any(from_batch[1:])
    )


# In-place operation → the one that computes the same values without writing into its first argument.
IN_PLACE: dict[Operation, Operation] = {
    Tensor.add_: torch.add, Tensor.sub_: torch.sub, Tensor.mul_: torch.mul, Tensor.div_: torch.div,
    Tensor.__iadd__: torch.add, Tensor.__isub__: torch.sub, Tensor.__imul__: torch.mul, Tensor.__itruediv__: torch.div,
    Tensor.addcmul_: torch.addcmul, Tensor.addcdiv_: torch.addcdiv, Tensor.lerp_: torch.lerp, Tensor.pow_: torch.pow,
    Tensor.clamp_: torch.clamp, Tensor.masked_fill_: torch.masked_fill, Tensor.addmm_: torch.addmm,
    Tensor.baddbmm_: torch.baddbmm, torch.clamp_: torch.clamp,
}  # fmt: skip

_DUNDERS = {
    "__setitem__",
    "__iadd__",
    "__isub__",
    "__imul__",
    "__itruediv__",
    "__idiv__",
    "__ipow__",
    "__imatmul__",
}


def writes_into_first(operation: Operation) -> bool:
    """Whether an operation changes its first argument."""
    name = getattr(operation, "__name__", "")
    return name in _DUNDERS or (name.endswith("_") and not name.endswith("__"))


def _outer(a: Tensor, b: Tensor) -> Tensor:
    return a[:, None] * b


def _masked_fill(x: Tensor, mask: Tensor, value: Tensor) -> Tensor:
    return torch.where(mask, value, x)


# Operation → the same in terms of operations that have rules; it runs under the recorder.
DECOMPOSITIONS: dict[Operation, Operation] = {
    functional.multi_head_attention_forward: multi_head_attention,
    functional.scaled_dot_product_attention: scaled_dot_product_attention,
    torch.outer: _outer, torch.ger: _outer, Tensor.outer: _outer, Tensor.ger: _outer,
    torch.masked_fill: _masked_fill, Tensor.masked_fill: _masked_fill,
}  # fmt: skip
