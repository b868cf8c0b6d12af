"""The answer about one network: its words follow what is planted, its text follows the words, and what is refused."""

from __future__ import annotations

import json
import re
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from claims_cases import levels, simulate

import ntkdiag as nd
from ntkdiag.claims import ANSWER_COLUMNS, CLAIMS, COLUMNS, Verification, verify
from ntkdiag.claims.verification import NO_STEP_RANGE
from ntkdiag.cli.output.json_document import plain
from ntkdiag.errors import InputError

NOISY, CLEAN = levels() < -4, levels() > 4
RANK = {"samples": 64, "shared": 0.9}


def shaped(noisy: float, middle: float, clean: float) -> np.ndarray:
    return np.where(NOISY, noisy, np.where(CLEAN, clean, middle))


def words(found: Verification, statistic: str) -> list[str]:
    rows = found.claims[found.claims["statistic"] == statistic]
    return rows["word"].tolist()


# --- words and text


def test_a_collapse_at_one_end_is_found_there_and_nowhere_else() -> None:
    found = verify(simulate(flatness=shaped(0.3, 0.8, 0.8), **RANK))
    assert words(found, "effective_rank") == ["falls", "absent"]
    assert "In this network the kernel collapses at the noisy end of the range." in found.text
    assert "Towards clean data the effective rank stays within 10%" in found.text
    assert "was not tested, since no fresh network was measured" in found.text
    assert found.answers.set_index("claim").loc["C2", ["noisy", "clean"]].tolist() == ["falls", "absent"]
    row = found.claims[
        (found.claims["statistic"] == "effective_rank") & (found.claims["end"] == "noisy")
    ].iloc[0]
    assert (
        f"from {row['middle']:.3g} in the middle" in found.text
        and f"to {row['at_end']:.3g} in the noisy" in found.text
    )


def test_a_collapse_at_both_ends_and_a_rise() -> None:
    both = verify(simulate(flatness=shaped(0.3, 0.8, 0.3), **RANK))
    assert "collapses at both ends of the range" in both.text
    rise = verify(simulate(flatness=shaped(0.8, 0.3, 0.3), **RANK))
    assert words(rise, "effective_rank")[0] == "rises"
    assert "Towards noise the effective rank rises from" in rise.text
    assert "does not collapse at either end" in rise.text


def test_nothing_planted_keeps_the_weights() -> None:
    found = verify(simulate(samples=96, shared=0.98))
    assert words(found, "effective_rank") == ["absent", "absent"]
    assert "does not collapse" in found.text and "keep the weights" in found.text


def test_too_few_samples_cannot_say() -> None:
    found = verify(simulate(flatness=shaped(0.65, 0.7, 0.7), samples=8, shared=0.0))
    assert words(found, "effective_rank")[0] == "cannot say"
    assert "cannot rule it out" in found.text and "--level thorough" in found.text


def test_one_shared_answer_is_told_from_a_loss_of_directions() -> None:
    """A mean that all samples share grows at the noisy end; the kernel without it keeps its rank."""
    mean = shaped(5.0, 0.5, 0.5)
    found = verify(simulate(samples=128, shared=0.98, mean=mean))
    assert words(found, "effective_rank")[0] == "falls"
    assert words(found, "centred_effective_rank")[0] == "absent"
    assert words(found, "shared_share")[0] == "rises"
    assert "mostly one shared answer" in found.text
    assert "samples are still told apart, and none of these directions is lost" in found.text
    assert "this calls for no other loss weights" in found.text


def test_directions_that_are_lost_are_said_to_be_and_weights_follow_only_if_training_lost_them() -> None:
    planted: dict[str, Any] = {"flatness": shaped(0.3, 0.8, 0.8), **RANK}
    alone = verify(simulate(**planted))
    assert words(alone, "centred_effective_rank")[0] == "falls"
    assert "samples are told apart in fewer directions" in alone.text
    assert "nothing follows for the weights" in alone.text
    fresh = [simulate(flatness=0.78 + 0.01 * k, seed=k, **RANK) for k in range(4)]
    learned = verify(simulate(**planted, controls=fresh))
    assert "Training made the rank fall: it changes by" in learned.text
    assert "Training made the rank without the shared answer fall: it changes by" in learned.text
    assert "training lost directions" in learned.text and "ntkdiag weights --score bayes" in learned.text
    exact = learned.diagnosis.summary["bayes_share"][NOISY].mean()
    assert f"{100 * exact:.0f}% of the target can be recovered" in learned.text


def test_what_fresh_networks_show_too_is_not_put_down_to_training() -> None:
    planted: dict[str, Any] = {"flatness": shaped(0.3, 0.8, 0.8), **RANK}
    same = [simulate(**planted, seed=k) for k in range(1, 6)]
    found = verify(simulate(**planted, controls=same))
    rows = found.claims.set_index(["statistic", "end"])
    assert rows.loc[("effective_rank", "noisy"), "learned"] == "as untrained"
    assert rows.loc[("effective_rank", "noisy"), "controls"] == 5
    assert "That the rank falls was so before training: it changes by" in found.text
    assert "that training did this is not shown" in found.text


def test_a_large_shared_answer_is_said_to_hide_the_other_directions() -> None:
    hiding = verify(simulate(mean=shaped(6.0, 0.2, 0.2), **RANK))
    assert words(hiding, "effective_rank")[0] == "falls"
    assert "one large eigenvalue, beside which the rank hardly counts" in hiding.text
    plain = verify(simulate(flatness=shaped(0.3, 0.8, 0.8), **RANK))
    assert words(plain, "effective_rank")[0] == "falls"
    assert "one large eigenvalue" not in plain.text


def test_raw_and_net_of_opposite_sign_claim_nothing() -> None:
    further = [simulate(flatness=shaped(0.1 + 0.002 * k, 0.8, 0.8), **RANK) for k in range(4)]
    found = verify(simulate(flatness=shaped(0.5, 0.8, 0.8), **RANK, controls=further))
    row = found.claims.set_index(["statistic", "end"]).loc[("effective_rank", "noisy")]
    assert row["effect"] > 0 > row["net"] and row["learned"] == "no claim"
    assert "not claimed, since it falls even more in fresh networks: it changes by" in found.text
    higher = [simulate(flatness=shaped(0.9 - 0.002 * k, 0.3, 0.3), **RANK) for k in range(4)]
    rise = verify(simulate(flatness=shaped(0.8, 0.3, 0.3), **RANK, controls=higher))
    row = rise.claims.set_index(["statistic", "end"]).loc[("effective_rank", "noisy")]
    assert row["word"] == "rises" and row["learned"] == "no claim"
    assert "That training made the rank rise is not claimed, since it rises even more in fresh" in rise.text


@pytest.mark.parametrize(
    ("noisy", "middle", "said"),
    [(0.3, 0.8, "the two show that it falls"), (0.8, 0.3, "the two show that it rises")],
)
def test_a_change_of_rank_says_what_few_samples_do_to_it(noisy: float, middle: float, said: str) -> None:
    text = verify(simulate(flatness=shaped(noisy, middle, middle), **RANK)).text
    assert f"A rank from 64 samples is too low, the more so the higher it is: {said}" in text
    steady = verify(simulate(samples=96, shared=0.98)).text
    assert "is too low" not in steady


def test_one_control_shows_its_change_without_a_band() -> None:
    found = verify(simulate(flatness=shaped(0.3, 0.8, 0.8), **RANK, controls=[simulate(**RANK)]))
    assert "one network: how others differ is not known" in found.text
    assert set(found.claims["learned"]) == {"not tested"}


def test_a_zero_start_is_said() -> None:
    found = verify(simulate(zero_start=["out.weight"], **RANK))
    assert "at its zero start: its last layer (out.weight)" in found.text
    assert "measure again after some training" in found.text


def test_noise_levels_that_training_never_sees_do_not_enter() -> None:
    diagnosis = simulate(flatness=shaped(0.3, 0.8, 0.8), **RANK)
    diagnosis.summary["extrapolated"] = NOISY
    found = verify(diagnosis)
    assert "at 7 noise levels, from log-SNR −3" in found.text
    assert "never saw log-SNR −9, −7, −5 in training, so what was measured there does not enter" in found.text
    assert words(found, "effective_rank")[0] == "absent"


# --- tables


def test_the_table_has_a_row_for_each_statistic_and_end() -> None:
    found = verify(simulate(samples=32, probes=4))
    assert list(found.claims.columns) == list(COLUMNS) and len(found.claims) == 18
    assert found.claims["claim"].tolist() == ["C1"] * 8 + ["C2"] * 10
    assert list(found.answers.columns) == list(ANSWER_COLUMNS)
    assert found.answers["claim"].tolist() == ["C1", "C2", "C3", "C4", "C5", "C6"] == list(CLAIMS)
    assert found.claims["note"].eq("").all() and found.claims["low"].notna().all()
    c3 = found.answers.set_index("claim").loc["C3"]
    assert c3["noisy"] == c3["clean"] == "not testable" and "Not testable for one network" in c3["text"]
    assert "18 effects" in found.method


def test_contamination_and_shares_are_described() -> None:
    found = verify(simulate(samples=32))
    texts = found.answers.set_index("claim")["text"]
    assert "By the exact posterior, its share is 81%" in texts["C4"] and "new ones" not in texts["C4"]
    assert "(log-SNR −9, −7, −5), the part" in texts["C5"] and "of the loss and" in texts["C5"]
    diagnosis = simulate(samples=32)
    diagnosis.summary = diagnosis.summary.rename(
        columns={f"contamination{end}": f"contamination_finite{end}" for end in ("", "_low", "_high")}
    )
    assert "posterior of the finite training set, which recognises" in verify(diagnosis).answers["text"][3]
    diagnosis.summary = diagnosis.summary.drop(columns=["contamination_finite", "floor"])
    answers = verify(diagnosis).answers.set_index("claim")
    assert answers.loc[["C4", "C5"], "noisy"].tolist() == ["not testable", "not testable"]


@pytest.mark.parametrize(
    ("scale", "word", "meaning"),
    [
        (1.0, "does not hold", "which is not most of either"),
        (40.0, "holds", "which is most of both"),
    ],
)
def test_domination_is_judged_by_its_limits(scale: float, word: str, meaning: str) -> None:
    """The loss and the gradient of the three noisiest levels, which have the highest floor, are made larger."""
    diagnosis = simulate(samples=32)
    diagnosis.grams["losses"][:3] *= scale
    energy = diagnosis.grams["residual"].diagonal()
    energy[:] = 1.0
    energy[: 3 * 32] *= scale
    answer = verify(diagnosis).answers.set_index("claim").loc["C5"]
    assert answer["noisy"] == answer["clean"] == word
    assert meaning in answer["text"]


def test_shares_are_shares_and_an_interval_of_everything_says_nothing() -> None:
    diagnosis = simulate(samples=32)
    summary = diagnosis.summary
    summary["contamination"], summary["contamination_low"], summary["contamination_high"] = 0.5, 0.4, 0.6
    summary.loc[:2, ["contamination", "contamination_low", "contamination_high"]] = [1.01, 0.95, 1.2]
    summary.loc[7:, ["contamination_low", "contamination_high"]] = [-0.1, 1.3]
    text = verify(diagnosis).answers["text"][3]
    assert "its share is 100% [95%, 100%] at the noisy end, 50% [40%, 60%] in the middle" in text
    assert "not known at the clean end ([0%, 100%] leaves nearly everything open)" in text


@pytest.mark.parametrize(
    ("noise", "share", "exact", "said"),
    [
        (
            0.0,
            0.42,
            False,
            "of new ones up to 58% of the target cannot be recovered there, which is the floor",
        ),
        (0.0, 0.42, True, "of new ones 58% of the target cannot be recovered there"),
        (0.0, 0.95, False, ""),
        (0.3, 0.42, False, ""),
    ],
)
def test_noise_of_a_memorising_posterior_is_set_against_the_floor(
    noise: float, share: float, exact: bool, said: str
) -> None:
    diagnosis = simulate(samples=32)
    summary = diagnosis.summary.drop(columns=["contamination", "contamination_low", "contamination_high"])
    summary["contamination_finite"] = summary["contamination_finite_low"] = noise
    summary["contamination_finite_high"], summary["bayes_share"] = noise + 0.1, share
    summary["excess"] = 0.1 if exact else np.nan
    diagnosis.summary = summary
    text = verify(diagnosis).answers["text"][3]
    assert ("of new ones" in text) == bool(said) and said in text


@pytest.mark.parametrize("exact", [True, False])
def test_a_claim_says_which_end_is_less_recoverable_and_what_speaks_against_it(exact: bool) -> None:
    diagnosis = simulate(size=shaped(0.3, 1.0, 4.0), **RANK)
    parts = [0.1] * 3 + [0.5] * 4 + [0.2] * 3
    diagnosis.summary["bayes_share"] = parts
    diagnosis.summary["excess"] = 0.1 if exact else np.nan
    own = "this network on held-out samples"
    diagnosis.meta["bayes_bounds"] = ["linear denoiser"] * 8 + [own] * 2
    answer = verify(diagnosis).answers.set_index("claim").loc["C1"]
    assert (answer["noisy"], answer["clean"]) == ("falls", "rises")
    bound = "" if exact else "at least "
    assert (
        f"less recoverable than the middle ({bound}10% of the target; {bound}50% in the middle), which is as"
        in answer["text"]
    )
    assert (
        f"({bound}20% of the target; {bound}50% in the middle), and a rise there is against the claim"
        in answer["text"]
    )
    assert ("The bounds at log-SNR 7, 9 come from this network's own loss" in answer["text"]) is not exact
    diagnosis.meta["bayes_bounds"] = ["linear denoiser"] * 10
    assert "own loss" not in verify(diagnosis).answers["text"][0]
    diagnosis.summary["bayes_share"] = [0.5] * 7 + [0.9] * 3
    text = verify(diagnosis).answers["text"][0]
    assert "about as recoverable as the middle" in text and "so a fall there is not what is claimed" in text
    assert "the clean end is more recoverable than the middle" in text


def test_repr_is_short_and_the_document_comes_back() -> None:
    diagnosis = simulate(flatness=shaped(0.3, 0.8, 0.8), **RANK)
    found = verify(diagnosis)
    assert repr(found) == "Verification(effective rank: falls at the noisy end, absent at the clean end)"
    assert found._repr_html_().startswith(
        "<p>In this network the kernel collapses at the noisy end of the range. "
    )
    assert [part.split()[0] for part in found.text.split("\n\n")] == [
        "In", "Towards", "Towards", "What", "How",
    ]  # fmt: skip
    text = json.dumps(plain(found.document()), allow_nan=False)
    again = Verification.from_document(json.loads(text), diagnosis)
    assert again.text == found.text and again.method == found.method
    pd.testing.assert_frame_equal(again.answers, found.answers)
    np.testing.assert_allclose(again.claims["effect"], found.claims["effect"])
    for broken in ({}, {"text": 1}, [], {**found.document(), "claims": [{"a": 1}]}):
        with pytest.raises((KeyError, TypeError, ValueError)):
            Verification.from_document(broken, diagnosis)


def test_equal_data_give_equal_answers() -> None:
    first, second = (verify(simulate(samples=24, probes=3)) for _ in range(2))
    assert first.text == second.text
    pd.testing.assert_frame_equal(first.claims, second.claims)
    pd.testing.assert_frame_equal(first.rulers, second.rulers)


# --- from a network, and refusals


def make(seed: int) -> nd.Denoiser:
    network = nd.models.build("mlp", (2,), seed=seed, width=8, depth=1, frequencies=2)
    return nd.Denoiser(network, nd.schedules.cosine(), "v", call="log_snr")


def test_a_network_is_measured_with_its_controls() -> None:
    data = nd.data.mixture(train=64, held_out=4)
    found = verify(make(0), data, 4, samples=12, probes=1, seed=2, fresh=make, controls=2)
    assert list(found.diagnosis.refs) == ["untrained", "untrained 2"]
    assert found.diagnosis.meta["config"]["samples"] == 12
    again = verify(found.diagnosis)
    assert again.text == found.text
    assert "quick" and verify(make(0), data, 3, level="quick").diagnosis.meta["config"]["samples"] == 64


def test_several_diagnoses_are_answered_one_by_one() -> None:
    one, two = simulate(samples=16), simulate(samples=16, seed=1)
    found = verify([one, two])
    assert [one.text for one in found] == [verify(one).text, verify(two).text]


def test_bad_input_is_refused_in_words() -> None:
    diagnosis = simulate(samples=16)
    with pytest.raises(InputError, match="data: expected the data to measure the network on"):
        verify(make(0))
    with pytest.raises(InputError, match="nothing beside a diagnosis"):
        verify(diagnosis, nd.data.mixture(train=16, held_out=4))
    with pytest.raises(InputError, match="what to verify: expected a Diagnosis"):
        verify("runs/mine")  # type: ignore[call-overload]
    with pytest.raises(InputError, match="a list of diagnoses; got str"):
        verify([diagnosis, "x"])  # type: ignore[call-overload]
    with pytest.raises(InputError, match="level"):
        verify(make(0), nd.data.mixture(train=16, held_out=4), level="slow")
    with pytest.raises(InputError, match="reference 'untrained': expected 10 buckets of 16 samples"):
        verify(simulate(samples=16, controls=[simulate(samples=12)]))
    with pytest.raises(InputError, match="at least 8 a bucket"):
        verify(simulate(samples=7))
    with pytest.raises(InputError, match="at least 3, one for each third"):
        verify(simulate(samples=16, log_snr=levels(2)))


def test_every_answer_ends_with_how_long_the_kernel_describes_training() -> None:
    diagnosis = simulate(flatness=shaped(0.3, 0.8, 0.8), **RANK)
    without = verify(diagnosis)
    assert without.step_range == NO_STEP_RANGE and without.text.endswith(f"\n\n{NO_STEP_RANGE}")
    assert not re.search(r"\d", NO_STEP_RANGE)  # no number without a measurement
    known = SimpleNamespace(step_range="This kernel describes about the next 3 steps.")
    found = verify(diagnosis, trust=known)
    assert found.text == without.text.replace(NO_STEP_RANGE, known.step_range)
    assert without.beside(known).text == found.text == found.beside(known).text
    assert diagnosis.verify(known).text == found.text
    diagnosis.meta["step_range"] = "Measured with it."
    assert (
        verify(diagnosis).text.endswith("\n\nMeasured with it.")
        and verify(diagnosis, trust=known).text == found.text
    )
    diagnosis.meta["step_range"] = 5
    assert verify(diagnosis).step_range == NO_STEP_RANGE
    with pytest.raises(
        InputError, match=r"trust: expected what nd\.trust\.linearization or .* returns; got int"
    ):
        verify(diagnosis, trust=3)
    with pytest.raises(InputError, match="trust: expected one network beside it; got several diagnoses"):
        verify([diagnosis], trust=known)
