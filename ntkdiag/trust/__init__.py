"""How far to trust a kernel: what it says of real training steps, how it changes along a run, and what the network does.

`linearization` compares a frozen kernel with real optimizer steps, `drift` the kernels along a training run.
`features` says what the activations do at every noise level, `outputs` what the predictions keep of the data's structure.
`examine` does all four for a training run.
"""

from ntkdiag.errors import explain_calls
from ntkdiag.trust.along_training import Drift, drift
from ntkdiag.trust.examination import Examination, examine
from ntkdiag.trust.features import Features, features
from ntkdiag.trust.linearity import Linearity, linearization
from ntkdiag.trust.outputs_structure import Outputs, outputs

__all__ = [
    "Drift",
    "Examination",
    "Features",
    "Linearity",
    "Outputs",
    "drift",
    "examine",
    "features",
    "linearization",
    "outputs",
]

explain_calls(__name__, "nd.trust.linearization(denoiser, data, optimizer)")
