"""A diagnosis by class: the trace kernel within each class of samples, and between classes.

Ranks grow with the number of samples, so every class is measured on the same number of its samples. Between classes the
mean of the kernel over pairs of samples says how much a training step on one class moves the answers to another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ntkdiag.claims.effects import MIN_SAMPLES, Effect, effects
from ntkdiag.claims.ends import MIN_BUCKETS, NOISY
from ntkdiag.claims.wording.numbers import factor
from ntkdiag.claims.words import FALLS
from ntkdiag.diagnosis.result import LABELS, Diagnosis
from ntkdiag.errors import InputError, kind_of
from ntkdiag.notebook import html_rows
from ntkdiag.spectra import subsample_intervals
from ntkdiag.spectra.dense.eigen import Array

STATISTICS = ("trace", "effective_rank", "centred_effective_rank", "shared_share")
RANKS = ("effective_rank", "centred_effective_rank")
# Fewer samples of a class say nothing of its rank, and allow no intervals.
LEAST = 4
# With fewer probes an interval cannot include the spread over them.
LEAST_PROBES = 3


@dataclass(frozen=True, eq=False, repr=False)
class ByClass:
    """Results by class.

    Attributes:
        classes: One row for each class and bucket: label, log_snr, available (samples of the class), samples (how many were
            used, the same number for each class; 0 where there are too few), and trace, effective_rank,
            centred_effective_rank, shared_share of the kernel within the class, each with the ends of a 90% interval as
            `_low` and `_high`. NaN where there are too few samples.
        between: One row for each bucket and pair of classes: log_snr, label_a, label_b, kernel: the mean kernel between
            samples of the two over the geometric mean of those within each, without a sample's kernel with itself: 1
            where a step on one class moves the other as much as itself. NaN where a mean is not positive.
        ends: One row for each class, statistic (effective_rank, centred_effective_rank) and end of the range, as in
            `Verification.claims`: label, statistic, end, middle, at_end, effect, low, high, stderr, word, note. Limits hold
            together within a class. Empty below 8 samples a class or 3 buckets.
        first: Which class loses most of its rank towards noise, in a sentence; empty where that is not known.

    Example:
        >>> import pandas as pd
        >>> classes = pd.DataFrame({"label": [0, 1], "log_snr": [0.0, 0.0], "available": [40, 50], "samples": [40, 40]})
        >>> found = ByClass(classes, pd.DataFrame(), pd.DataFrame(), first="Class 1 loses most of its rank.")
        >>> found.first
        'Class 1 loses most of its rank.'
    """

    classes: pd.DataFrame
    between: pd.DataFrame
    ends: pd.DataFrame
    first: str

    def __repr__(self) -> str:
        return f"ByClass(classes={self.classes['label'].nunique()}, samples={int(self.classes['samples'].max())})"

    def _repr_html_(self) -> str:
        shown = ["label", "log_snr", "samples", *STATISTICS]
        return html_rows(repr(self), shown, self.classes[shown].itertuples(index=False))


def by_class(diagnosis: Diagnosis) -> ByClass:
    """Results by class for the trace kernel of a diagnosis of labelled data.

    Args:
        diagnosis: What was measured. Its samples are drawn at random, so that ten classes have about N/10 each; measure
            160 samples or more for ranks of ten classes.

    Raises:
        InputError: the data had no labels, or no class has enough samples.

    Example:
        >>> digits = nd.data.load("digits")
        >>> network = nd.models.build("dit", digits.shape, width=8, depth=1, heads=2)
        >>> trained = nd.Denoiser(network, nd.schedules.cosine(), "v", call="log_snr")
        >>> by_class(nd.measure(trained, digits, 3, samples=100, probes=1))
        ByClass(classes=10, samples=...)
    """
    if not hasattr(diagnosis, "grams"):
        raise InputError(
            "diagnosis", expected="a Diagnosis, as nd.measure returns it", got=kind_of(diagnosis)
        )
    if LABELS not in diagnosis.grams:
        raise InputError(
            "labels of the samples",
            expected="data with a class label for each sample",
            got="none",
            fix="Measure again with {labels}.",
            arguments={"labels": "..."},
        )
    labels = diagnosis.grams[LABELS].numpy()
    levels = diagnosis.summary["log_snr"].tolist()
    places = {int(label): np.flatnonzero(labels == label) for label in np.unique(labels)}
    enough = [len(place) for place in places.values() if len(place) >= LEAST]
    if not enough:
        raise InputError(
            "samples of a class",
            expected=f"at least {LEAST} of some class",
            got=f"{len(labels)} samples of {len(places)} classes",
            fix="Measure again with {samples}.",
            arguments={"samples": 16 * len(places)},
        )
    kernels = diagnosis.grams["trace"].numpy()
    probes = diagnosis.grams["per_probe"].numpy() if "per_probe" in diagnosis.grams else None
    rows, pairs, ends, falling = [], [], [], {}
    for bucket, level in enumerate(levels):
        for label, place in places.items():
            used = place[: min(enough)] if len(place) >= LEAST else place[:0]
            own = None if probes is None else probes[bucket]
            numbers = _within(kernels[bucket], own, used)
            rows.append(
                {"label": label, "log_snr": level, "available": len(place), "samples": len(used)} | numbers
            )
        pairs += _between(kernels[bucket], places, level)
    if min(enough) >= MIN_SAMPLES and len(levels) >= MIN_BUCKETS:
        for label, place in places.items():
            if len(place) >= LEAST:
                used = place[: min(enough)]
                own = None if probes is None else probes[:, :, used[:, None], used]
                found = effects(np.array(levels), kernels[:, used[:, None], used], own, statistics=RANKS)
                ends.append(found.frame().assign(label=label))
                falling[label] = found[RANKS[0], NOISY]
    table = pd.concat(ends, ignore_index=True) if ends else pd.DataFrame()
    return ByClass(pd.DataFrame(rows), pd.DataFrame(pairs), table, _first(falling))


def _first(falling: Mapping[int, Effect]) -> str:
    """Which class loses most of its rank towards noise, and whether its limits part it from all others."""
    known = {label: row for label, row in falling.items() if row.word == FALLS}
    if not known:
        return ""
    order = sorted(known, key=lambda label: -known[label].effect)
    most = known[order[0]]
    apart = all(row.high < most.low for label, row in falling.items() if label != order[0])
    said = f"Class {order[0]} loses most of its rank towards noise, {factor(most)}"
    return (
        f"{said}." if apart else f"{said}; the limits of other classes overlap, so another may be the first."
    )


def _within(kernel: Array, probes: Array | None, used: np.ndarray) -> dict[str, float]:
    """Statistics of the kernel of some samples, with their intervals."""
    if not len(used):
        return {f"{name}{end}": np.nan for name in STATISTICS for end in ("", "_low", "_high")}
    chosen = np.ix_(used, used)
    enough = probes is not None and len(probes) >= LEAST_PROBES
    some = probes[:, used[:, None], used] if probes is not None and enough else None
    found = subsample_intervals(STATISTICS, kernel[chosen], per_probe=some)
    return {
        f"{name}{end}": float(getattr(one, field))
        for name, one in found.items()
        for end, field in (("", "value"), ("_low", "low"), ("_high", "high"))
    }


def _between(kernel: Array, places: dict[int, np.ndarray], level: float) -> list[dict[str, float]]:
    """Rows of `ByClass.between` for one bucket."""
    means = np.array([[_mean(kernel, a, b) for b in places.values()] for a in places.values()])
    own = np.diagonal(means)
    with np.errstate(invalid="ignore", divide="ignore"):
        shared = means / np.sqrt(np.outer(own, own))
    shared[~(np.outer(own > 0, own > 0))] = np.nan
    names: Sequence[int] = list(places)
    return [
        {"log_snr": level, "label_a": a, "label_b": b, "kernel": float(shared[i, j])}
        for i, a in enumerate(names)
        for j, b in enumerate(names)
    ]


def _mean(kernel: Array, first: np.ndarray, second: np.ndarray) -> float:
    """Mean over pairs of different samples; NaN without any."""
    block = kernel[np.ix_(first, second)]
    if first is second:
        count = len(first)
        return float((block.sum() - np.trace(block)) / (count * (count - 1))) if count > 1 else float("nan")
    return float(block.mean())
