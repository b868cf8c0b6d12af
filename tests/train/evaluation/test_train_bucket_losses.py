"""Held-out losses against the Bayes floor of an exact denoiser."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats
from train_cases import exact_denoiser, small_data, small_denoiser

from ntkdiag import data
from ntkdiag.errors import InputError
from ntkdiag.process import schedules, target
from ntkdiag.process.bayes import floor
from ntkdiag.process.buckets import Buckets
from ntkdiag.process.paired_draws import PairedDraws
from ntkdiag.train import BucketValues, bucket_losses

BUCKETS = Buckets.uniform(-6, 6, 4)


@pytest.fixture(scope="module")
def mixture():
    return data.mixture(train=8, held_out=2000, seed=0)


@pytest.mark.parametrize("name", target.TARGETS)
@pytest.mark.parametrize(
    "schedule", [schedules.cosine(), schedules.flow(), schedules.edm()], ids=lambda s: s.name
)
def test_the_exact_denoiser_has_the_floor_as_loss(mixture, schedule, name):
    denoiser = exact_denoiser(mixture.oracle, schedule, name)
    losses = bucket_losses(denoiser, mixture, BUCKETS, samples=2000).table()
    for row in losses.itertuples():
        stated, spread = mixture.oracle.mmse_estimate(row.log_snr)
        wanted = float(floor(name, schedule, row.log_snr, stated))
        tolerance = 4 * math.hypot(row.stderr, wanted * float(spread / stated))
        assert row.mean == pytest.approx(wanted, abs=tolerance)


def test_the_loss_exceeds_the_exact_denoisers_by_the_distance_to_it(mixture):
    network = small_denoiser(name="x0")
    best = exact_denoiser(mixture.oracle, network.schedule, "x0")
    draws = PairedDraws.draw(mixture.held_out, 2000, seed=3)
    excess = (bucket_losses(network, draws, BUCKETS) - bucket_losses(best, draws, BUCKETS)).table()
    for row in excess.itertuples():
        x = draws.at(network.schedule, row.log_snr)
        with torch.no_grad():
            distance = (network(x, row.log_snr) - best(x, row.log_snr)).square().mean(dim=1).double()
        stderr = float(distance.std()) / len(draws) ** 0.5
        assert row.mean == pytest.approx(float(distance.mean()), abs=4 * math.hypot(row.stderr, stderr))
        assert row.mean > 0.02


def test_values_are_those_of_single_samples_at_the_centers():
    denoiser, draws = small_denoiser(), PairedDraws.draw(small_data().held_out, 5, seed=2)
    values = bucket_losses(denoiser, draws, BUCKETS)
    assert values.per_sample.shape == (4, 5)
    assert values.per_sample.dtype == torch.float64
    for b, log_snr in enumerate(BUCKETS.centers):
        x = draws.at(denoiser.schedule, log_snr)
        wanted = target.value("v", denoiser.schedule, log_snr, draws.x0, draws.epsilon)
        with torch.no_grad():
            error = (denoiser(x, log_snr) - wanted).square().mean(dim=1)
        assert torch.allclose(values.per_sample[b], error.double(), rtol=1e-4)


def test_buckets_are_taken_as_a_count():
    found = bucket_losses(small_denoiser(), small_data(), 3, samples=4)
    assert found.buckets == Buckets.default(schedules.cosine(), 3) and found.per_sample.shape == (3, 4)


def test_seed_decides_and_batch_size_does_not():
    denoiser, held = small_denoiser(dtype=torch.float64), small_data()
    values = bucket_losses(denoiser, held, BUCKETS, samples=50, seed=1).per_sample
    split = bucket_losses(denoiser, held, BUCKETS, samples=50, seed=1, batch=7).per_sample
    assert torch.allclose(split, values, rtol=1e-12)
    assert not torch.allclose(bucket_losses(denoiser, held, BUCKETS, samples=50, seed=2).per_sample, values)
    assert bucket_losses(denoiser, held, BUCKETS, samples=10_000).per_sample.shape == (
        4,
        100,
    )  # all there are


def test_table_has_student_intervals():
    per_sample = torch.tensor([[1.0, 2.0, 4.0], [3.0, 3.0, 3.0]], dtype=torch.float64)
    table = BucketValues(Buckets.uniform(-1, 1, 2), per_sample).table(confidence=0.9)
    assert list(table.columns) == ["bucket", "log_snr", "samples", "mean", "stderr", "low", "high"]
    assert table.log_snr.tolist() == [-0.5, 0.5]
    assert table["mean"].tolist() == pytest.approx([7 / 3, 3.0])
    stderr = math.sqrt(7 / 3) / math.sqrt(3)
    assert table.stderr.tolist() == pytest.approx([stderr, 0.0])
    low, high = stats.t.interval(0.9, 2, 7 / 3, stderr)
    assert (table.low[0], table.high[0]) == pytest.approx((low, high))
    lone = BucketValues(Buckets.uniform(-1, 1, 2), per_sample[:, :1]).table()
    assert lone[["stderr", "low", "high"]].isna().all(axis=None)
    assert lone["mean"].tolist() == [1.0, 3.0]


def test_paired_differences_are_sharper_than_unpaired_ones():
    held, first, second = small_data(), small_denoiser(seed=0), small_denoiser(seed=0)
    with torch.no_grad():
        second.network.out.bias += 0.02
    left, right = (bucket_losses(d, held, BUCKETS, samples=100) for d in (first, second))
    difference = left - right
    assert torch.equal(difference.per_sample, left.per_sample - right.per_sample)
    unpaired = (left.table().stderr ** 2 + right.table().stderr ** 2) ** 0.5
    assert (difference.table().stderr < 0.2 * unpaired).all()
    with pytest.raises(InputError, match="the same buckets and draws"):
        left - bucket_losses(first, held, BUCKETS, samples=50)
    with pytest.raises(InputError, match="the same buckets and draws"):
        left - bucket_losses(first, held, Buckets.uniform(-5, 5, 4), samples=100)


def test_measuring_is_without_gradients_in_evaluation_mode_and_leaves_no_trace():
    denoiser, modes = small_denoiser(), []
    denoiser.network.register_forward_hook(lambda module, args, out: modes.append(module.training))
    denoiser.network.condition.eval()
    assert not bucket_losses(denoiser, small_data(), BUCKETS, samples=5).per_sample.requires_grad
    assert modes == [False] * 4
    assert denoiser.training
    assert not denoiser.network.condition.training
