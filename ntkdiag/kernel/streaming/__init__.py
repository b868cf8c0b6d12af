"""The streaming engine: the NTK for the price of a training step.

rehearsal (a few samples: where the sample axis is) → sweep (one forward under the recorder, one backward for each probe) →
rules (per-sample gradients) → accumulate (sums over uses) → contraction (Gram matrix)

`sample_axis/` where the samples are in a tensor · `contraction/` forms of per-sample gradients and their products · `rules/`
one file for each family of operations · `recording/` the forward: which operations use which parameters
"""

from ntkdiag.kernel.streaming.engine import Streamed, gram_streaming

__all__ = ["Streamed", "gram_streaming"]
