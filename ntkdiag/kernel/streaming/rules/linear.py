"""Linear layers."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from ntkdiag.kernel.streaming.contraction.gradients import Outer
from ntkdiag.kernel.streaming.refusal import Unsupported
from ntkdiag.kernel.streaming.rules.rule import Formula, rule


@rule("linear", [functional.linear])
def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> dict[str, Formula]:
    """y = x Wᵀ + b."""
    if weight.ndim != 2:
        raise Unsupported("a weight that is no matrix")
    return {"weight": lambda grad, input: Outer(grad, input), "bias": lambda grad: grad.sum(1)}
