"""Random streams: one seed serves many draws, each from a stream of its own name.

Two generators of the same plain seed would draw the same numbers, and estimates that must be independent would not be.
"""

from __future__ import annotations

import numpy as np
import torch

from ntkdiag.errors import require_int


def stream_seed(seed: int, stream: str | int) -> int:
    """A seed for one stream, by numpy's `SeedSequence`.

    Args:
        seed: The user's seed, at least 0.
        stream: Name or number of the stream; equal seeds with different streams give unrelated numbers.

    Raises:
        InputError: a seed that is no integer, or negative.

    Example:
        >>> stream_seed(0, "probes") == stream_seed(0, "noise")
        False
    """
    require_int("seed", seed, at_least=0)
    key = stream if isinstance(stream, int) else int.from_bytes(stream.encode())
    return int(np.random.SeedSequence([int(seed), key]).generate_state(1, np.uint64)[0])


def generator(seed: int, stream: str | int) -> torch.Generator:
    """A torch generator on the CPU for one stream; see `stream_seed`."""
    return torch.Generator().manual_seed(stream_seed(seed, stream))
