"""Rarefaction: how the effective rank grows with the number of samples.

The term is ecology's, where species counts are compared at equal effort. Where the curve still rises at N, the
effective rank is a lower bound; where it is flat, the rank has saturated.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from ntkdiag.errors import InputError, require_int, require_positive_int
from ntkdiag.randomness import stream_seed
from ntkdiag.spectra.dense.eigen import GramLike, gram_array
from ntkdiag.spectra.dense.named_statistics import statistic
from ntkdiag.spectra.uncertainty.left_out import Indices, on_subsets


def rarefaction(
    matrix: GramLike, sizes: Sequence[int] | None = None, *, draws: int = 50, seed: int = 0
) -> pd.DataFrame:
    """Entropy effective rank against n, over subsets of samples without replacement.

    Args:
        matrix: K, [N, N].
        sizes: Increasing n in 1 … N; 1, 2, 4, … and N by default.
        draws: Number of subsets of each size, at least 2.
        seed: Seed of the subsets; buckets with the same seed share them.

    Returns:
        Columns samples (n), effective_rank (mean over subsets), effective_rank_std (standard deviation over
        subsets, 0 at n = N; subsets overlap, so it is not a standard error).

    Raises:
        InputError: a bad matrix, sizes out of range or not increasing.

    Example:
        >>> table = nd.spectra.rarefaction(np.eye(8), sizes=[1, 4, 8])
        >>> table["effective_rank"].round(6).tolist()
        [1.0, 4.0, 8.0]
    """
    gram = gram_array(matrix)
    samples = len(gram)
    wanted = list(sizes) if sizes is not None else default_sizes(samples)
    if not wanted or any(low >= high for low, high in zip([0, *wanted], [*wanted, samples + 1], strict=True)):
        raise InputError("sizes", expected=f"increasing integers in 1 … {samples}", got=wanted)
    rows = []
    for size in wanted:
        require_positive_int("sizes", size)
        subsets = subsets_of_size(samples, size, draws, seed)
        ranks = on_subsets([statistic("effective_rank")], gram, None, subsets)["effective_rank"]
        rows.append((size, ranks.mean(), ranks.std(ddof=1) if size < samples else 0.0))
    return pd.DataFrame(rows, columns=["samples", "effective_rank", "effective_rank_std"])


def subsets_of_size(samples: int, size: int, draws: int, seed: int) -> Indices:
    """Random subsets without replacement of a given size ≤ samples: [draws, size], each row increasing.

    Raises:
        InputError: fewer than 2 draws.
    """
    require_int("draws", draws, at_least=2)
    order = np.random.default_rng(stream_seed(seed, "rarefaction")).random((draws, samples)).argsort(1)
    return np.sort(order[:, :size], 1)


def default_sizes(samples: int) -> list[int]:
    """1, 2, 4, … below N, and N."""
    return [2**power for power in range(samples.bit_length()) if 2**power < samples] + [samples]
