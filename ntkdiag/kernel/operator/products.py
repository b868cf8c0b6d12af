"""Ways to compute J u and Jᵀ v of a network on some of its samples, the cheapest first.

Forward mode, reverse mode and what is made of it call the module with other values in place of its parameters. Plain
autograd takes the module as it stands, one sample at a time: it is slow, and right where a block runs again in the backward
by code of the network's own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad, grad
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from ntkdiag.kernel.operator.network import Network, PlainGradient, Tangent

FORWARD, DOUBLE_BACKWARD, ROWS = "forward mode", "double backward", "row by row"
REVERSE = "reverse mode"
PLAIN = "plain autograd"

# (network, positions of m samples, u) → J u [m, *out]
Push = Callable[[Network, Tensor, Tangent], Tensor]
# (network, positions of m samples, v [m, *out]) → Jᵀ v
Pull = Callable[[Network, Tensor, Tensor], Tangent]


def _forward_mode(network: Network, part: Tensor, tangent: Tangent) -> Tensor:
    """J u by forward mode; fused attention has no such derivative, so the plain one is used inside this function."""
    with sdpa_kernel(SDPBackend.MATH), forward_ad.dual_level(), _PaddingIsConstant():
        pairs = zip(network.leaves.items(), tangent, strict=True)
        values = {name: forward_ad.make_dual(leaf.detach(), moved) for (name, leaf), moved in pairs}
        out = network.call(part, values)
        moved = forward_ad.unpack_dual(out).tangent
        return torch.zeros_like(out) if moved is None else moved.detach()


class _PaddingIsConstant(TorchFunctionMode):
    """The row of an embedding that stands for padding is constant, as it is to reverse mode; forward mode would move it."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        arguments = kwargs or {}
        if func not in _EMBEDDINGS:
            return func(*args, **arguments)
        weight_at, none = _EMBEDDINGS[func]
        weight = args[weight_at] if len(args) > weight_at else arguments["weight"]
        row: Any = args[2] if len(args) > 2 else arguments.get("padding_idx", none)
        primal, moved = forward_ad.unpack_dual(weight)
        if row == none or moved is None:
            return func(*args, **arguments)
        held = forward_ad.make_dual(
            primal, moved.index_fill(0, torch.tensor(int(row) % len(moved), device=moved.device), 0)
        )
        if len(args) > weight_at:
            return func(*args[:weight_at], held, *args[weight_at + 1 :], **arguments)
        return func(*args, **arguments | {"weight": held})


# Function → position of its weight, and the padding_idx that stands for none.
_EMBEDDINGS: dict[Callable[..., Any], tuple[int, int | None]] = {
    functional.embedding: (1, None),
    torch.embedding: (0, -1),
}


def _double_backward(network: Network, part: Tensor, tangent: Tangent) -> Tensor:
    """J u = ∂/∂w ⟨Jᵀ w, u⟩: Jᵀ w is linear in w, so any w will do (Townsend 2017)."""
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
        out = network.call(part, network.leaves)
        w = torch.zeros_like(out, requires_grad=True)
        if not out.requires_grad:
            return w.detach()
        pulled = _gradients([out], list(network.leaves.values()), [w], create_graph=True)
        pairs = [(p, u) for p, u in zip(pulled, tangent, strict=True) if p.requires_grad]
        if not pairs:
            return w.detach()
        product = _gradients([p for p, _ in pairs], [w], [u for _, u in pairs])[0]
    return product.detach()


def _row_by_row(network: Network, part: Tensor, tangent: Tangent) -> Tensor:
    """Every row of J in turn, times u."""
    out, leaves = network.call(part, network.leaves), list(network.leaves.values())
    if not out.requires_grad:
        return torch.zeros_like(out)
    products = []
    for one in out.flatten():
        row = _gradients([one], leaves, [torch.ones_like(one)], retain_graph=True)
        products.append(_inner(row, tangent))
    return torch.stack(products).reshape(out.shape).to(out.dtype)


def _plain_rows(network: Network, part: Tensor, tangent: Tangent) -> Tensor:
    """The same by plain autograd, a forward and a backward for each output of each sample."""
    with network.as_it_stands() as gradient:
        return torch.cat([_rows_of_one(network, gradient, position, tangent) for position in part.split(1)])


def _rows_of_one(network: Network, gradient: PlainGradient, position: Tensor, tangent: Tangent) -> Tensor:
    products: list[Tensor] = []

    def one_hot(output: Tensor) -> Tensor:
        chosen = torch.zeros_like(output).flatten()
        chosen[len(products)] = 1
        return chosen.reshape(output.shape)

    while True:
        output, found = gradient(position, one_hot)
        products.append(_inner(network.filled(found), tangent))
        if len(products) == output.numel():
            return torch.stack(products).reshape(output.shape).to(output.dtype)


def _reverse_mode(network: Network, part: Tensor, cotangent: Tensor) -> Tangent:
    """Jᵀ v by reverse mode; the graph of all samples is kept between calls."""
    out, leaves = network.graph(part), list(network.leaves.values())
    if not out.requires_grad:
        return tuple(torch.zeros_like(leaf) for leaf in leaves)
    return _gradients([out], leaves, [cotangent.to(out.dtype)], retain_graph=network.keeps(part))


def _plain_sum(network: Network, part: Tensor, cotangent: Tensor) -> Tangent:
    """Jᵀ v by plain autograd, a forward and a backward for each sample."""
    total = tuple(torch.zeros_like(leaf) for leaf in network.leaves.values())
    with network.as_it_stands() as gradient:
        for position, vector in zip(part.split(1), cotangent.split(1), strict=True):
            _, found = gradient(position, lambda output, vector=vector: vector)  # type: ignore[misc]
            total = tuple(a + b for a, b in zip(total, network.filled(found), strict=True))
    return total


def _gradients(
    outputs: list[Tensor], inputs: list[Tensor], vectors: list[Tensor], **options: bool
) -> Tangent:
    """Reverse mode, outside of the caller's autocast, which would round what is summed here."""
    with torch.autocast(outputs[0].device.type, enabled=False):
        return grad(outputs, inputs, vectors, materialize_grads=True, **options)


def _inner(row: Tangent, tangent: Tangent) -> Tensor:
    """⟨row, u⟩, summed in float32 at least."""
    wide = torch.promote_types(row[0].dtype, torch.float32)
    return (
        torch.stack([(g.to(wide) * u.to(wide)).sum() for g, u in zip(row, tangent, strict=True)])
        .sum()
        .detach()
    )


PUSHES: dict[str, Push] = {
    FORWARD: _forward_mode,
    DOUBLE_BACKWARD: _double_backward,
    ROWS: _row_by_row,
    PLAIN: _plain_rows,
}
PULLS: dict[str, Pull] = {REVERSE: _reverse_mode, PLAIN: _plain_sum}
# Methods for J u that differentiate the graph of reverse mode, and are wrong where it is.
OF_REVERSE = (DOUBLE_BACKWARD, ROWS)
