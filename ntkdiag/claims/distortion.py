"""Distortion: how much less structure a network's predicted x0 has than the best possible prediction of it.

The best prediction, E[x0 | x], loses structure too where x says little of x0, so that only what is lost beyond it is the
network's own. Structure is the participation ratio of the centred Gram matrix, the centred alignment with x0, and the share
of nearest neighbours that are those of x0. All are compared on the same samples.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ntkdiag.claims.effects import MIN_SAMPLES
from ntkdiag.claims.ends import ENDS, thirds
from ntkdiag.claims.simultaneous import single_level
from ntkdiag.claims.words import CANNOT_SAY, LEVEL, word
from ntkdiag.errors import InputError
from ntkdiag.spectra import Replicates, interval_from_replicates
from ntkdiag.spectra.dense.centred import centred
from ntkdiag.spectra.dense.eigen import Array, GramLike, gram_array
from ntkdiag.spectra.dense.similarity import neighbours
from ntkdiag.spectra.uncertainty.left_out import sample_groups

NEIGHBOURS = 5
RANK, ALIGNMENT, NEIGHBOUR = "rank", "alignment with x0", "neighbours of x0"
COLUMNS = ("structure", "end", "effect", "low", "high", "word")


@dataclass(frozen=True, eq=False, repr=False)
class Distortion:
    """The structure of outputs beside that of the best prediction.

    Attributes:
        buckets: A row a bucket and structure: log_snr, structure ("rank", the participation ratio; "alignment with x0";
            "neighbours of x0"), output, best: of the network and of the best prediction.
        ends: A row a structure and end: structure, end, effect (mean over the end of ln(best / output), positive where the
            network has less), low, high (simultaneous limits, paired over samples), word: "falls" where the network has less
            than the best prediction, "rises" where it has more, "absent" where they are equal within ln 1.1, "cannot say".
        samples: N.
    """

    buckets: pd.DataFrame
    ends: pd.DataFrame
    samples: int

    def __repr__(self) -> str:
        words = ", ".join(
            f"{row.structure} {row.word} at the {row.end} end" for row in self.ends.itertuples()
        )
        return f"Distortion({words})"


def distortion(log_snr: GramLike, output: GramLike, best: GramLike, data: GramLike) -> Distortion:
    """Compare outputs with the best prediction.

    Args:
        log_snr: Bucket centres [B], B ≥ 3.
        output, best: Gram matrices of predicted x0, [B, N, N], N ≥ 8.
        data: Gram matrix of x0, [N, N].

    Raises:
        InputError: too few buckets or samples, or Gram matrices that do not fit.

    Example:
        >>> x0 = np.random.default_rng(0).normal(size=(12, 3))
        >>> blurred = np.stack([x0 @ x0.T] * 3)
        >>> distortion([-5.0, 0.0, 5.0], blurred, blurred, x0 @ x0.T).ends["word"].unique().tolist()
        ['absent']
    """
    made, ideal = gram_array(output, "output", ("B",)), gram_array(best, "best prediction", ("B",))
    truth = gram_array(data, "data")
    parts = thirds(log_snr)
    centers = np.asarray(log_snr, dtype=float)
    if not made.shape == ideal.shape == (len(centers), *truth.shape):
        raise InputError(
            "Gram matrices of outputs",
            expected=f"shape [{len(centers)}, N, N] as the data's",
            got=f"{list(made.shape)}, {list(ideal.shape)} and {list(truth.shape)}",
        )
    if len(truth) < MIN_SAMPLES:
        raise InputError("samples", expected=f"at least {MIN_SAMPLES}", got=len(truth))
    without = [np.setdiff1d(np.arange(len(truth)), group) for group in sample_groups(len(truth))]
    kept = [np.arange(len(truth)), *without]
    ours, theirs = (_structures(grams, truth, kept) for grams in (made, ideal))
    rows = [
        {"log_snr": center, "structure": name, "output": ours[name][b, 0], "best": theirs[name][b, 0]}
        for b, center in enumerate(centers)
        for name in STRUCTURES
    ]
    return Distortion(pd.DataFrame(rows), _ends(ours, theirs, parts, len(truth)), len(truth))


def _structures(grams: Array, truth: Array, kept: list[NDArray[np.intp]]) -> dict[str, Array]:
    """Each structure in every bucket, on all samples and without each group, [B, 1 + G]."""
    values = {name: np.empty((len(grams), len(kept))) for name in STRUCTURES}
    for place, rows in enumerate(kept):
        true = truth[np.ix_(rows, rows)]
        known = centred(true), neighbours(true, NEIGHBOURS)
        for bucket, gram in enumerate(grams):
            part = gram[np.ix_(rows, rows)]
            left = centred(part)
            for name, structure in STRUCTURES.items():
                values[name][bucket, place] = structure(part, left, *known)
    return values


# (Gram, centred Gram, centred Gram of the data, neighbours in the data) → a number ≥ 0
_Structure = Callable[[Array, Array, Array, NDArray[np.bool_]], float]


def _rank(gram: Array, left: Array, true: Array, near: NDArray[np.bool_]) -> float:
    size = float(np.square(left).sum())
    return float(np.trace(left)) ** 2 / size if size > 0 else 0.0


def _alignment(gram: Array, left: Array, true: Array, near: NDArray[np.bool_]) -> float:
    size = float(np.linalg.norm(left)) * float(np.linalg.norm(true))
    return float((left * true).sum()) / size if size > 0 else 0.0


def _neighbours(gram: Array, left: Array, true: Array, near: NDArray[np.bool_]) -> float:
    return float((neighbours(gram, NEIGHBOURS) & near).sum(1).mean()) / NEIGHBOURS


STRUCTURES: dict[str, _Structure] = {RANK: _rank, ALIGNMENT: _alignment, NEIGHBOUR: _neighbours}


def _ends(
    ours: dict[str, Array], theirs: dict[str, Array], parts: dict[str, NDArray[np.bool_]], samples: int
) -> pd.DataFrame:
    with np.errstate(divide="ignore", invalid="ignore"):
        lost = {name: np.log(theirs[name]) - np.log(ours[name]) for name in STRUCTURES}
    means = {(name, end): lost[name][parts[end]].mean(0) for name in STRUCTURES for end in ENDS}
    found = {key: Replicates(float(row[0]), row[1:]) for key, row in means.items()}
    usable = [one for key, one in found.items() if np.isfinite(means[key]).all()]
    level = single_level(usable, samples, LEVEL) if usable else LEVEL
    rows = []
    for (name, end), one in found.items():
        low = high = float("nan")
        said = CANNOT_SAY
        if np.isfinite(means[name, end]).all():
            limits = interval_from_replicates(one, samples=samples, level=level)
            low, high = limits.low, limits.high
            said = word(low, high)
        rows.append(dict(zip(COLUMNS, (name, end, one.value, low, high, said), strict=True)))
    return pd.DataFrame(rows, columns=list(COLUMNS))
