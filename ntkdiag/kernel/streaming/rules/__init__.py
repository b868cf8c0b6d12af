"""Rules: how the gradient of an operation's output becomes per-sample gradients of its parameters. One file a family.

A rule is its mathematics. For y = x Wᵀ + b the gradients of one sample are Σ_t g_t ⊗ x_t and Σ_t g_t, sums over the places
t (tokens, pixels) that share the parameters. Written down and registered, that is all of it:

    from torch.nn import functional
    from ntkdiag.kernel.streaming.rules import rule

    @rule("linear", [functional.linear])
    def linear(input, weight, bias=None):  # the operation's arguments, under torch's names
        return {
            "weight": lambda grad, input: torch.einsum("nto,nti->noi", grad, input),  # grad [N, T, O], input [N, T, I]
            "bias": lambda grad: grad.sum(1),
        }

The decorator is the only step, in this folder or in a file of your own; the coverage then shows the rule's name. `rule`
documents the shapes. `linear.py` has the rule above with the outer product left in factors, which is faster.
`general_rule` is for operations that broadcast their parameters or place them anywhere (sums, products, concatenation). A
network in `tests/cases.py` that uses the operation compares a new rule with autograd, one sample at a time.
"""

from ntkdiag.kernel.streaming.contraction.gradients import Compressed, Dense, Outer
from ntkdiag.kernel.streaming.refusal import Unsupported
from ntkdiag.kernel.streaming.rules import (  # noqa: F401  (imported for their registrations)
    convolution,
    elementwise,
    embedding,
    joining,
    linear,
    matrix_product,
    normalisation,
)
from ntkdiag.kernel.streaming.rules.general import RULES, general_rule
from ntkdiag.kernel.streaming.rules.rule import rule

__all__ = ["RULES", "Compressed", "Dense", "Outer", "Unsupported", "general_rule", "rule"]
