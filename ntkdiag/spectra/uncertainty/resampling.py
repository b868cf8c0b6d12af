"""Statistics of a Gram matrix on subsets of its samples, without replacement, and with single probes left out.

A bootstrap repeats rows of the Gram and so imitates a loss of rank; subsets do not. All buckets share their
subsets, so that differences and trends are formed within pairs before their spread is taken.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ntkdiag.errors import InputError, require_int, require_number
from ntkdiag.spectra.dense.eigen import Array, GramLike, gram_array
from ntkdiag.spectra.dense.named_statistics import Statistic, evaluate_all, statistic
from ntkdiag.spectra.dense.pairs import checked_noise, pair_products, pair_sums

Indices = NDArray[np.intp]

# Tuned in analysis/coverage. A rank cannot exceed n, so on small subsets it varies less than at N and its interval
# is too short (n = N/2 covers 78 to 95%, 0.9 N covers 87 to 96%).
FRACTION = 0.9
# The Monte-Carlo error of a standard error is about 1/√(2·draws), here 3.5%.
DRAWS = 400
_ENTRIES_AT_ONCE = 2**23  # of sub-Grams in memory: 64 MiB


@dataclass(frozen=True, eq=False)
class Replicates:
    """A statistic and its resampled values.

    Attributes:
        value: The statistic on all samples and probes.
        draws: Its value on each subset of samples, [S].
        probe_draws: Its value on all samples with one probe left out, [R]; None where probes stay fixed.
    """

    value: float
    draws: Array
    probe_draws: Array | None = None


def paired_subsets(samples: int, draws: int = DRAWS, fraction: float = FRACTION, seed: int = 0) -> Indices:
    """Index sets without replacement that all buckets share.

    Args:
        samples: N ≥ 3.
        draws: Number of subsets S ≥ 2.
        fraction: n/N in (0, 1); n is rounded and kept within 2 … N − 1.
        seed: The same arguments give the same subsets.

    Returns:
        [S, n], each row increasing.

    Raises:
        InputError: an argument out of range.
    """
    require_int("samples", samples, at_least=3)
    require_number("fraction", fraction, above=0, below=1)
    return subsets_of_size(samples, min(max(round(fraction * samples), 2), samples - 1), draws, seed)


def subsets_of_size(samples: int, size: int, draws: int, seed: int) -> Indices:
    """Random subsets of a given size ≤ samples: [draws, size], each row increasing.

    Raises:
        InputError: fewer than 2 draws.
    """
    require_int("draws", draws, at_least=2)
    order = np.random.default_rng(seed).random((draws, samples)).argsort(1)
    return np.sort(order[:, :size], 1)


def resample(
    names: Iterable[str | Statistic],
    matrix: GramLike,
    subsets: Indices,
    *,
    stderr: GramLike | None = None,
    per_probe: GramLike | None = None,
    vary_probes: bool = True,
) -> dict[str, Replicates]:
    """Several statistics of one Gram on the same subsets; eigenvalues are shared between them.

    Args:
        names: Registered names (`STATISTICS`) or `Statistic` objects.
        matrix: K, [N, N].
        subsets: Sample indices, [S, n].
        stderr: Standard error of entries over probes, [N, N]: corrects the pair statistic.
        per_probe: Grams of R probes, [R, N, N], of mean `matrix`: corrects the pair statistic.
        vary_probes: With `per_probe`, also evaluate with each probe left out; needs R ≥ 3.

    Returns:
        name → Replicates.

    Raises:
        InputError: bad matrices, subsets that do not index them, unknown names, too few probes.
    """
    chosen = [statistic(name) for name in names]
    gram, errors, probes = checked_noise(matrix, stderr, per_probe)
    _check_subsets(subsets, len(gram))
    products = pair_products(gram, errors, probes) if _reads_pairs(chosen) else None
    full = evaluate_all(chosen, gram, None if products is None else pair_sums(products))
    draws = _on_subsets(chosen, gram, products, subsets)
    left_out = _without_each_probe(chosen, probes) if probes is not None and vary_probes else {}
    return {
        one.name: Replicates(float(full[one.name]), draws[one.name], left_out.get(one.name)) for one in chosen
    }


def resample_buckets(
    name: str | Statistic,
    matrices: GramLike,
    subsets: Indices,
    *,
    per_probe: GramLike | None = None,
    vary_probes: bool = True,
) -> list[Replicates]:
    """`resample` of one statistic for each bucket, on the same subsets.

    Args:
        name: Registered name or statistic.
        matrices: One Gram a bucket, of the same samples in the same order, [B, N, N].
        subsets: From `paired_subsets`, [S, n].
        per_probe: [B, R, N, N], to correct the pair statistic.
        vary_probes: As in `resample`.

    Raises:
        InputError: bad matrices or an unknown name.
    """
    chosen = statistic(name)
    grams = gram_array(matrices, "matrices", leading=("B",))
    probes = [None] * len(grams) if per_probe is None else list(per_probe)
    if len(probes) != len(grams):
        raise InputError("per_probe", expected=f"one entry for each of {len(grams)} buckets", got=len(probes))
    return [
        resample([chosen], gram, subsets, per_probe=bucket, vary_probes=vary_probes)[chosen.name]
        for gram, bucket in zip(grams, probes, strict=True)
    ]


def _check_subsets(subsets: Indices, samples: int) -> None:
    shaped = subsets.ndim == 2 and subsets.size > 0
    if (
        not shaped
        or subsets.min() < 0
        or subsets.max() >= samples
        or (np.diff(np.sort(subsets, 1)) == 0).any()
    ):
        raise InputError(
            "subsets",
            expected=f"rows of distinct indices below {samples}, shape [S, n]",
            got=f"shape {list(subsets.shape)}" + (", repeated or out of range" if shaped else ""),
        )


def _reads_pairs(chosen: list[Statistic]) -> bool:
    return any(one.reads == "pair_sums" for one in chosen)


def _on_subsets(
    chosen: list[Statistic], gram: Array, products: Array | None, subsets: Indices
) -> dict[str, Array]:
    """[N, N] and its pair products [2, N, N] on subsets [S, n] → name → [S], in pieces that fit memory."""
    sums = np.full((len(subsets), 2), np.nan)
    if products is not None and subsets.shape[1] > 1:
        members = np.zeros((len(subsets), len(gram)))
        np.put_along_axis(members, subsets, 1.0, 1)
        sums = ((members @ products) * members).sum(-1).T  # [S, 2], without gathering sub-matrices
    pieces = min(-(-subsets.size * subsets.shape[1] // _ENTRIES_AT_ONCE), len(subsets))
    parts = []
    for some, its_sums in zip(np.array_split(subsets, pieces), np.array_split(sums, pieces), strict=True):
        parts.append(evaluate_all(chosen, gram[some[:, :, None], some[:, None, :]], its_sums))
    return {one.name: np.concatenate([part[one.name] for part in parts]) for one in chosen}


def _without_each_probe(chosen: list[Statistic], probes: Array) -> dict[str, Array]:
    """Statistics of the mean Gram with one probe left out, [R, N, N] → name → [R]."""
    count = len(probes)
    if count < 3:
        raise InputError(
            "per_probe",
            expected="at least 3 probes to leave one out",
            got=count,
            fix="Measure with more probes.",
        )
    parts = []
    for left_out in range(count):
        rest = np.delete(probes, left_out, 0)
        mean = rest.mean(0)
        sums = pair_sums(pair_products(mean, None, rest)) if _reads_pairs(chosen) else None
        parts.append(evaluate_all(chosen, mean, sums))
    return {one.name: np.array([part[one.name] for part in parts]) for one in chosen}
