"""The jackknife against closed forms; subsets, pairing, edges and refusals."""

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
    interval_from_draws,
    mean_interval,
    paired_subsets,
    participation_ratio_pairs,
    subsample_interval,
    subsample_intervals,
)
from ntkdiag.spectra.dense.named_statistics import trace
from ntkdiag.spectra.uncertainty.resampling import resample, resample_buckets

LINEAR_TRACE = Statistic("linear trace", "gram", trace, "linear", "population")


def matrix(seed: int = 0, count: int = 24) -> np.ndarray:
    return gram(POWER_LAW, count, np.random.default_rng(seed))


# ---- subsets


def test_subsets_are_drawn_without_replacement() -> None:
    subsets = paired_subsets(20, 300, 0.8, seed=1)
    assert subsets.shape == (300, 16)
    assert (np.diff(subsets, axis=1) > 0).all()
    assert subsets.min() == 0 and subsets.max() == 19


def test_every_sample_is_as_likely() -> None:
    counts = np.bincount(paired_subsets(10, 4000, 0.7, seed=2).ravel(), minlength=10)
    np.testing.assert_allclose(counts / 4000, 0.7, atol=5 * math.sqrt(0.7 * 0.3 / 4000))


def test_subsets_depend_on_the_seed_alone() -> None:
    np.testing.assert_array_equal(paired_subsets(20, 50, 0.8, 3), paired_subsets(20, 50, 0.8, 3))
    assert (paired_subsets(20, 50, 0.8, 3) != paired_subsets(20, 50, 0.8, 4)).any()


@pytest.mark.parametrize(
    ("samples", "fraction", "kept"), [(3, 0.99, 2), (3, 0.01, 2), (64, 0.85, 54), (9, 1 - 1e-9, 8)]
)
def test_subsets_keep_between_two_and_all_but_one(samples: int, fraction: float, kept: int) -> None:
    assert paired_subsets(samples, 5, fraction, 0).shape == (5, kept)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((2, 9, 0.5, 0), "samples: expected an integer of at least 3; got 2"),
        ((9, 1, 0.5, 0), "draws: expected an integer of at least 2; got 1"),
        ((9, 9, 0.0, 0), "fraction: expected a number above 0 and below 1; got 0"),
        ((9, 9, 1.0, 0), "fraction: expected"),
    ],
)
def test_subsets_refuse(arguments: tuple, words: str) -> None:
    with pytest.raises(InputError, match=words):
        paired_subsets(*arguments)


# ---- the jackknife


def test_jackknife_of_a_mean_is_its_standard_error() -> None:
    """Of the trace, a mean of N diagonal entries: stderr s/√N, and the t interval of elementary statistics."""
    k = matrix(count=30)
    diagonal = np.diag(k)
    got = subsample_interval(LINEAR_TRACE, k, draws=40000, level=0.8)
    error = diagonal.std(ddof=1) / math.sqrt(30)
    assert got.value == pytest.approx(diagonal.mean())
    assert got.stderr == pytest.approx(error, rel=0.015)
    assert got.high - got.value == pytest.approx(stats.t.ppf(0.9, 29) * got.stderr)
    assert got.value - got.low == pytest.approx(got.high - got.value)


@pytest.mark.parametrize("fraction", [0.3, 0.5, 0.9])
def test_the_standard_error_does_not_depend_on_how_many_are_deleted(fraction: float) -> None:
    k = matrix(count=30)
    got = subsample_interval(LINEAR_TRACE, k, draws=20000, fraction=fraction)
    assert got.stderr == pytest.approx(np.diag(k).std(ddof=1) / math.sqrt(30), rel=0.025)


def test_mean_interval_is_students() -> None:
    values = np.random.default_rng(0).standard_normal(12) + 5
    got = mean_interval(values, scale="linear", level=0.95)
    low, high = stats.t.interval(0.95, 11, values.mean(), values.std(ddof=1) / math.sqrt(12))
    assert (got.value, got.low, got.high) == pytest.approx((values.mean(), low, high))
    assert got.method == "standard error of the mean of 12 samples, linear, t(11)"


def test_mean_interval_on_the_log_scale_is_the_delta_method() -> None:
    values = np.random.default_rng(0).gamma(2.0, size=40)
    linear, log = mean_interval(values, scale="linear"), mean_interval(values)
    assert log.stderr == pytest.approx(linear.stderr)
    ratio = math.exp((linear.high - linear.value) / linear.value)
    assert (log.low, log.high) == pytest.approx((log.value / ratio, log.value * ratio))


@pytest.mark.parametrize(
    ("scale", "backward"), [("linear", lambda z: z), ("log", math.exp), ("log1p", math.expm1)]
)
def test_intervals_are_symmetric_on_their_scale(scale: str, backward) -> None:  # type: ignore[no-untyped-def]
    z = 0.3 + 0.1 * np.random.default_rng(1).standard_normal(500)
    got = interval_from_draws(
        Replicates(backward(0.3), np.vectorize(backward)(z)), samples=20, kept=15, scale=scale
    )
    error = math.sqrt(15 / 5) * z.std()
    reach = stats.t.ppf(0.95, 19) * error
    assert (got.low, got.high) == pytest.approx((backward(0.3 - reach), backward(0.3 + reach)))
    slope = (backward(0.3 + 1e-6) - backward(0.3 - 1e-6)) / 2e-6
    assert got.stderr == pytest.approx(error * slope, rel=1e-5)
    assert got.method == f"delete-5 jackknife of 20 samples, 500 draws, {scale}, t(19)"


def test_level_widens_and_is_recorded() -> None:
    narrow, wide = (subsample_interval("trace", matrix(), level=level) for level in (0.5, 0.99))
    assert wide.low < narrow.low < narrow.value < narrow.high < wide.high
    assert (narrow.level, wide.level) == (0.5, 0.99)
    assert narrow.stderr == wide.stderr


def test_probe_variance_adds_with_satterthwaite_degrees_of_freedom() -> None:
    draws, probes = np.array([1.0, 3.0]), np.array([1.0, 2.0, 3.0, 2.0])
    got = interval_from_draws(Replicates(2.0, draws, probes), samples=10, kept=5)
    over_samples, over_probes = 1.0, 3 * 0.5
    assert got.stderr == pytest.approx(math.sqrt(over_samples + over_probes))
    freedom = 2.5**2 / (over_samples**2 / 9 + over_probes**2 / 3)
    assert got.high - 2 == pytest.approx(stats.t.ppf(0.95, freedom) * got.stderr)
    assert "delete-one jackknife of 4 probes" in got.method


def test_lower_end_respects_what_is_possible() -> None:
    draws = np.array([1.01, 1.2, 1.1, 1.3])
    free = interval_from_draws(Replicates(1.05, draws), samples=10, kept=8, scale="log")
    clipped = interval_from_draws(Replicates(1.05, draws), samples=10, kept=8, scale="log", minimum=1)
    assert free.low < 1 == clipped.low
    below = interval_from_draws(Replicates(0.9, draws), samples=10, kept=8, scale="log", minimum=1)
    assert below.low == 0.9


# ---- statistics of Grams


def test_several_statistics_at_once_are_those_of_single_calls() -> None:
    together = subsample_intervals(STATISTICS, matrix(), draws=50)
    assert list(together) == list(STATISTICS)
    for name, interval in together.items():
        assert interval == subsample_interval(name, matrix(), draws=50), name
        assert interval.value == pytest.approx(float(evaluate(name, matrix())))
        assert interval.low < interval.value < interval.high


def test_draws_are_the_statistic_of_each_submatrix() -> None:
    k, subsets = matrix(), paired_subsets(24, 7, 0.5, 0)
    for name, replicates in resample(STATISTICS, k, subsets).items():
        one_by_one = [float(evaluate(name, k[np.ix_(some, some)])) for some in subsets]
        np.testing.assert_allclose(replicates.draws, one_by_one, rtol=1e-10)


def test_a_single_sample_has_no_pairs() -> None:
    got = resample(["participation_ratio_pairs", "trace"], matrix(), np.arange(24)[:, None])
    assert np.isnan(got["participation_ratio_pairs"].draws).all()
    np.testing.assert_allclose(got["trace"].draws, np.diag(matrix()))


def test_bootstrap_subsets_are_refused() -> None:
    with pytest.raises(InputError, match="rows of distinct indices"):
        resample(["trace"], matrix(), np.array([[0, 1, 1]]))


def test_pieces_that_fit_memory_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = subsample_intervals(STATISTICS, matrix(), draws=50)
    monkeypatch.setattr("ntkdiag.spectra.uncertainty.resampling._ENTRIES_AT_ONCE", 2000)
    for name, interval in subsample_intervals(STATISTICS, matrix(), draws=50).items():
        assert (interval.low, interval.high) == pytest.approx((whole[name].low, whole[name].high), rel=1e-12)


def test_numpy_torch_and_repeated_calls_agree() -> None:
    first = subsample_interval("effective_rank", matrix(), seed=5)
    assert first == subsample_interval("effective_rank", torch.from_numpy(matrix()), seed=5)
    assert first != subsample_interval("effective_rank", matrix(), seed=6)


@pytest.mark.parametrize("name", STATISTICS)
def test_scaling_the_kernel_scales_or_leaves_the_interval(name: str) -> None:
    before, after = (
        subsample_interval(name, matrix(), draws=40),
        subsample_interval(name, 8 * matrix(), draws=40),
    )
    factor = 8 if name in ("trace", "top_eigenvalue", "gradient_signal") else 1
    wanted = [factor * x for x in (before.value, before.low, before.high, before.stderr)]
    assert [after.value, after.low, after.high, after.stderr] == pytest.approx(wanted, rel=1e-9)


def test_known_noise_corrects_value_and_draws_of_the_pair_statistic() -> None:
    rng = np.random.default_rng(3)
    factors = rng.standard_normal((5, 24, 6))
    grams = factors @ factors.transpose(0, 2, 1)
    mean, error = grams.mean(0), grams.std(0, ddof=1) / math.sqrt(5)
    subsets = paired_subsets(24, 6, 0.6, 0)
    for known, of in (({"stderr": error}, error), ({"per_probe": grams}, grams)):
        got = resample(["participation_ratio_pairs"], mean, subsets, **known)["participation_ratio_pairs"]
        key = next(iter(known))
        assert got.value == pytest.approx(participation_ratio_pairs(mean, **known))
        one_by_one = [
            participation_ratio_pairs(mean[np.ix_(s, s)], **{key: of[..., s[:, None], s]}) for s in subsets
        ]
        np.testing.assert_allclose(got.draws, one_by_one, rtol=1e-9)
    left_out = [
        participation_ratio_pairs(np.delete(grams, r, 0).mean(0), per_probe=np.delete(grams, r, 0))
        for r in range(5)
    ]
    np.testing.assert_allclose(got.probe_draws, left_out, rtol=1e-9)


def test_probes_widen_every_interval() -> None:
    rng = np.random.default_rng(3)
    grams = np.stack([gram(POWER_LAW, 24, rng) for _ in range(4)])
    fixed = subsample_intervals(["trace", "effective_rank"], grams.mean(0))
    varied = subsample_intervals(["trace", "effective_rank"], grams.mean(0), per_probe=grams)
    for name in fixed:
        assert varied[name].stderr > fixed[name].stderr
        assert varied[name].value == fixed[name].value


# ---- pairs of buckets


def test_buckets_share_subsets() -> None:
    grams = np.stack([matrix(0), matrix(1), 3 * matrix(0)])
    subsets = paired_subsets(24, 30, 0.8, 0)
    got = np.stack([bucket.draws for bucket in resample_buckets("trace", grams, subsets)], 1)
    assert got.shape == (30, 3)
    np.testing.assert_allclose(got[:, 2], 3 * got[:, 0])
    np.testing.assert_allclose(got[:, 1], [matrix(1)[s, s].mean() for s in subsets])


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
            got = subsample_interval(name, edge, draws=20)
            if math.isfinite(got.value):
                assert got.low == pytest.approx(got.value) and got.high == pytest.approx(got.value)
            else:
                assert math.isnan(got.low) and math.isnan(got.high) and math.isnan(got.stderr)


def test_no_interval_where_a_draw_has_no_value() -> None:
    """Rank 8 in all samples, but a pair of them alone may carry the eighth direction."""
    phi = np.random.default_rng(0).standard_normal((24, 8))
    phi[2:, 7] = 0
    got = subsample_interval("decay_exponent", phi @ phi.T, fraction=0.3)
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
        (lambda: subsample_interval("trace", np.eye(9), draws=1), "draws: expected"),
        (lambda: mean_interval(np.array([1.0])), r"per-sample values: expected shape \[N\], N ≥ 2"),
        (lambda: mean_interval(np.ones((2, 2))), r"got shape \[2, 2\]"),
        (lambda: mean_interval(np.array([1.0, np.nan])), "expected finite entries"),
        (lambda: mean_interval(np.ones(3), scale="sqrt"), "scale: expected one of linear, log, log1p"),
        (
            lambda: interval_from_draws(Replicates(1.0, np.ones(2)), samples=4, kept=4),
            "kept: expected 1 to 3",
        ),
        (
            lambda: subsample_interval("trace", np.eye(9), per_probe=np.stack([np.eye(9)] * 2)),
            "per_probe: expected at least 3 probes to leave one out; got 2. Measure with more probes.",
        ),
        (
            lambda: resample_buckets("trace", np.eye(9), paired_subsets(9, 2, 0.5, 0)),
            r"matrices: expected shape \[B, N, N\]",
        ),
        (
            lambda: resample_buckets("trace", np.eye(9)[None], paired_subsets(10, 9, 0.5, 0)),
            r"subsets: expected rows of distinct indices below 9.*shape \[9, 5\], repeated or out of range",
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
    """Why subsets: of independent samples, every subset has full rank; a bootstrap sample repeats rows."""
    k = np.eye(30)
    subsets = paired_subsets(30, 50, 0.85, 0)
    ranks = resample(["effective_rank"], k, subsets)["effective_rank"].draws
    np.testing.assert_allclose(ranks, subsets.shape[1])
    repeated = np.random.default_rng(0).integers(0, 30, (50, 30))
    assert evaluate("effective_rank", k[repeated[:, :, None], repeated[:, None, :]]).max() < 25
