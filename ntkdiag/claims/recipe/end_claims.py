"""Claims on the two ends of the log-SNR range: effects of every training seed, their tests, and fresh networks beside."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ntkdiag.claims.control_band import control_band
from ntkdiag.claims.effects import effect_values, log_values
from ntkdiag.claims.ends import ENDS, contrast, thirds
from ntkdiag.claims.evidence import comparable_controls, kept_buckets, kept_kernels
from ntkdiag.claims.recipe.groups import Recipe
from ntkdiag.claims.recipe.seed_tests import INCONCLUSIVE, SeedTest, all_parts, decided, over_seeds
from ntkdiag.diagnosis.result import Diagnosis
from ntkdiag.spectra.dense.eigen import Array

STRENGTH, RANK, CENTRED = "C1 strength", "C2 rank", "rank of the centred kernel"
# Claim → statistics, all of which must fall.
CLAIMS = {
    STRENGTH: ("trace", "top_eigenvalue"),
    RANK: ("effective_rank", "participation_ratio_pairs"),
    CENTRED: ("centred_effective_rank", "centred_participation_ratio_pairs"),
}
SHARE = "shared_share"
READS = (*(name for names in CLAIMS.values() for name in names), SHARE)


@dataclass(frozen=True, eq=False, repr=False)
class SeedEffects:
    """The statistics of every training seed of a recipe.

    Attributes:
        log_snr: Centres of the buckets that enter, [B].
        logs: Statistic → its ln, [seeds, B].
        controls: (statistic, end) → effects of the different fresh networks, [K].
    """

    log_snr: Array
    logs: dict[str, Array]
    controls: dict[tuple[str, str], Array]

    def effects(self, statistic: str, end: str) -> Array:
        """[seeds]; not finite where a logarithm does not exist."""
        weights = contrast(self.log_snr, end)
        used = weights != 0
        with np.errstate(invalid="ignore"):
            found: Array = self.logs[statistic][:, used] @ weights[used]
        return found

    def typical(self, statistic: str, part: str) -> float:
        """Geometric mean over seeds and the buckets of a third."""
        with np.errstate(invalid="ignore"):
            return float(np.exp(self.logs[statistic][:, thirds(self.log_snr)[part]].mean()))


def seed_effects(recipe: Recipe) -> SeedEffects:
    """Read every seed of a recipe, and its fresh networks, each once.

    Raises:
        InputError: too few buckets or samples, or a control with others.
    """
    levels = np.empty(0)
    logs, controls = [], dict[Any, dict[tuple[str, str], float]]()
    for diagnosis in recipe.seeds.values():
        kept = kept_buckets(diagnosis)
        levels = diagnosis.summary.loc[kept, "log_snr"].to_numpy(dtype=float)
        order = np.argsort(levels)
        own = log_values(levels, *kept_kernels(diagnosis, kept), statistics=READS)
        logs.append({name: values[order] for name, values in own.items()})
        for control in comparable_controls(diagnosis):
            key = _identity(control)
            if key not in controls:
                controls[key] = effect_values(levels, *kept_kernels(control, kept), statistics=READS)
    return SeedEffects(
        np.sort(levels),
        {name: np.stack([one[name] for one in logs]) for name in READS},
        {
            (name, end): np.array([one[name, end] for one in controls.values()])
            for name in READS
            for end in ENDS
        },
    )


def end_claims(recipe: Recipe, found: SeedEffects) -> Iterator[dict[str, Any]]:
    """A row for each claim and end, with a verdict that is corrected over all of them."""
    tests: dict[tuple[str, str], SeedTest] = {}
    shown: dict[tuple[str, str], str] = {}
    for claim, names in CLAIMS.items():
        for end in ENDS:
            effects = {name: found.effects(name, end) for name in names}
            shown[claim, end] = min(effects, key=lambda name: _or_least(float(effects[name].mean())))
            if all(np.isfinite(values).all() for values in effects.values()):
                tests[claim, end] = all_parts([over_seeds(values) for values in effects.values()])
    verdicts = decided({" · ".join(key): test for key, test in tests.items()})
    for (claim, end), statistic in shown.items():
        verdict = verdicts.get(f"{claim} · {end}")
        band = control_band(
            float(found.effects(statistic, end).mean()), found.controls[statistic, end].tolist()
        )
        yield {
            "recipe": recipe.name,
            "claim": claim,
            "end": end,
            "statistic": statistic,
            "middle": found.typical(statistic, "middle"),
            "at_end": found.typical(statistic, end),
            "p": math.nan if verdict is None else verdict.p,
            "verdict": INCONCLUSIVE if verdict is None else verdict.word,
            "controls": band.controls,
            "control_mean": band.mean,
            "control_low": band.low,
            "control_high": band.high,
            "net": band.net,
            "learned": band.learned,
            "note": "zero, or not defined, in some bucket of some seed" if verdict is None else "",
            "seeds": len(recipe.seeds),
        } | (vars(tests[claim, end]) if verdict is not None else {"effect": math.nan})


def _or_least(value: float) -> float:
    return value if math.isfinite(value) else -math.inf


def _identity(control: Diagnosis) -> Any:
    """Seeds of a recipe that were measured with the same fresh networks have one set of them, not several."""
    return control.meta.get("network", {}).get("digest") or id(control)
