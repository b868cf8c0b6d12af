"""Verdicts on a recipe from diagnoses: what is planted in every seed is found, and what is no recipe is refused."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from claims_cases import levels, simulate

from ntkdiag.claims import RecipeVerification, verify
from ntkdiag.claims.recipe.following import smallest_slope
from ntkdiag.claims.recipe.seed_tests import MARGIN, over_seeds
from ntkdiag.cli.output.json_document import plain
from ntkdiag.diagnosis import Diagnosis
from ntkdiag.errors import InputError
from ntkdiag.process import schedules
from ntkdiag.recoverability import amplitude

SIZE = {"samples": 64, "shared": 0.9}
NOISY = levels() < -4


def seeds(
    target: str = "v", count: int = 5, share: np.ndarray | None = None, name: str = "", **planted: Any
) -> list[Diagnosis]:
    """Training seeds: the same draws, and kernels that differ a little in size and flatness."""
    found = []
    for seed in range(count):
        rng = np.random.default_rng([7, seed])
        flatness = np.clip(planted.get("flatness", 0.8) + 0.005 * rng.standard_normal(), 0.05, 0.95)
        size = planted.get("size", 1.0) * math.exp(0.02 * rng.standard_normal())
        one = simulate(target, **{**SIZE, **planted, "flatness": flatness, "size": size})
        one.meta["network"] |= {"digest": f"{target} {seed} {name}", "class": "Net"}
        one.meta["data"] = {"name": "points", "digest": "0123456789"}
        if share is not None:
            one.summary["bayes_share_estimate"] = share
        found.append(one)
    return found


def rows(found: RecipeVerification) -> Any:
    return found.claims.set_index(["claim", "end"])


def verdicts(found: RecipeVerification, claim: str) -> list[str]:
    return [str(rows(found).loc[(claim, end), "verdict"]) for end in ("noisy", "clean")]


# --- words


def test_directions_that_every_seed_loses_at_one_end() -> None:
    diagnoses = seeds(flatness=np.where(NOISY, 0.3, 0.8))
    found = verify(diagnoses, recipe=True)
    assert verdicts(found, "C2 rank") == ["supported", "absent"]
    assert verdicts(found, "rank of the centred kernel") == ["supported", "absent"]
    row = rows(found).loc[("C2 rank", "noisy")]
    alone = [
        verify(one).claims.set_index(["statistic", "end"]).loc[(row["statistic"], "noisy"), "effect"]
        for one in diagnoses
    ]
    wanted = over_seeds(alone)
    assert [row["effect"], row["low"], row["high"]] == pytest.approx([wanted.effect, wanted.low, wanted.high])
    assert row["seeds"] == 5 and row["p"] < 0.05 and row["controls"] == 0
    assert "the kernel collapses at the noisy end of the range." in found.text
    assert "samples are told apart in fewer" in found.text
    assert "Whether it was so before training was not tested" in found.text
    assert "that training did this is not shown" in found.text


def test_a_shared_answer_is_no_loss_of_directions() -> None:
    found = verify(seeds(mean=np.where(NOISY, 5.0, 0.5), samples=128, shared=0.98), recipe=True)
    assert verdicts(found, "C2 rank")[0] == "supported"
    assert verdicts(found, "rank of the centred kernel")[0] == "absent"
    assert "samples are still told apart" in found.text
    assert "only the shared answer grows" in found.text


def test_a_rank_that_rises_contradicts_and_a_weak_end_is_found() -> None:
    rises = verify(seeds(flatness=np.where(NOISY, 0.8, 0.3)), recipe=True)
    assert verdicts(rises, "C2 rank")[0] == "contradicted"
    assert "Towards noise the kernel does not lose rank (C2 contradicted)" in rises.text
    weak = verify(seeds(size=np.where(NOISY, 0.2, 1.0), shared=1.0), recipe=True)
    assert verdicts(weak, "C1 strength") == ["supported", "absent"]
    assert rows(weak).loc[("C1 strength", "noisy"), "effect"] == pytest.approx(math.log(5))


def test_seeds_that_disagree_leave_it_open() -> None:
    mixed = [
        one
        for fallen, group in ((0.3, 3), (0.8, 3))
        for one in seeds(count=group, flatness=np.where(NOISY, fallen, 0.8), name=str(fallen))
    ]
    found = verify(mixed, recipe=True)
    assert verdicts(found, "C2 rank")[0] == "inconclusive"
    assert "at the noisy end that is open" in found.text or "open at both ends" in found.text


def test_fresh_networks_stand_beside_and_each_counts_once() -> None:
    fresh = [simulate(flatness=0.78 + 0.01 * k, seed=0, **SIZE) for k in range(4)]
    for place, one in enumerate(fresh):
        one.meta["network"]["digest"] = f"fresh {place}"
    diagnoses = seeds(flatness=np.where(NOISY, 0.3, 0.8))
    for one in diagnoses:
        one.refs = {
            "untrained" if not k else f"untrained {k + 1}": control for k, control in enumerate(fresh)
        }
    found = verify(diagnoses, recipe=True)
    row = rows(found).loc[("C2 rank", "noisy")]
    assert row["controls"] == 4 and row["learned"] == "learned"
    assert row["control_low"] < row["control_mean"] < row["control_high"] < row["effect"]
    assert row["net"] == pytest.approx(row["effect"] - row["control_mean"])
    assert "Training did this: the" in found.text and "in 4 fresh networks by" in found.text
    assert "ntkdiag weights --score bayes" in found.text


def test_a_statistic_that_does_not_exist_in_a_seed_decides_nothing() -> None:
    diagnoses = seeds()
    diagnoses[2].grams["trace"][0] = 0.0
    found = verify(diagnoses, recipe=True)
    row = rows(found).loc[("C2 rank", "noisy")]
    assert row["verdict"] == "inconclusive" and "not defined" in row["note"] and math.isnan(row["p"])
    assert rows(found).loc[("C2 rank", "clean"), "verdict"] == "absent"


# --- C3


def shares(target: str) -> np.ndarray:
    return np.square(amplitude(target, schedules.cosine(), np_tensor(levels())).numpy())


def np_tensor(values: np.ndarray) -> Any:
    import torch

    return torch.from_numpy(values)


def following(follows: bool) -> RecipeVerification:
    """Recipes of three targets, whose flatness follows their share, or the same curve of noise in all."""
    found: list[Diagnosis] = []
    for target in ("epsilon", "x0", "v"):
        share = np.clip(shares(target), 0.02, None)
        curve = share if follows else 1 / (1 + np.exp(-levels() / 3))
        found += seeds(target, share=share, flatness=0.2 + 0.65 * np.clip(curve, 0, 1))
    return verify(found, recipe=True)


def test_one_target_does_not_decide_what_it_follows() -> None:
    found = verify(seeds(), recipe=True)
    assert found.slopes.empty
    assert "is not testable: it needs networks of another target, from the same seeds" in found.text


def test_ranks_that_follow_the_share_between_targets() -> None:
    found = following(True)
    slopes = found.slopes.set_index(["statistic", "follows"])
    row = slopes.loc[("effective_rank", "recoverable share")]
    assert row["verdict"] == "supported" and row["slope"] > row["low"] > 0.1
    assert row["claim"] == "C3 recoverability" and row["recipes"] == 3 and row["seeds"] == 5
    assert found.claims["recipe"].unique().tolist() == ["epsilon", "x0", "v"]
    assert "the effective rank follows the recoverable share (C3 supported" in found.text
    assert "This is one data set (points)" in found.text


def test_ranks_that_follow_the_noise_alone_have_no_slope_between_targets() -> None:
    slopes = following(False).slopes
    assert slopes["verdict"].tolist() == ["absent", "absent"]
    assert slopes["slope"].abs().max() < 1e-6


def test_a_training_density_that_differs_is_a_ruler_too() -> None:
    found: list[Diagnosis] = []
    for target in ("epsilon", "x0", "v"):
        for schedule in ({"name": "cosine"}, {"name": "linear_beta"}):
            group = seeds(target, share=np.clip(shares(target), 0.02, None), name=schedule["name"])
            for one in group:
                one.meta["config"]["schedule"] = schedule
            found += group
    both = verify(found, recipe=True)
    assert both.slopes["follows"].tolist() == ["recoverable share", "training density"] * 2
    assert both.claims["recipe"].nunique() == 6 and "v on linear_beta" in both.text
    for one in found[5:10]:
        one.meta["config"]["schedule"] = {"name": "somebody's own"}
    assert "the density of training, which differs and is not known" in verify(found, recipe=True).text


def test_the_smallest_slope_that_counts() -> None:
    assert smallest_slope(np.log([[0.1, 1.0], [1.0, 1.0]])) == pytest.approx(MARGIN / math.log(10))


# --- form


def test_repr_is_short_and_the_document_is_json() -> None:
    found = verify(seeds(), recipe=True)
    assert repr(found) == "RecipeVerification(C2 rank: v absent at the noisy end, v absent at the clean end)"
    document = json.loads(json.dumps(plain(found.document()), allow_nan=False))
    assert document["text"] == found.text and len(document["claims"]) == 6 and document["slopes"] == []
    html = found._repr_html_()
    assert html.startswith("<p>Recipe v: 5 training seeds of one network (Net)") and "<table" in html


def test_names_are_escaped() -> None:
    diagnoses = seeds()
    for one in diagnoses:
        one.meta["data"]["name"] = "<script>"
    assert "<script>" not in verify(diagnoses, recipe=True)._repr_html_()


# --- refusals


def changed(how: Any) -> dict[str, Diagnosis]:
    found = {f"runs/{place}": one for place, one in enumerate(seeds())}
    how(found["runs/3"])
    return found


def other_levels(one: Diagnosis) -> None:
    one.summary["log_snr"] += 0.5


def other_samples(one: Diagnosis) -> None:
    one.grams["trace"] = one.grams["trace"][:, :60, :60]


@pytest.mark.parametrize(
    ("how", "field"),
    [
        (other_levels, "buckets"),
        (other_samples, "samples"),
        (lambda one: one.meta["config"].update(probes=9), "probes"),
        (lambda one: one.meta["config"].update(seed=9), "seed of the draws"),
        (lambda one: one.meta["data"].update(digest="9"), "data"),
        (lambda one: one.meta["network"].update(parameters=9), "network"),
    ],
)
def test_seeds_that_were_not_measured_alike_are_refused(how: Any, field: str) -> None:
    with pytest.raises(InputError, match=f"{field} of the training seeds") as caught:
        verify(changed(how), recipe=True)
    assert "'runs/0'" in str(caught.value) and "'runs/3'" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_no_recipe_is_refused() -> None:
    with pytest.raises(InputError, match="training seeds of v on cosine: expected at least 5; got 4"):
        verify(seeds(count=4), recipe=True)
    with pytest.raises(InputError, match="at least 5 diagnoses; got none"):
        verify([], recipe=True)
    with pytest.raises(InputError, match="each network once; got the same network as 'diagnosis 1' and"):
        verify([*seeds(), seeds(count=1)[0]], recipe=True)
    with pytest.raises(
        InputError, match="of x0 on cosine: expected at least 5, beside v on cosine as of 'di"
    ):
        verify([*seeds(), *seeds("x0", count=1)], recipe=True)
    with pytest.raises(InputError, match="of x0 on cosine: expected 6, as of v on cosine"):
        verify([*seeds(count=6), *seeds("x0")], recipe=True)
    with pytest.raises(InputError, match="what to verify: expected a Diagnosis"):
        verify(seeds()[0], recipe=True)  # type: ignore[call-overload]
    with pytest.raises(InputError, match="a list of diagnoses; got str"):
        verify(["a"] * 5, recipe=True)  # type: ignore[list-item]
