"""A layer rule of your own: torch.nn.Bilinear, measured by the streaming engine instead of the slow exact one.

Import this file before measuring; the decorator is the only step. `python docs/extend/layer_rule.py` shows the effect.
"""

import torch
from torch.nn import functional

import ntkdiag as nd
from ntkdiag.kernel.streaming.rules import rule


# y_o = x₁ᵀ W_o x₂ + b_o. The function takes the operation's arguments under torch's names, and returns a formula for each
# argument that may be a parameter. A formula takes the gradient of the output, and those arguments that it names:
#   grad [N, T, O], input1 [N, T, I], input2 [N, T, J], for N samples and T places (tokens, say) that share the weight.
# It returns the gradient of each sample: [N, *shape of the argument].
@rule("bilinear", [functional.bilinear])
def bilinear(input1, input2, weight, bias=None):
    return {
        "weight": lambda grad, input1, input2: torch.einsum("nto,nti,ntj->noij", grad, input1, input2),
        "bias": lambda grad: grad.sum(1),
    }


class Pair(torch.nn.Module):
    """A network with the operation in it: every token is compared with itself."""

    def __init__(self):
        super().__init__()
        self.hidden, self.pair = torch.nn.Linear(3, 4), torch.nn.Bilinear(4, 4, 2)

    def forward(self, x):
        h = self.hidden(x).tanh()
        return self.pair(h, h)


if __name__ == "__main__":
    gram = nd.gram_of(Pair(), (torch.randn(5, 6, 3),), torch.randn(1, 6, 2), engine="streaming")
    print(f"The kernel of 5 samples, through the rule:\n{gram[0]}")
