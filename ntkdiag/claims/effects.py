"""Effects: by how much each statistic of the kernel falls from the middle of the log-SNR range to either end.

effect(end) = mean ln S over the middle third of the buckets − mean ln S over the end. Buckets are fixed points; what is
random is samples, noise and probes, which all buckets share, so an effect is formed within pairs before its spread is taken.
Effects say what holds in this network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ntkdiag.claims.ends import ENDS, contrast, thirds
from ntkdiag.claims.simultaneous import single_level
from ntkdiag.claims.words import CANNOT_SAY, LEVEL, THRESHOLD, word
from ntkdiag.errors import InputError
from ntkdiag.spectra import Interval, Replicates, interval_from_replicates
from ntkdiag.spectra.dense.eigen import Array, GramLike, gram_array
from ntkdiag.spectra.uncertainty.left_out import leave_out, without_probe_bias

# What the answer shows of every network: of the kernel, of the kernel without its shared answer, and that answer's share.
SHOWN = (
    "trace",
    "top_eigenvalue",
    "effective_rank",
    "participation_ratio_pairs",
    "shared_share",
    "centred_trace",
    "centred_top_eigenvalue",
    "centred_effective_rank",
    "centred_participation_ratio_pairs",
)
MIN_SAMPLES = 8
MIN_PROBES = 3  # fewer say too little of the spread over probes, and of the bias by their number
COLUMNS = ("statistic", "end", "middle", "at_end", "effect", "low", "high", "stderr", "word", "note")


@dataclass(frozen=True)
class Effect:
    """A statistic at one end of the log-SNR range, against the middle.

    Attributes:
        statistic: Its name in `ntkdiag.spectra.STATISTICS`.
        end: "noisy" or "clean".
        middle, at_end: Geometric means of the statistic over the buckets of the middle and of the end.
        effect: ln(middle / at_end), positive for a fall; NaN where a logarithm does not exist.
        low, high: Simultaneous limits; NaN where there are none.
        stderr: Standard error of the effect.
        word: falls, rises, absent or cannot say.
        note: Why there are no limits; empty where there are.

    Example:
        >>> from ntkdiag.claims import effects
        >>> one = effects(diagnosis.summary["log_snr"], diagnosis.grams["trace"])["trace", "noisy"]
        >>> round(one.effect, 6) == round(float(np.log(one.middle / one.at_end)), 6)
        True
    """

    statistic: str
    end: str
    middle: float
    at_end: float
    effect: float
    low: float
    high: float
    stderr: float
    word: str
    note: str = ""


@dataclass(frozen=True, eq=False, repr=False)
class EffectTable:
    """Effects of several statistics at both ends, with limits that hold for all of them together.

    Attributes:
        effects: Statistic by statistic, the noisy end before the clean one.
        level: Of all intervals together: all lower limits hold with probability (1 + level)/2, and so do all upper limits.
        single_level: Level of each interval by itself.
        samples, probes: N and R; R is 0 where the kernel was not estimated from probes.
        method: How the limits were made, in words.
        replicates: Statistic → its values in every bucket, on all samples and without parts of them.

    Example:
        >>> from ntkdiag.claims import effects
        >>> table = effects(diagnosis.summary["log_snr"], diagnosis.grams["trace"], statistics=["trace"])
        >>> [(one.statistic, one.end) for one in table.effects], table.samples
        ([('trace', 'noisy'), ('trace', 'clean')], 8)
    """

    effects: tuple[Effect, ...]
    level: float
    single_level: float
    samples: int
    probes: int
    method: str
    replicates: dict[str, list[Replicates]]

    def __repr__(self) -> str:
        return f"EffectTable(statistics={len(self.replicates)}, samples={self.samples}, probes={self.probes})"

    def __getitem__(self, key: tuple[str, str]) -> Effect:
        """The effect of (statistic, end)."""
        for one in self.effects:
            if (one.statistic, one.end) == key:
                return one
        raise KeyError(key)

    def frame(self) -> pd.DataFrame:
        """One row an effect, with the columns of `COLUMNS`."""
        return pd.DataFrame([vars(one) for one in self.effects], columns=list(COLUMNS))


def effects(
    log_snr: GramLike,
    grams: GramLike,
    per_probe: GramLike | None = None,
    *,
    statistics: Sequence[str] = SHOWN,
    level: float = LEVEL,
    threshold: float = THRESHOLD,
) -> EffectTable:
    """Effects of a network at the two ends of its log-SNR range.

    Args:
        log_snr: Bucket centres, [B], B ≥ 3.
        grams: The trace kernel of every bucket on the same samples in the same order, [B, N, N], N ≥ 8.
        per_probe: The same by probe, [B, R, N, N]; None where the kernel is exact. With R ≥ 3 the bias by few probes is
            removed, and limits include the variance over probes; with fewer there are no limits.
        statistics: Names of `ntkdiag.spectra.STATISTICS`; positive ones, since their logarithms are compared.
        level: Of all intervals together, in (0, 1).
        threshold: Smallest effect that counts, in ln.

    Returns:
        One effect for each statistic and end.

    Raises:
        InputError: too few buckets or samples, kernels that do not fit, unknown names.

    Example:
        >>> from ntkdiag.claims import effects
        >>> found = effects(diagnosis.summary["log_snr"], diagnosis.grams["trace"], diagnosis.grams.get("per_probe"))
        >>> found["effective_rank", "noisy"].word in ("falls", "rises", "absent", "cannot say")
        True
    """
    kernels, probes = _checked(log_snr, grams, per_probe)
    samples, count = kernels.shape[-1], 0 if probes is None else probes.shape[1]
    used = probes if count >= MIN_PROBES else None
    singles = [None] * len(kernels) if used is None else list(used)
    found = [
        leave_out(statistics, gram, per_probe=single) for gram, single in zip(kernels, singles, strict=True)
    ]
    by_name = {name: [bucket[name] for bucket in found] for name in statistics}
    rows = {
        (name, end): _contrasted(by_name[name], contrast(log_snr, end)) for name in statistics for end in ENDS
    }
    usable = [row for row in rows.values() if _is_finite(row)]
    each = single_level(usable, samples, level) if usable else level
    too_few = 0 < count < MIN_PROBES
    table = []
    for (name, end), row in rows.items():
        note = _why_no_limits(row, too_few)
        limits = None if note else interval_from_replicates(row, samples=samples, level=each)
        table.append(_effect(name, end, by_name[name], log_snr, row, limits, note, threshold))
    method = (
        f"max-t over {len(usable)} effects: {level:.0%} together, {each:.1%} each; jackknife of {samples} samples"
        + (f" and {count} probes" if used is not None else "")
    )
    return EffectTable(tuple(table), level, each, samples, count, method, by_name)


def effect_values(
    log_snr: GramLike,
    grams: GramLike,
    per_probe: GramLike | None = None,
    *,
    statistics: Sequence[str] = SHOWN,
) -> dict[tuple[str, str], float]:
    """The effects alone, without limits: what a control or a training seed adds to a comparison of networks.

    Args:
        log_snr, grams, per_probe, statistics: As in `effects`.

    Returns:
        (statistic, end) → effect.

    Raises:
        InputError: as `effects`.

    Example:
        >>> from ntkdiag.claims import effect_values
        >>> grams = np.stack([np.eye(8), 4 * np.eye(8), np.eye(8)])  # four times as strong in the middle
        >>> effect_values([-5.0, 0.0, 5.0], grams, statistics=["trace"])[("trace", "noisy")] == np.log(4)
        np.True_
    """
    logs = log_values(log_snr, grams, per_probe, statistics=statistics)
    return {(name, end): _weighted(logs[name], contrast(log_snr, end)) for name in statistics for end in ENDS}


def log_values(
    log_snr: GramLike,
    grams: GramLike,
    per_probe: GramLike | None = None,
    *,
    statistics: Sequence[str] = SHOWN,
) -> dict[str, Array]:
    """ln of each statistic in every bucket, [B], without the bias by few probes; NaN or infinite where there is none.

    Args:
        log_snr, grams, per_probe, statistics: As in `effects`.

    Raises:
        InputError: as `effects`.
    """
    kernels, probes = _checked(log_snr, grams, per_probe)
    used = None if probes is None or probes.shape[1] < MIN_PROBES else probes
    singles = [None] * len(kernels) if used is None else list(used)
    values = [
        without_probe_bias(statistics, gram, single) for gram, single in zip(kernels, singles, strict=True)
    ]
    with np.errstate(divide="ignore", invalid="ignore"):
        return {name: np.log([bucket[name] for bucket in values]) for name in statistics}


def _checked(log_snr: GramLike, grams: GramLike, per_probe: GramLike | None) -> tuple[Array, Array | None]:
    kernels = gram_array(grams, "kernels", leading=("B",))
    thirds(log_snr)
    if len(kernels) != len(np.asarray(log_snr)):
        raise InputError(
            "kernels", expected=f"one for each of {len(np.asarray(log_snr))} buckets", got=len(kernels)
        )
    if kernels.shape[-1] < MIN_SAMPLES:
        raise InputError(
            "samples", expected=f"at least {MIN_SAMPLES} a bucket, for intervals", got=kernels.shape[-1]
        )
    if per_probe is None:
        return kernels, None
    probes = gram_array(per_probe, "per_probe", leading=("B", "R"))
    if probes.shape[:1] + probes.shape[2:] != kernels.shape:
        raise InputError(
            "per_probe",
            expected=f"shape [B, R, N, N] for kernels {list(kernels.shape)}",
            got=list(probes.shape),
        )
    return kernels, probes


def _contrasted(buckets: Sequence[Replicates], weights: Array) -> Replicates:
    """The effect on all samples and without parts of them."""
    probes = [bucket.without_probe for bucket in buckets if bucket.without_probe is not None]
    with np.errstate(divide="ignore", invalid="ignore"):
        return Replicates(
            _weighted(np.log([bucket.value for bucket in buckets]), weights),
            _weighted_rows(np.log(np.stack([bucket.without_samples for bucket in buckets], -1)), weights),
            _weighted_rows(np.log(np.stack(probes, -1)), weights) if probes else None,
        )


def _weighted(logs: Array, weights: Array) -> float:
    return float(_weighted_rows(logs[None], weights)[0])


def _weighted_rows(logs: Array, weights: Array) -> Array:
    """Weighted sums over buckets [..., B] → [...]; infinities of opposite sign give NaN, buckets of weight 0 nothing."""
    used = weights != 0
    with np.errstate(invalid="ignore"):
        found: Array = (logs[..., used] * weights[used]).sum(-1)
    return found


def _is_finite(row: Replicates) -> bool:
    parts = [np.array([row.value]), row.without_samples]
    parts += [] if row.without_probe is None else [row.without_probe]
    return bool(np.isfinite(np.concatenate(parts)).all())


def _why_no_limits(row: Replicates, too_few_probes: bool) -> str:
    if not np.isfinite(row.value):
        return "zero, or not defined, in some bucket"
    if too_few_probes:
        return f"fewer than {MIN_PROBES} probes: their noise cannot be told from the kernel"
    return "" if _is_finite(row) else "zero, or not defined, without some of the samples or probes"


def _effect(
    name: str,
    end: str,
    buckets: Sequence[Replicates],
    log_snr: GramLike,
    row: Replicates,
    limits: Interval | None,
    note: str,
    threshold: float,
) -> Effect:
    values = np.array([bucket.value for bucket in buckets])
    parts = thirds(log_snr)
    with np.errstate(divide="ignore", invalid="ignore"):
        middle, at_end = (float(np.exp(np.log(values[parts[part]]).mean())) for part in ("middle", end))
    if limits is None:
        nan = float("nan")
        return Effect(name, end, middle, at_end, row.value, nan, nan, nan, CANNOT_SAY, note)
    said = word(limits.low, limits.high, threshold)
    return Effect(name, end, middle, at_end, row.value, limits.low, limits.high, limits.stderr, said)
