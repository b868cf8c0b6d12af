"""Noise levels: stratified draws, and draws by a table whose correction leaves the objective as it is."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from train_cases import QUICK, Doubling, small_data, small_denoiser

import ntkdiag as nd
from ntkdiag.errors import InputError, MeasurementError
from ntkdiag.process import schedules
from ntkdiag.train import train
from ntkdiag.train.loss import Generators, draw_batch
from ntkdiag.train.noise_levels import NoiseLevels

SCHEDULES = [
    schedules.cosine(),
    schedules.edm(),
    schedules.linear_log_snr(-3.0, 4.0),
    schedules.from_table([4.0, 1.0, 0.5, -2.0]),
]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def steep(level):
    """Weights over four orders of magnitude, zero below −4."""
    return torch.where(level < -4, 0.0, torch.sigmoid(3 * level - 3) + 1e-4)


def loss(level):
    return 1 + torch.sin(level) ** 2


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: s.name)
def test_plain_draws_are_those_of_the_schedule(schedule):
    level, ratio = NoiseLevels(schedule).draw(50, generator())
    assert torch.equal(level, schedule.sample(50, generator()))
    assert ratio is None


@pytest.mark.parametrize("count", [1, 2, 7, 64])
def test_stratified_draws_have_one_level_in_each_part(count):
    schedule = schedules.cosine()
    level, ratio = NoiseLevels(schedule, stratified=True).draw(count, generator())
    parts = (schedule.cdf(level) * count).floor().long()
    assert torch.equal(parts, torch.arange(count))
    assert ratio is None


def test_stratified_draws_of_steps_take_each_as_often():
    schedule = schedules.from_table([4.0, 1.0, 0.5, -2.0])
    level, _ = NoiseLevels(schedule, stratified=True).draw(12, generator())
    assert level.tolist() == [-2.0] * 3 + [0.5] * 3 + [1.0] * 3 + [4.0] * 3


def test_stratified_draws_still_follow_the_density():
    """Over many draws of 3, each part's quantile is uniform within the part."""
    levels, random = NoiseLevels(schedules.cosine(), stratified=True), generator()
    quantiles = torch.cat([levels.schedule.cdf(levels.draw(3, random)[0]) for _ in range(4000)])
    within = (quantiles * 3) % 1
    assert abs(float(within.mean()) - 0.5) < 4 / (12 * 12000) ** 0.5
    assert abs(float(within.var()) - 1 / 12) < 0.005


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: s.name)
@pytest.mark.parametrize(
    "weights", [steep, lambda level: torch.exp(-level / 8), torch.zeros_like], ids=["steep", "fast", "zero"]
)
def test_the_correction_is_exact(schedule, weights):
    """On a million equal steps of the drawn quantile, the mean of ratio · f is that of f under the training density."""
    levels = NoiseLevels(schedule, stratified=True, weights=weights)
    level, ratio = levels.draw(1_000_000, generator())
    plain, _ = NoiseLevels(schedule, stratified=True).draw(1_000_000, generator(1))
    for f in (torch.ones_like, loss, lambda level: weights(level) * loss(level)):
        drawn, truth = float((ratio * f(level)).mean()), float(f(plain).mean())
        assert drawn == pytest.approx(truth, rel=1e-3, abs=1e-9)


def test_draws_are_in_proportion_to_density_times_weight():
    schedule = schedules.cosine()
    level, ratio = NoiseLevels(schedule, weights=steep).draw(200_000, generator())
    edges = schedule.quantile(torch.linspace(0.02, 0.98, 13, dtype=torch.float64))
    fine = schedule.quantile((torch.arange(400_000, dtype=torch.float64) + 0.5) / 400_000)
    mass = steep(fine) / steep(fine).sum()
    for low, high in pairwise(edges):
        expected = float(mass[(fine >= low) & (fine < high)].sum())
        found = float(((level >= low) & (level < high)).double().mean())
        assert abs(found - expected) < 5 * (expected / 200_000) ** 0.5 + 2e-3
    assert ratio.max() < 1001


def test_a_constant_table_changes_nothing():
    level, ratio = NoiseLevels(schedules.cosine(), weights=torch.ones_like).draw(100, generator())
    assert torch.allclose(level, schedules.cosine().sample(100, generator()), rtol=1e-9)
    assert torch.allclose(ratio, torch.ones(100, dtype=torch.float64))


def test_the_variance_falls_where_the_weight_is_the_losss_own_spread():
    """With losses 1/w, every corrected weighted loss is the same but for the cells' width."""
    schedule = schedules.linear_log_snr(-8.0, 8.0)
    table = nd.weights.rule("min_snr", "epsilon", schedule)
    level, ratio = NoiseLevels(schedule, weights=table).draw(5000, generator())
    plain = table(schedule.sample(5000, generator()))
    assert float((table(level) * ratio).std()) < 0.02 * float(plain.std())


def test_weights_that_are_not_finite_are_refused():
    levels = NoiseLevels(schedules.cosine(), weights=lambda level: 1 / level.clamp(min=0))
    with pytest.raises(MeasurementError, match="expected finite loss weights"):
        levels.draw(3, generator())


def test_a_batch_carries_the_ratio_and_the_samples_it_drew():
    data = small_data().train
    table = nd.weights.rule("erd", "v", schedules.cosine())
    levels = NoiseLevels(schedules.cosine(), weights=table)
    made = Generators(*(generator(k) for k in range(3)))
    batch = draw_batch(data, schedules.cosine(), 16, made, levels=levels)
    assert torch.equal(data[batch.drawn], batch.x0)
    assert batch.ratio.dtype == batch.x0.dtype == torch.float32
    assert torch.allclose(table(batch.log_snr) * batch.ratio, torch.ones(16), atol=0.05)


def test_training_by_a_table_minimises_the_weighted_loss():
    """The weighted loss of batches has the mean that plain draws give it, and a smaller spread."""
    schedule = schedules.cosine()
    table = nd.weights.rule("min_snr", "epsilon", schedule, gamma=1.0)
    gradients = {}
    for name, levels in {
        "density": NoiseLevels(schedule),
        "table": NoiseLevels(schedule, weights=table),
    }.items():
        random, found = generator(), []
        for _ in range(2000):
            level, ratio = levels.draw(16, random)
            found.append(float((table(level) * (1.0 if ratio is None else ratio) * loss(level)).mean()))
        gradients[name] = torch.tensor(found)
    spread = [float(values.std()) / 2000**0.5 for values in gradients.values()]
    difference = float(gradients["density"].mean() - gradients["table"].mean())
    assert abs(difference) < 4 * (spread[0] ** 2 + spread[1] ** 2) ** 0.5
    assert spread[1] < 0.7 * spread[0]


@pytest.mark.parametrize("settings", [{"stratified": True}, {"sampling": "table"}])
def test_a_resumed_run_draws_the_same_levels(settings, tmp_path):
    config = replace(QUICK, **settings)
    straight = train(small_denoiser(), small_data(), Doubling(), config)
    train(small_denoiser(), small_data(), Doubling(), replace(config, steps=6), out=tmp_path / "run")
    resumed = train(small_denoiser(), small_data(), Doubling(), config, out=tmp_path / "run", resume=True)
    for one, other in zip(straight.denoiser.parameters(), resumed.denoiser.parameters(), strict=True):
        assert torch.equal(one, other)
    with pytest.raises(InputError, match="of the run to resume"):
        train(small_denoiser(), small_data(), Doubling(), QUICK, out=tmp_path / "run", resume=True)


def test_the_history_is_of_the_training_density_whatever_is_drawn():
    """An untrained network's loss by bucket and in the mean, by both ways of drawing."""
    config = replace(QUICK, learning_rate=0.0, batch=4096, steps=4, log_every=4)
    table = nd.weights.rule("erd", "v", schedules.cosine())
    rows = [
        train(
            small_denoiser(), small_data(), table, replace(config, sampling=sampling), buckets=[-4, -1, 1, 4]
        ).history.iloc[0]
        for sampling in ("density", "table")
    ]
    for name in ("loss", "weighted_loss", *(f"loss_bucket_{k}" for k in range(3))):
        assert rows[1][name] == pytest.approx(rows[0][name], rel=0.05), name


def test_a_table_to_draw_by_is_needed():
    with pytest.raises(InputError, match=r"sampling='table': expected loss weights"):
        train(small_denoiser(), small_data(), None, replace(QUICK, sampling="table"))
