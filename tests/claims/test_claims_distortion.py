"""Distortion beyond Bayes: 0 of the best prediction, found where it is planted, and never found beyond its sign."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import ntkdiag as nd
from ntkdiag.claims.distortion import distortion
from ntkdiag.errors import InputError

LEVELS = np.array([-6.0, -2.0, 0.0, 2.0, 6.0, 8.0])
RANDOM = np.random.default_rng(0)


def gram(features):
    return features @ features.T / features.shape[-1]


def planted(change, ends="noisy", samples=48, dimensions=6):
    """Best predictions of full rank, and outputs that `change` alters at one end."""
    x0 = RANDOM.normal(size=(samples, dimensions))
    best = np.stack([gram(x0 + 0.05 * RANDOM.normal(size=x0.shape)) for _ in LEVELS])
    output = best.copy()
    for place in (0, 1) if ends == "noisy" else (4, 5):
        output[place] = change(x0)
    return distortion(LEVELS, output, best, gram(x0))


def words(found, end):
    rows = found.ends[found.ends["end"] == end]
    return dict(zip(rows["structure"], rows["word"], strict=True))


def test_the_best_prediction_has_no_distortion():
    found = planted(lambda x0: gram(x0))
    same = distortion(
        LEVELS, *(np.stack([gram(RANDOM.normal(size=(20, 4)))] * 6),) * 2, gram(RANDOM.normal(size=(20, 4)))
    )
    assert (same.ends["effect"] == 0).all() and (same.ends["word"] == "absent").all()
    assert set(words(found, "clean").values()) == {"absent"}


def test_lost_directions_are_found_at_their_end_alone():
    for end, other in (("noisy", "clean"), ("clean", "noisy")):
        found = planted(lambda x0: gram(x0 * np.array([1, 1, 0, 0, 0, 0])), end)
        assert words(found, end)["rank"] == "falls" and words(found, end)["neighbours of x0"] == "falls"
        assert set(words(found, other).values()) == {"absent"}
        row = found.ends[(found.ends["end"] == end) & (found.ends["structure"] == "rank")].iloc[0]
        assert row["effect"] == pytest.approx(math.log(6 / 2), abs=0.25)
        assert row["low"] < row["effect"] < row["high"]


def test_noise_of_the_network_adds_rank_and_loses_the_data():
    noise = RANDOM.normal(size=(48, 60))
    found = planted(lambda x0: gram(np.hstack([0.2 * x0, noise])))
    assert words(found, "noisy") == {
        "rank": "rises", "alignment with x0": "falls", "neighbours of x0": "falls",
    }  # fmt: skip


def test_structures_are_those_of_plain_formulas():
    x0, made = RANDOM.normal(size=(16, 4)), RANDOM.normal(size=(16, 5))
    found = distortion(LEVELS, np.stack([gram(made)] * 6), np.stack([gram(x0)] * 6), gram(x0)).buckets
    row = found[found["log_snr"] == 0].set_index("structure")
    values = np.linalg.svd(made - made.mean(0), compute_uv=False) ** 2
    assert row.loc["rank", "output"] == pytest.approx(values.sum() ** 2 / (values**2).sum())
    assert row.loc["alignment with x0", "output"] == pytest.approx(
        nd.spectra.centred_alignment(gram(made), gram(x0))
    )
    assert row.loc["neighbours of x0", "output"] == pytest.approx(
        nd.spectra.neighbour_overlap(gram(made), gram(x0))
    )
    assert row.loc["alignment with x0", "best"] == pytest.approx(1)


def test_a_constant_output_cannot_be_compared():
    found = planted(lambda x0: np.ones((48, 48)))
    assert words(found, "noisy")["rank"] == "cannot say"
    assert words(found, "clean")["rank"] == "absent"


def test_intervals_of_equal_networks_rarely_say_anything():
    """Two noisy versions of the same prediction: any definite difference would be false."""
    false = 0
    for seed in range(20):
        random = np.random.default_rng(seed)
        x0 = random.normal(size=(32, 6))
        one, other = (
            np.stack([gram(x0 + 0.5 * random.normal(size=x0.shape)) for _ in LEVELS]) for _ in range(2)
        )
        said = distortion(LEVELS, one, other, gram(x0)).ends["word"]
        false += bool(said.isin(["falls", "rises"]).any())
    assert false <= 2


@pytest.mark.parametrize("samples", [1, 7])
def test_too_few_samples(samples):
    grams = np.stack([np.eye(samples)] * 6)
    with pytest.raises(InputError, match="samples"):
        distortion(LEVELS, grams, grams, np.eye(samples))


def test_grams_that_do_not_fit():
    grams = np.stack([np.eye(9)] * 6)
    with pytest.raises(InputError, match="Gram matrices of outputs"):
        distortion(LEVELS, grams, grams[:5], np.eye(9))
    with pytest.raises(InputError, match="at least 3"):
        distortion(LEVELS[:2], grams[:2], grams[:2], np.eye(9))


def test_the_claim_reads_the_diagnosis_and_old_ones_are_not_testable(tmp_path):
    network = nd.models.build("mlp", (2,), width=16, depth=1)
    denoiser = nd.Denoiser(network, nd.schedules.cosine(), "x0", call="log_snr")
    diagnosis = nd.measure(denoiser, nd.data.load("mixture"), 3, samples=16, probes=3)
    diagnosis.save(tmp_path / "saved")
    again = nd.Diagnosis.load(tmp_path / "saved")
    answer = again.verify().answers.set_index("claim").loc["C6"]
    assert "exact posterior of the mixture" in answer["text"] and answer["noisy"] != "not testable"
    assert answer["text"] == diagnosis.verify().answers.set_index("claim").loc["C6", "text"]
    del again.grams["output_best"]
    assert again.verify().answers.set_index("claim").loc["C6", "noisy"] == "not testable"
    assert torch.equal(diagnosis.grams["output"], diagnosis.grams["output"].mT)


def test_a_folder_with_outputs_of_another_size_is_refused(tmp_path):
    network = nd.models.build("mlp", (2,), width=16, depth=1)
    denoiser = nd.Denoiser(network, nd.schedules.cosine(), "x0", call="log_snr")
    diagnosis = nd.measure(denoiser, nd.data.load("mixture"), 3, samples=9, probes=3)
    diagnosis.grams["output_data"] = torch.eye(8, dtype=torch.float64)
    diagnosis.save(tmp_path / "saved")
    with pytest.raises(InputError, match="output_data"):
        nd.Diagnosis.load(tmp_path / "saved")
