"""The networks that all engines must agree on; together they use every rule and every known difficulty.

`CASES[name](seed, samples, dtype)` returns (module, inputs); a file a family lies in `networks`.
"""

from __future__ import annotations

from networks import (  # noqa: F401  (imported for the cases they register)
    algebra,
    attention,
    control,
    convolution,
    derived,
    elementwise,
    linear,
    normalisation,
    peers,
    recomputed,
    tables,
    tied,
    tokens,
)
from networks.case import CASES, Case

__all__ = ["CASES", "Case"]
