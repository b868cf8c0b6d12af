"""How far to trust a kernel: what it says of real training steps, how it changes along a run, and what the network does.

`linearization` compares a frozen kernel with real optimizer steps.
"""

from ntkdiag.errors import explain_calls
from ntkdiag.trust.linearity import Linearity, linearization

__all__ = ["Linearity", "linearization"]

explain_calls(__name__, "nd.trust.linearization(denoiser, data, optimizer)")
