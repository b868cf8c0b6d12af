"""C3: what the ranks follow between recipes, the recoverable share or the density of training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from ntkdiag.claims.description.rulers import schedule_of
from ntkdiag.claims.evidence import kept_buckets
from ntkdiag.claims.recipe.between_targets import between_targets
from ntkdiag.claims.recipe.end_claims import SeedEffects
from ntkdiag.claims.recipe.groups import Recipe
from ntkdiag.claims.recipe.seed_tests import MARGIN, decided, over_seeds
from ntkdiag.errors import InputError
from ntkdiag.spectra.dense.eigen import Array

SHARE, DENSITY = "recoverable share", "training density"
FOLLOWERS = ("effective_rank", "centred_effective_rank")
# A share below this says nothing more of how much smaller it is.
LEAST_SHARE = 0.01
# One training sample in a million nats of log-SNR.
LEAST_DENSITY = 1e-6


def following(
    recipes: Sequence[Recipe], found: Mapping[str, SeedEffects]
) -> tuple[list[dict[str, Any]], str]:
    """Slopes between recipes of equal seeds, with verdicts that are corrected over all of them.

    Args:
        recipes: All recipes.
        found: Their statistics by name.

    Returns:
        A row a statistic and ruler; none, and why, where C3 is not testable.
    """
    if len({recipe.target for recipe in recipes}) < 2:
        return [], "needs networks of another target, from the same seeds"
    shares = [log_share(recipe) for recipe in recipes]
    if any(share is None for share in shares):
        return [], "needs the recoverable share of every recipe"
    rulers = {SHARE: np.stack([share for share in shares if share is not None])}
    if len({str(recipe.first.meta["config"].get("schedule")) for recipe in recipes}) > 1:
        densities = [log_density(recipe, found[recipe.name].log_snr) for recipe in recipes]
        if any(density is None for density in densities):
            return [], "needs the density of training, which differs and is not known"
        rulers[DENSITY] = np.stack([density for density in densities if density is not None])
    return _slopes([found[recipe.name].logs for recipe in recipes], rulers)


def _slopes(
    logs: Sequence[Mapping[str, Array]], rulers: Mapping[str, Array]
) -> tuple[list[dict[str, Any]], str]:
    try:
        slopes = {
            name: between_targets(np.stack([one[name] for one in logs]), *rulers.values())
            for name in FOLLOWERS
            if all(np.isfinite(one[name]).all() for one in logs)
        }
    except InputError:
        return [], f"needs recipes in which {' and '.join(rulers)} differ, each in its own way"
    if not slopes:
        return [], "needs ranks that are defined in every bucket"
    tests = {
        (name, ruler): over_seeds(values[:, place], least=0, margin=smallest_slope(rulers[ruler]))
        for name, values in slopes.items()
        for place, ruler in enumerate(rulers)
    }
    verdicts = decided({" · ".join(key): test for key, test in tests.items()})
    rows = []
    for (name, ruler), test in tests.items():
        verdict = verdicts[f"{name} · {ruler}"]
        numbers = {**vars(test), "slope": test.effect, "p": verdict.p, "verdict": verdict.word, "note": ""}
        claim = "C3 recoverability" if ruler == SHARE else "training density"
        rows.append({"claim": claim, "statistic": name, "follows": ruler, "recipes": len(logs), **numbers})
    return rows, ""


def smallest_slope(ruler: Array) -> float:
    """The slope with which a statistic changes by a factor of 1.1 over the widest range that a ruler has in a bucket.

    Args:
        ruler: ln of it, [recipes, buckets].
    """
    return MARGIN / float((ruler.max(0) - ruler.min(0)).max())


def log_share(recipe: Recipe) -> Array | None:
    """ln of the recoverable share, the mean over seeds, [B] from noisy to clean; None if it was not measured."""
    shares = []
    for diagnosis in recipe.seeds.values():
        summary = diagnosis.summary[kept_buckets(diagnosis)].sort_values("log_snr")
        name = "bayes_share_estimate" if "bayes_share_estimate" in summary else "bayes_share"
        if name not in summary or not np.isfinite(summary[name].to_numpy(dtype=float)).all():
            return None
        shares.append(summary[name].to_numpy(dtype=float))
    found: Array = np.log(np.clip(np.mean(shares, 0), LEAST_SHARE, None))
    return found


def log_density(recipe: Recipe, log_snr: Array) -> Array | None:
    """ln of the density of training over log-SNR, [B]; None if the record of the schedule is not enough."""
    schedule = schedule_of(recipe.first)
    if schedule is None:
        return None
    density = schedule.density(torch.tensor(log_snr.tolist(), dtype=torch.float64)).numpy()
    found: Array = np.log(np.clip(density, LEAST_DENSITY, None))
    return found if math.isfinite(float(found.sum())) else None
