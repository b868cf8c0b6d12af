"""The streaming engine: the NTK for the price of a training step.

recorder → sweep (one forward, a backward a probe) → rules → forms → contraction → accumulate
"""

from ntkdiag.kernel.streaming.engine import Streamed, gram_streaming

__all__ = ["Streamed", "gram_streaming"]
