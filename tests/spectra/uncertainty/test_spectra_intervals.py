"""The jackknife against closed forms; bias by probes, pairing, edges and refusals."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats
from spectra_populations import POWER_LAW, gram

from ntkdiag.errors import InputError
from ntkdiag.spectra import (
    STATISTICS,
    Replicates,
    Statistic,
    contrast_interval,
    evaluate,
    interval_from_replicates,
    mean_interval,
    participation_ratio_pairs,
    subsample_interval,
    subsample_intervals,
)
from ntkdiag.spectra.dense.named_statistics import trace
from ntkdiag.spectra.uncertainty.left_out import leave_out, leave_out_in_buckets, on_subsets, sample_groups

LINEAR_TRACE = Statistic("linear trace", "gram", trace, "linear", "population")


def matrix(seed: int = 0, count: int = 24) -> np.ndarray:
    return gram(POWER_LAW, count, np.random.default_rng(seed))


# ---- groups of samples


@pytest.mark.parametrize(("samples", "sizes"), [(5, {1}), (128, {1}), (129, {1, 2}), (300, {2, 3})])
def test_every_sample_is_left_out_once_in_groups_of_nearly_equal_size(samples: int, sizes: set[int]) -> None:
    groups = sample_groups(samples)
    assert {len(group) for group in groups} == sizes and len(groups) == min(samples, 128)
    np.testing.assert_array_equal(np.concatenate(groups), np.arange(samples))


# ---- the jackknife


@pytest.mark.parametrize("count", [12, 30, 200, 300])
def test_jackknife_of_a_mean_is_its_standard_error(count: int) -> None:
    """Of the trace, a mean of N diagonal entries: s/√N exactly, and nearly so in groups."""
    k = matrix(count=count)
    diagonal = np.diag(k)
    got = subsample_interval(LINEAR_TRACE, k)
    assert got.value == pytest.approx(diagonal.mean())
    exact = diagonal.std(ddof=1) / math.sqrt(count)
    assert got.stderr == pytest.approx(exact, rel=1e-9 if count <= 128 else 0.15)


def test_values_that_are_spread_evenly_give_students_interval() -> None:
    """No skewness and no excess kurtosis: nothing is left to correct."""
    values = np.random.default_rng(0).uniform(4, 5, 12)
    values = np.concatenate([values, 9 - values])
    got = mean_interval(values, scale="linear", level=0.95)
    low, high = stats.t.interval(0.95, 23, values.mean(), values.std(ddof=1) / math.sqrt(24))
    assert (got.value, got.low, got.high) == pytest.approx((values.mean(), low, high))
    assert got.method == "jackknife of 24 samples, linear, t(23)"


def test_the_skewness_correction_inverts_halls_cubic() -> None:
    """The ends are where Hall's transform of the studentised error is ± the quantile, written out from his paper."""
    values = np.random.default_rng(3).exponential(size=40)
    got = mean_interval(values, scale="linear")
    z = (values - values.mean()) / values.std()
    skewness, excess = (z**3).mean() / math.sqrt(40), (z**4).mean() - 3
    quantile = stats.t.ppf(0.95, 2 * 39 / (2 * excess + 2))
    assert skewness > 0.1 and excess > 0.5
    for end, wanted in ((got.low, quantile), (got.high, -quantile)):
        t = (got.value - end) / got.stderr
        found = t + skewness * t**2 / 3 + skewness**2 * t**3 / 27 + skewness / 6
        assert found == pytest.approx(wanted)
    assert got.high - got.value > 1.1 * (got.value - got.low)


def test_heavy_tails_widen_and_the_tail_factor_says_by_how_much() -> None:
    z = np.random.default_rng(3).standard_normal(40)
    z[0] = 4
    reach = {}
    for factor in (0.5, 1.0, 2.0):
        got = interval_from_replicates(Replicates(0.0, z), samples=40, tail_factor=factor)
        excess = 40 * ((z - z.mean()) ** 4).sum() / ((z - z.mean()) ** 2).sum() ** 2 - 3
        assert f"t({max(2.0, 2 * 39 / (factor * excess + 2)):.0f})" in got.method
        reach[factor] = got.high - got.low
    assert reach[0.5] < reach[1.0] < reach[2.0]


@pytest.mark.parametrize(
    ("scale", "forward", "backward"),
    [
        ("linear", lambda x: x, lambda z: z),
        ("log", math.log, math.exp),
        ("root", lambda x: math.sqrt(1 + 19 * x), lambda z: (z**2 - 1) / 19),
    ],
)
def test_intervals_are_symmetric_on_their_scale(scale: str, forward, backward) -> None:  # type: ignore[no-untyped-def]
    z = 1.3 + 0.01 * np.linspace(-1, 1, 20)  # even, so neither skewness nor excess
    got = interval_from_replicates(
        Replicates(backward(1.3), np.vectorize(backward)(z)), samples=20, scale=scale
    )
    error = math.sqrt(19 / 20 * np.square(z - z.mean()).sum())
    reach = stats.t.ppf(0.95, 19) * error
    assert (got.low, got.high) == pytest.approx((backward(1.3 - reach), backward(1.3 + reach)))
    slope = (backward(1.3 + 1e-6) - backward(1.3 - 1e-6)) / 2e-6
    assert got.stderr == pytest.approx(error * slope, rel=1e-5)
    assert got.method == f"jackknife of 20 samples, {scale}, t(19)"


def test_level_widens_and_is_recorded() -> None:
    narrow, wide = (subsample_interval("trace", matrix(), level=level) for level in (0.5, 0.99))
    assert wide.low < narrow.low < narrow.value < narrow.high < wide.high
    assert (narrow.level, wide.level) == (0.5, 0.99)
    assert narrow.stderr == wide.stderr


def test_probe_variance_adds_with_satterthwaite_degrees_of_freedom() -> None:
    samples, probes = np.array([1.0, 3.0] * 5), np.array([1.0, 2.0, 3.0, 2.0])
    got = interval_from_replicates(Replicates(2.0, samples, probes), samples=10)
    over_samples, over_probes = 0.9 * 10.0, 3 * 0.5
    assert got.stderr == pytest.approx(math.sqrt(over_samples + over_probes))
    freedom = (over_samples + over_probes) ** 2 / (over_samples**2 / 9 + over_probes**2 / (2.0))
    assert got.high - 2 == pytest.approx(stats.t.ppf(0.95, freedom) * got.stderr)
    assert got.method == f"jackknife of 10 samples and 4 probes, linear, t({freedom:.0f})"


def test_ends_respect_what_is_possible() -> None:
    values = np.linspace(1.1, 1.3, 10)
    free = interval_from_replicates(Replicates(1.05, values), samples=10, scale="log")
    clipped = interval_from_replicates(
        Replicates(1.05, values), samples=10, scale="log", minimum=1, maximum=1.1
    )
    assert free.low < 1 == clipped.low
    assert free.high > 1.1 == clipped.high
    below = interval_from_replicates(Replicates(0.9, values), samples=10, scale="log", minimum=1)
    assert below.low == 0.9


# ---- the bias by few probes


def noisy(modes: int, count: int, outputs: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A kernel, and its estimates by probes that multiply each mode by the mean of some squared normals."""
    phi = rng.standard_normal((24, modes)) / np.sqrt(np.arange(1, modes + 1))
    weights = rng.chisquare(outputs, (count, modes)) / outputs
    return phi @ phi.T, np.einsum("nk,rk,mk->rnm", phi, weights, phi)


def test_most_of_the_bias_by_few_probes_is_removed_from_ranks_and_the_trace_stays() -> None:
    """Eight probes that see one output a mode read ln(effective rank) 0.06 too low; corrected, by less than 0.03."""
    rng = np.random.default_rng(0)
    naive, corrected = [], []
    for _ in range(500):
        truth, probes = noisy(20, 8, 1, rng)
        exact = math.log(evaluate("effective_rank", truth))
        found = leave_out(["effective_rank", "trace"], probes.mean(0), per_probe=probes)
        naive.append(math.log(evaluate("effective_rank", probes.mean(0))) - exact)
        corrected.append(math.log(found["effective_rank"].value) - exact)
        assert found["trace"].value == pytest.approx(np.trace(probes.mean(0)) / 24, rel=1e-9)
    assert np.mean(naive) < -0.05 and abs(np.mean(corrected)) < 0.03
    assert np.std(corrected) < 1.2 * np.std(naive)


def test_the_correction_is_quenouilles_and_stays_within_what_is_possible() -> None:
    _, probes = noisy(20, 5, 2, np.random.default_rng(1))
    found = leave_out(["stable_rank"], probes.mean(0), per_probe=probes)["stable_rank"]
    naive = float(evaluate("stable_rank", probes.mean(0)))
    assert found.value == pytest.approx(5 * naive - 4 * found.without_probe.mean())
    apart = np.stack([np.diag(np.eye(9)[i] + 1e-9) for i in range(9)])  # each probe sees one sample
    ranks = leave_out(["effective_rank", "participation_ratio"], apart.mean(0), per_probe=apart)
    assert all(found.value <= 9 + 1e-9 for found in ranks.values())


# ---- statistics of Grams


def test_several_statistics_at_once_are_those_of_single_calls() -> None:
    together = subsample_intervals(STATISTICS, matrix())
    assert list(together) == list(STATISTICS)
    for name, interval in together.items():
        assert interval == subsample_interval(name, matrix()), name
        assert interval.value == pytest.approx(float(evaluate(name, matrix())))
        assert interval.low < interval.value < interval.high


@pytest.mark.parametrize("groups", [5, 24])
def test_each_value_is_the_statistic_of_the_other_samples(
    groups: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ntkdiag.spectra.uncertainty.left_out.MOST_GROUPS", groups)
    k = matrix()
    for name, replicates in leave_out(STATISTICS, k).items():
        one_by_one = [float(evaluate(name, np.delete(np.delete(k, g, 0), g, 1))) for g in sample_groups(24)]
        np.testing.assert_allclose(replicates.without_samples, one_by_one, rtol=1e-10)


def test_a_single_sample_has_no_pairs() -> None:
    chosen = [STATISTICS["participation_ratio_pairs"], STATISTICS["trace"]]
    got = on_subsets(chosen, matrix(), None, np.arange(24)[:, None])
    assert np.isnan(got["participation_ratio_pairs"]).all()
    np.testing.assert_allclose(got["trace"], np.diag(matrix()))


def test_pieces_that_fit_memory_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = subsample_intervals(STATISTICS, matrix())
    monkeypatch.setattr("ntkdiag.spectra.uncertainty.left_out._ENTRIES_AT_ONCE", 2000)
    for name, interval in subsample_intervals(STATISTICS, matrix()).items():
        assert (interval.low, interval.high) == pytest.approx((whole[name].low, whole[name].high), rel=1e-12)


def test_numpy_torch_and_repeated_calls_agree() -> None:
    first = subsample_interval("effective_rank", matrix())
    assert first == subsample_interval("effective_rank", torch.from_numpy(matrix()))
    assert first == subsample_interval("effective_rank", matrix())


@pytest.mark.parametrize("name", STATISTICS)
def test_scaling_the_kernel_scales_or_leaves_the_interval(name: str) -> None:
    before, after = (
        subsample_interval(name, matrix()),
        subsample_interval(name, 8 * matrix()),
    )
    factor = 8 if name.endswith(("trace", "top_eigenvalue", "gradient_signal")) else 1
    wanted = [factor * x for x in (before.value, before.low, before.high, before.stderr)]
    assert [after.value, after.low, after.high, after.stderr] == pytest.approx(wanted, rel=1e-9)


def test_known_noise_corrects_the_pair_statistic() -> None:
    rng = np.random.default_rng(3)
    factors = rng.standard_normal((5, 24, 6))
    grams = factors @ factors.transpose(0, 2, 1)
    mean, error = grams.mean(0), grams.std(0, ddof=1) / math.sqrt(5)
    for known, of in (({"stderr": error}, error), ({"per_probe": grams}, grams)):
        got = leave_out(["participation_ratio_pairs"], mean, **known)["participation_ratio_pairs"]
        key = next(iter(known))
        others = [np.delete(np.arange(24), i) for i in range(24)]
        one_by_one = [
            participation_ratio_pairs(mean[np.ix_(s, s)], **{key: of[..., s[:, None], s]}) for s in others
        ]
        np.testing.assert_allclose(got.without_samples, one_by_one, rtol=1e-9)
        if key == "stderr":
            assert got.value == pytest.approx(participation_ratio_pairs(mean, **known))
    left_out = [
        participation_ratio_pairs(np.delete(grams, r, 0).mean(0), per_probe=np.delete(grams, r, 0))
        for r in range(5)
    ]
    np.testing.assert_allclose(got.without_probe, left_out, rtol=1e-9)


def test_probes_widen_every_interval() -> None:
    rng = np.random.default_rng(3)
    grams = np.stack([gram(POWER_LAW, 24, rng) for _ in range(4)])
    fixed = subsample_intervals(["trace", "effective_rank"], grams.mean(0))
    varied = subsample_intervals(["trace", "effective_rank"], grams.mean(0), per_probe=grams)
    for name in fixed:
        assert varied[name].stderr > fixed[name].stderr


# ---- pairs of buckets


def test_buckets_leave_out_the_same_samples() -> None:
    grams = np.stack([matrix(0), matrix(1), 3 * matrix(0)])
    first, second, third = (bucket.without_samples for bucket in leave_out_in_buckets("trace", grams))
    np.testing.assert_allclose(third, 3 * first)
    diagonal = np.diag(matrix(1))
    np.testing.assert_allclose(second, (diagonal.sum() - diagonal) / 23)


def test_a_constant_ratio_has_no_uncertainty_and_pairing_is_why() -> None:
    grams = np.stack([matrix(0), 3 * matrix(0)])
    ratio = contrast_interval("trace", grams, lambda s: np.log(s[..., 1] / s[..., 0]))
    assert (ratio.low, ratio.value, ratio.high) == pytest.approx((math.log(3),) * 3)
    assert ratio.stderr < 1e-12
    assert subsample_interval("trace", grams[0]).stderr > 0.1


def test_contrast_of_one_bucket_is_its_interval() -> None:
    alone = subsample_interval("trace", matrix())
    got = contrast_interval("trace", matrix()[None], lambda s: s[..., 0], scale="log")
    assert (got.low, got.high, got.stderr) == pytest.approx((alone.low, alone.high, alone.stderr))


def test_contrast_with_shared_probes() -> None:
    rng = np.random.default_rng(3)
    first = np.stack([gram(POWER_LAW, 24, rng) for _ in range(4)])
    second = first + np.arange(4)[:, None, None] * np.eye(24)  # trace differs by 0, 1, 2, 3 between probes
    probes = np.stack([first, second])
    got = contrast_interval("trace", probes.mean(1), lambda s: s[..., 1] - s[..., 0], per_probe=probes)
    assert got.value == pytest.approx(1.5)
    assert got.stderr == pytest.approx(np.std([0, 1, 2, 3], ddof=1) / 2)
    again = contrast_interval(
        "trace",
        torch.from_numpy(probes).mean(1),
        lambda s: s[..., 1] - s[..., 0],
        per_probe=torch.from_numpy(probes),
    )
    assert again.stderr == pytest.approx(got.stderr)


# ---- edges and refusals


@pytest.mark.parametrize("name", STATISTICS)
def test_zero_identity_and_rank_one_never_warn(name: str) -> None:
    with np.errstate(all="raise"):
        for edge in (np.zeros((12, 12)), np.eye(12), np.ones((12, 12))):
            got = subsample_interval(name, edge)
            if math.isfinite(got.value):
                assert got.low == pytest.approx(got.value) and got.high == pytest.approx(got.value)
            else:
                assert math.isnan(got.low) and math.isnan(got.high) and math.isnan(got.stderr)


def test_no_interval_where_a_value_without_a_sample_does_not_exist() -> None:
    """Rank 8 in all samples, but one of them alone carries the eighth direction."""
    phi = np.random.default_rng(0).standard_normal((24, 8))
    phi[1:, 7] = 0
    got = subsample_interval("decay_exponent", phi @ phi.T)
    assert math.isfinite(got.value)
    assert math.isnan(got.low) and math.isnan(got.high) and math.isnan(got.stderr)


def test_mean_interval_edges() -> None:
    flat = mean_interval(np.full(5, 0.5))
    assert (flat.value, flat.low, flat.high, flat.stderr) == (0.5, 0.5, 0.5, 0)
    zero = mean_interval(np.zeros(5))
    assert (zero.low, zero.high) == (0, 0)
    negative = mean_interval(np.array([-1.0, -2.0]))
    assert math.isnan(negative.low) and negative.value == -1.5
    assert mean_interval(np.array([-1.0, -2.0]), scale="linear").high > -1.5


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: subsample_interval("rank", np.eye(9)), "statistic: expected one of trace"),
        (lambda: subsample_interval("trace", np.eye(2)), "samples: expected an integer of at least 3; got 2"),
        (lambda: subsample_interval("trace", np.ones((2, 3))), "Gram matrix: expected shape"),
        (
            lambda: subsample_interval("trace", np.eye(9), level=1.0),
            "level: expected a number above 0 and below 1",
        ),
        (lambda: subsample_interval("trace", np.eye(9), level=90), "level: expected"),
        (
            lambda: subsample_interval(np.eye(9), "trace"),
            "statistic: expected the name of one, such as 'effective_rank'; got ndarray",
        ),
        (lambda: mean_interval(np.array([1.0])), r"per-sample values: expected shape \[N\], N ≥ 2"),
        (lambda: mean_interval(np.ones((2, 2))), r"got shape \[2, 2\]"),
        (lambda: mean_interval(np.array([1.0, np.nan])), "expected finite entries"),
        (lambda: mean_interval(np.ones(3), scale="sqrt"), "scale: expected one of linear, log, root"),
        (
            lambda: interval_from_replicates(Replicates(1.0, np.ones(5)), samples=4),
            "values without samples: expected 2 to 4",
        ),
        (
            lambda: subsample_interval("trace", np.eye(9), per_probe=np.stack([np.eye(9)] * 2)),
            "per_probe: expected at least 3 probes to leave one out; got 2. Measure with more probes.",
        ),
        (
            lambda: leave_out_in_buckets("trace", np.eye(9)),
            r"matrices: expected shape \[B, N, N\]",
        ),
        (
            lambda: contrast_interval(
                "trace", np.eye(9)[None], lambda s: s[..., 0], per_probe=np.ones((2, 3, 9, 9))
            ),
            "per_probe: expected one entry for each of 1 buckets; got 2",
        ),
    ],
)
def test_refusals_in_words(call, words: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError, match=words):
        call()


def test_a_bootstrap_would_fake_rank_loss() -> None:
    """Why samples are left out: the others still have full rank, where a bootstrap sample repeats rows."""
    k = np.eye(30)
    np.testing.assert_allclose(leave_out(["effective_rank"], k)["effective_rank"].without_samples, 29)
    repeated = np.random.default_rng(0).integers(0, 30, (50, 30))
    assert evaluate("effective_rank", k[repeated[:, :, None], repeated[:, None, :]]).max() < 25
