"""Effects at the two ends: their formula, their limits over many draws, the four words, and what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
from claims_cases import kernels

from ntkdiag.claims.effects import SHOWN, effect_values, effects
from ntkdiag.claims.ends import contrast, thirds
from ntkdiag.claims.simultaneous import single_level
from ntkdiag.claims.words import THRESHOLD, word
from ntkdiag.errors import InputError
from ntkdiag.spectra import Replicates, contrast_interval, evaluate

LEVELS = np.linspace(-9, 9, 6)
END_FALLS = np.array([0.5, 0.5, 1, 1, 1, 1])


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (0.1, 0.5, "falls"),
        (-0.5, -0.1, "rises"),
        (-0.09, 0.09, "absent"),
        (0.02, 0.09, "absent"),
        (0.09, 0.5, "cannot say"),
        (-0.5, 0.5, "cannot say"),
        (math.nan, math.nan, "cannot say"),
        (THRESHOLD, 0.2, "cannot say"),
        (-THRESHOLD, THRESHOLD, "absent"),
    ],
)
def test_words(low: float, high: float, said: str) -> None:
    assert word(low, high) == said


@pytest.mark.parametrize(
    ("count", "sizes"), [(3, (1, 1, 1)), (4, (1, 2, 1)), (5, (2, 1, 2)), (8, (3, 2, 3)), (10, (3, 4, 3))]
)
def test_thirds_of_the_range(count: int, sizes: tuple[int, int, int]) -> None:
    levels = np.random.default_rng(count).permutation(np.linspace(-4, 4, count))
    parts = thirds(levels)
    assert tuple(int(parts[name].sum()) for name in ("noisy", "middle", "clean")) == sizes
    assert np.sum(list(parts.values())) == count
    assert levels[parts["noisy"]].max() < levels[parts["middle"]].min()
    assert levels[parts["middle"]].max() < levels[parts["clean"]].min()
    assert contrast(levels, "clean").sum() == pytest.approx(0)


def test_an_effect_is_the_mean_logarithm_of_the_middle_minus_that_of_the_end() -> None:
    grams, _ = kernels(LEVELS, size=END_FALLS)
    found = effects(LEVELS, grams)
    for name in SHOWN:
        values = np.array([float(evaluate(name, gram)) for gram in grams])
        noisy = np.log(values[2:4]).mean() - np.log(values[:2]).mean()
        row = found[name, "noisy"]
        assert row.effect == pytest.approx(noisy, abs=1e-12)
        assert row.effect == pytest.approx(math.log(row.middle / row.at_end))
        assert row.low < row.effect < row.high
        clean = np.log(values[2:4]).mean() - np.log(values[4:]).mean()
        assert found[name, "clean"].effect == pytest.approx(clean, abs=1e-12)


def test_the_order_of_buckets_does_not_matter() -> None:
    grams, probes = kernels(LEVELS, size=END_FALLS, probes=4)
    order = np.array([4, 0, 5, 2, 1, 3])
    first = effects(LEVELS, grams, probes, statistics=["trace", "centred_effective_rank"])
    second = effects(
        LEVELS[order], grams[order], probes[order], statistics=["trace", "centred_effective_rank"]
    )
    np.testing.assert_allclose(
        first.frame()[["effect", "low", "high"]], second.frame()[["effect", "low", "high"]], rtol=1e-9
    )


def test_limits_are_those_of_spectra_at_the_simultaneous_level() -> None:
    grams, probes = kernels(LEVELS, size=END_FALLS, probes=5)
    found = effects(LEVELS, grams, probes, statistics=["trace", "effective_rank"])
    expected = contrast_interval(
        "effective_rank",
        grams,
        lambda s: np.log(s) @ contrast(LEVELS, "noisy"),
        level=found.single_level,
        per_probe=probes,
    )
    row = found["effective_rank", "noisy"]
    assert (row.effect, row.low, row.high) == pytest.approx((expected.value, expected.low, expected.high))
    assert 0.9 < found.single_level < 1 - 0.1 / 4
    assert "4 effects" in found.method and "5 probes" in found.method


def test_one_effect_alone_needs_no_correction_and_copies_none_either() -> None:
    rng = np.random.default_rng(0)
    values = rng.standard_normal(40)
    one = Replicates(0.0, values)
    assert single_level([one], 40, 0.9) == pytest.approx(0.9, abs=0.004)
    assert single_level([one] * 6, 40, 0.9) == pytest.approx(0.9, abs=0.004)
    unrelated = [Replicates(0.0, rng.standard_normal(40)) for _ in range(10)]
    bonferroni = 1 - 0.1 / 10
    assert bonferroni - 0.006 < single_level(unrelated, 40, 0.9) <= bonferroni


@pytest.mark.parametrize("norms", [0.0, 0.3])
def test_all_limits_hold_together(norms: float) -> None:
    """Nominal: some lower limit too high in 5% of draws, some upper limit too low in 5%; 100 draws."""
    names = ["trace", "effective_rank", "participation_ratio_pairs", "centred_trace", "shared_share"]
    # All buckets have one population, so that every true effect is zero.
    above, below = 0, 0
    for seed in range(100):
        grams, _ = kernels(LEVELS, samples=24, seed=seed, norms=norms, mean=1.0)
        rows = effects(LEVELS, grams, statistics=names).effects
        above += any(row.low > 0 for row in rows)
        below += any(row.high < 0 for row in rows)
    assert above <= 100 * 0.05 + 3 * math.sqrt(100 * 0.05 * 0.95)
    assert below <= 100 * 0.05 + 3 * math.sqrt(100 * 0.05 * 0.95)
    assert above + below >= 2  # limits that never fail are too wide


def test_words_at_the_margin_and_beyond() -> None:
    """The trace falls by 1.1 at one end: 'falls' and 'absent' are wrong there in at most 5%; by 1.5 it is found."""
    said = []
    for seed in range(60):
        size = np.array([1 / 1.1, 1 / 1.1, 1, 1, 1 / 1.5, 1 / 1.5])
        grams, _ = kernels(LEVELS, size=size, samples=32, seed=seed, shared=0.9)
        found = effects(LEVELS, grams, statistics=["trace", "effective_rank"])
        said.append((found["trace", "noisy"].word, found["trace", "clean"].word))
    noisy, clean = zip(*said, strict=True)
    assert noisy.count("falls") <= 8 and noisy.count("absent") <= 8
    assert clean.count("falls") >= 54


def test_a_fall_seen_from_the_other_side_is_a_rise() -> None:
    grams, _ = kernels(LEVELS, size=np.array([2.0, 2, 1, 1, 1, 1]), samples=48, shared=0.95)
    found = effects(LEVELS, grams)
    assert found["trace", "noisy"].word == "rises"
    assert found["trace", "clean"].word == "absent"


def test_the_bias_by_few_probes_is_removed() -> None:
    """Buckets of unequal rank gain unequally from the noise of four probes."""
    naive, corrected = [], []
    exact, _ = kernels(LEVELS, flatness=np.array([0.5, 0.5, 0.9, 0.9, 0.9, 0.9]), samples=48, shared=1.0)
    truth = effect_values(LEVELS, exact, statistics=["effective_rank"])["effective_rank", "noisy"]
    for seed in range(40):
        grams, probes = kernels(
            LEVELS,
            flatness=np.array([0.5, 0.5, 0.9, 0.9, 0.9, 0.9]),
            samples=48,
            shared=1.0,
            probes=4,
            probe_noise=0.6,
            probe_seed=seed,
        )
        for into, known in ((naive, None), (corrected, probes)):
            values = effect_values(LEVELS, grams, known, statistics=["effective_rank"])
            into.append(values["effective_rank", "noisy"])
    assert abs(np.mean(corrected) - truth) < 0.5 * abs(np.mean(naive) - truth)


def test_values_alone_are_those_of_the_table() -> None:
    grams, probes = kernels(LEVELS, size=END_FALLS, probes=4)
    table = effects(LEVELS, grams, probes)
    for (name, end), value in effect_values(LEVELS, grams, probes).items():
        assert value == pytest.approx(table[name, end].effect, abs=1e-12)


def test_what_cannot_be_said_has_a_reason() -> None:
    grams, probes = kernels(LEVELS, probes=2)
    few = effects(LEVELS, grams, probes, statistics=["trace"])["trace", "noisy"]
    assert few.word == "cannot say" and "fewer than 3 probes" in few.note and np.isnan(few.low)
    assert np.isfinite(few.effect)
    grams, _ = kernels(LEVELS)
    grams[0] = 0.0
    found = effects(LEVELS, grams)
    assert found["trace", "noisy"].word == "cannot say" and "zero" in found["trace", "noisy"].note
    assert found["trace", "clean"].note == "" and np.isfinite(found["trace", "clean"].low)


def test_a_kernel_that_is_one_shared_answer_has_no_centred_effects() -> None:
    grams, _ = kernels(LEVELS)
    grams[:2] = 0.7 / 3
    found = effects(LEVELS, grams)
    assert found["centred_effective_rank", "noisy"].word == "cannot say"
    assert found["centred_participation_ratio_pairs", "noisy"].word == "cannot say"
    assert found["shared_share", "noisy"].at_end == pytest.approx(1)


def test_refusals() -> None:
    grams, probes = kernels(LEVELS, probes=3)
    with pytest.raises(InputError, match="at least 3, one for each third"):
        effects(LEVELS[:2], grams[:2])
    with pytest.raises(InputError, match="at least 8 a bucket"):
        effects(LEVELS, grams[:, :7, :7])
    with pytest.raises(InputError, match="one for each of 5 buckets"):
        effects(LEVELS[:5], grams)
    with pytest.raises(InputError, match="another value in each bucket"):
        effects(np.zeros(6), grams)
    with pytest.raises(InputError, match="per_probe"):
        effects(LEVELS, grams, probes[:, :, :9, :9])
