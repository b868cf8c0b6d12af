"""Statistics of a Gram matrix with some samples left out, and with single probes left out: what a jackknife reads.

A bootstrap repeats rows of the Gram matrix and so imitates a loss of rank; leaving samples out does not. All buckets
leave out the same samples, so that differences and trends are formed within pairs before their spread is taken.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ntkdiag.errors import InputError, require_int
from ntkdiag.spectra.dense.centred import centred_pair_sums
from ntkdiag.spectra.dense.eigen import Array, GramLike, gram_array
from ntkdiag.spectra.dense.named_statistics import Statistic, evaluate_all, statistic
from ntkdiag.spectra.dense.pairs import checked_noise, pair_products

Indices = NDArray[np.intp]

# Up to this many samples each is left out alone, beyond it in groups; the number of groups decides how well a standard
# error is known (to 1/√(2·128), 6%).
MOST_GROUPS = 128
_ENTRIES_AT_ONCE = 2**23  # of sub-Grams in memory: 64 MiB


@dataclass(frozen=True, eq=False)
class Replicates:
    """A statistic and its values with a part of the data left out.

    Attributes:
        value: The statistic on all samples and probes; where probes were left out, without the bias of their number.
        without_samples: Its value without each group of samples, [G]; the groups of `sample_groups`.
        without_probe: Its value without each probe, [R]; None where probes stay fixed.

    Example:
        >>> losses = np.array([1.0, 2.0, 4.0, 5.0])
        >>> without = np.array([np.delete(losses, sample).mean() for sample in range(4)])
        >>> nd.spectra.Replicates(losses.mean(), without).value
        np.float64(3.0)
    """

    value: float
    without_samples: Array
    without_probe: Array | None = None


def sample_groups(samples: int, groups: int | None = None) -> list[Indices]:
    """The samples that are left out together: each alone, or `MOST_GROUPS` runs of nearly equal length."""
    count = min(samples, MOST_GROUPS) if groups is None else groups
    return np.array_split(np.arange(samples), count)


def leave_out(
    names: Iterable[str | Statistic],
    matrix: GramLike,
    *,
    stderr: GramLike | None = None,
    per_probe: GramLike | None = None,
) -> dict[str, Replicates]:
    """Several statistics of one Gram matrix; eigenvalues are shared between them.

    A statistic θ of R probes is biased where it is not linear in the kernel. The jackknife over probes removes the part of
    the bias that is proportional to 1/R: R θ − (R − 1) · mean of θ without each probe (Quenouille 1956).

    Args:
        names: Registered names (`STATISTICS`) or `Statistic` objects.
        matrix: K, [N, N], N ≥ 3.
        stderr: Standard error of entries over probes, [N, N]: corrects the pair statistic of the kernel. (That of the
            centred kernel would need the correlation of their errors, which only `per_probe` has.)
        per_probe: Grams of R ≥ 3 probes, [R, N, N], of mean `matrix`: corrects the pair statistics and removes the bias by
            the number of probes from all others.

    Returns:
        name → Replicates.

    Raises:
        InputError: bad matrices, unknown names, too few samples or probes.
    """
    chosen = [statistic(name) for name in names]
    gram, errors, probes = checked_noise(matrix, stderr, per_probe)
    samples = require_int("samples", len(gram), at_least=3)
    sums = _PairSums(chosen, gram, errors, probes)
    full, left_out = _with_all_samples(chosen, gram, sums, probes)
    others = [np.delete(np.arange(samples), group) for group in sample_groups(samples)]
    sizes = np.array([len(kept) for kept in others])
    parts = [  # groups of one size at a time
        on_subsets(chosen, gram, sums, np.stack([kept for kept in others if len(kept) == size]))
        for size in np.unique(sizes)
    ]
    order = np.argsort(np.argsort(sizes, kind="stable"))
    return {
        one.name: Replicates(
            _without_probe_bias(one, full[one.name], left_out.get(one.name), samples),
            np.concatenate([part[one.name] for part in parts])[order],
            left_out.get(one.name),
        )
        for one in chosen
    }


def without_probe_bias(
    names: Iterable[str | Statistic], matrix: GramLike, per_probe: GramLike | None = None
) -> dict[str, float]:
    """Several statistics of one Gram matrix, without the bias by few probes: the values of `leave_out`, and nothing else.

    Args:
        names, matrix, per_probe: As in `leave_out`.

    Returns:
        name → value.

    Raises:
        InputError: as `leave_out`.
    """
    chosen = [statistic(name) for name in names]
    gram, _, probes = checked_noise(matrix, None, per_probe)
    full, left_out = _with_all_samples(chosen, gram, _PairSums(chosen, gram, None, probes), probes)
    return {
        one.name: _without_probe_bias(one, full[one.name], left_out.get(one.name), len(gram))
        for one in chosen
    }


def leave_out_in_buckets(
    name: str | Statistic, matrices: GramLike, *, per_probe: GramLike | None = None
) -> list[Replicates]:
    """`leave_out` of one statistic for each bucket.

    Args:
        name: Registered name or statistic.
        matrices: One Gram a bucket, of the same samples in the same order, [B, N, N].
        per_probe: [B, R, N, N].

    Raises:
        InputError: bad matrices or an unknown name.
    """
    chosen = statistic(name)
    grams = gram_array(matrices, "matrices", leading=("B",))
    probes = [None] * len(grams) if per_probe is None else list(per_probe)
    if len(probes) != len(grams):
        raise InputError("per_probe", expected=f"one entry for each of {len(grams)} buckets", got=len(probes))
    return [
        leave_out([chosen], gram, per_probe=bucket)[chosen.name]
        for gram, bucket in zip(grams, probes, strict=True)
    ]


class _PairSums:
    """Sums over pairs of samples, of the kernel and of the centred kernel, as far as some statistics read them."""

    def __init__(
        self, chosen: list[Statistic], gram: Array, stderr: Array | None, per_probe: Array | None
    ) -> None:
        views = {one.reads for one in chosen}
        self._gram, self._probes = gram, per_probe
        self._products = pair_products(gram, stderr, per_probe) if "pair_sums" in views else None
        self._centred = "centred_pair_sums" in views

    def of(self, subsets: Indices) -> dict[str, Array]:
        """View → sums of each subset [S, n], [S, 2], without gathering sub-matrices."""
        members = np.zeros((len(subsets), len(self._gram)))
        np.put_along_axis(members, subsets, 1.0, 1)
        found: dict[str, Array] = {}
        if self._products is not None:
            sums = ((members @ self._products) * members).sum(-1).T
            found["pair_sums"] = sums if subsets.shape[1] > 1 else np.full_like(sums, np.nan)
        if self._centred:
            found["centred_pair_sums"] = centred_pair_sums(self._gram, self._probes, members)
        return found


def on_subsets(
    chosen: list[Statistic], gram: Array, sums: _PairSums | None, subsets: Indices
) -> dict[str, Array]:
    """Statistics of [N, N], with its sums over pairs, on subsets [S, n]: name → [S], in pieces that fit memory."""
    pieces = min(-(-subsets.size * subsets.shape[1] // _ENTRIES_AT_ONCE), len(subsets))
    parts = [
        evaluate_all(
            chosen, gram[some[:, :, None], some[:, None, :]], None if sums is None else sums.of(some)
        )
        for some in np.array_split(subsets, pieces)
    ]
    return {one.name: np.concatenate([part[one.name] for part in parts]) for one in chosen}


def _with_all_samples(
    chosen: list[Statistic], gram: Array, sums: _PairSums, probes: Array | None
) -> tuple[dict[str, float], dict[str, Array]]:
    """Statistics of all samples, and without each probe."""
    full = on_subsets(chosen, gram, sums, np.arange(len(gram))[None])
    left_out = _without_each_probe(chosen, probes) if probes is not None else {}
    return {name: float(found[0]) for name, found in full.items()}, left_out


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
        sums = _PairSums(chosen, mean, None, rest)
        parts.append(on_subsets(chosen, mean, sums, np.arange(len(mean))[None]))
    return {one.name: np.concatenate([part[one.name] for part in parts]) for one in chosen}


def _without_probe_bias(one: Statistic, value: float, left_out: Array | None, samples: int) -> float:
    """The value extrapolated to infinitely many probes, within what is possible."""
    if left_out is None or not np.isfinite(left_out).all():
        return value
    corrected = len(left_out) * value - (len(left_out) - 1) * float(left_out.mean())
    return min(max(corrected, min(one.minimum, value)), max(one.largest(samples), value))
