"""The training loop: what it computes, that it repeats itself, and that an interruption leaves no trace."""

from __future__ import annotations

import copy
import dataclasses
import math
import os
import signal

import numpy as np
import pandas as pd
import pytest
import torch
from train_cases import QUICK, Doubling, small_data, small_denoiser

from ntkdiag import models
from ntkdiag.denoiser import Denoiser
from ntkdiag.errors import InputError, MeasurementError
from ntkdiag.process import schedules
from ntkdiag.process.buckets import Buckets
from ntkdiag.train import TrainConfig, train
from ntkdiag.train.checkpoints.checkpoint import read_manifest
from ntkdiag.train.loss import denoising_losses, draw_batch
from ntkdiag.train.own_draws import own_draws
from ntkdiag.train.state import TrainState


def same(left: Denoiser, right: Denoiser) -> bool:
    pairs = zip(left.network.state_dict().items(), right.network.state_dict().items(), strict=True)
    return all(a[0] == b[0] and torch.equal(a[1], b[1]) for a, b in pairs)


def timeless(history: pd.DataFrame) -> pd.DataFrame:
    return history.drop(columns="seconds")


def slow_run(denoiser, data, weights, config, buckets):
    """The whole trainer written out plainly: AdamW, clipping and averaging in numpy, float64."""
    generators = TrainState(copy.deepcopy(denoiser), config, buckets).generators
    parameters = dict(denoiser.network.named_parameters())
    live = {name: p.detach().numpy().copy() for name, p in parameters.items()}
    average = {name: value.copy() for name, value in live.items()}
    first = {name: np.zeros_like(value) for name, value in live.items()}
    second = {name: np.zeros_like(value) for name, value in live.items()}
    record = []
    for step in range(1, config.steps + 1):
        batch = draw_batch(data.train.double(), denoiser.schedule, config.batch, generators)
        losses = denoising_losses(denoiser, batch)
        weighted = (weights(batch.log_snr) * losses).mean()
        gradients = torch.autograd.grad(weighted, list(parameters.values()))
        norm = math.sqrt(sum(float(g.square().sum()) for g in gradients))
        shrink = min(1.0, config.gradient_clip / (norm + 1e-6))
        for (name, p), gradient in zip(parameters.items(), gradients, strict=True):
            g = gradient.numpy() * shrink
            rate = config.learning_rate * min(1, step / config.warmup)
            first[name] = config.beta1 * first[name] + (1 - config.beta1) * g
            second[name] = config.beta2 * second[name] + (1 - config.beta2) * g**2
            mean = first[name] / (1 - config.beta1**step)
            spread = np.sqrt(second[name] / (1 - config.beta2**step)) + 1e-8
            live[name] = live[name] * (1 - rate * config.weight_decay) - rate * mean / spread
            decay = min(config.ema_decay, step / (9 + step))
            average[name] = decay * average[name] + (1 - decay) * live[name]
            p.data.copy_(torch.from_numpy(live[name]))
        record.append((batch.log_snr.numpy(), losses.detach().numpy(), float(weighted.detach()), norm))
        weights.after_step(step)
    return live, average, record


def test_the_loop_does_what_the_plain_version_does():
    config = dataclasses.replace(QUICK, weight_decay=0.1, gradient_clip=0.3)
    buckets = Buckets.uniform(-4, 4, 3)
    data, plain, fast = small_data(), small_denoiser(dtype=torch.float64), small_denoiser(dtype=torch.float64)
    live, average, record = slow_run(plain, data, Doubling(), config, buckets)
    result = train(fast, data, Doubling(), config, buckets=buckets)
    for name, parameter in fast.network.named_parameters():
        np.testing.assert_allclose(parameter.detach().numpy(), live[name], rtol=1e-8, atol=1e-10)
    for name, parameter in result.denoiser.network.named_parameters():
        np.testing.assert_allclose(parameter.detach().numpy(), average[name], rtol=1e-8, atol=1e-10)
    assert result.history.step.tolist() == [5, 10, 12]
    for row, part in zip(result.history.itertuples(), (record[:5], record[5:10], record[10:]), strict=True):
        levels, losses = (np.concatenate([one[k] for one in part]) for k in (0, 1))
        assert row.loss == pytest.approx(np.mean(losses), rel=1e-5)
        assert row.weighted_loss == pytest.approx(np.mean([one[2] for one in part]), rel=1e-5)
        assert row.grad_norm == pytest.approx(np.mean([one[3] for one in part]), rel=1e-5)
        for index in range(3):
            inside = (levels >= buckets.edges[index]) & (levels < buckets.edges[index + 1])
            wanted = np.mean(losses[inside])
            assert getattr(row, f"loss_bucket_{index}") == pytest.approx(wanted, rel=1e-5)


def test_training_repeats_itself_and_the_seed_matters():
    results = [train(small_denoiser(), small_data(), None, QUICK) for _ in range(2)]
    assert same(results[0].denoiser, results[1].denoiser)
    pd.testing.assert_frame_equal(timeless(results[0].history), timeless(results[1].history))
    other = train(small_denoiser(), small_data(), None, dataclasses.replace(QUICK, seed=4))
    assert not same(results[0].denoiser, other.denoiser)


def test_the_global_generator_is_neither_used_nor_moved():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first = train(small_denoiser(), small_data(), None, QUICK)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(99)
    assert same(first.denoiser, train(small_denoiser(), small_data(), None, QUICK).denoiser)


def test_denoiser_is_trained_in_place_and_the_average_is_a_copy():
    denoiser = small_denoiser()
    denoiser.eval()
    untouched = small_denoiser()
    result = train(denoiser, small_data(), None, QUICK)
    assert not same(denoiser, untouched)
    assert not same(result.denoiser, denoiser)
    assert not denoiser.training  # the mode it came in
    assert not result.denoiser.training
    assert all(p.requires_grad for p in result.denoiser.parameters())
    assert result.step == 12
    assert result.config == QUICK


def test_training_lowers_the_loss():
    config = TrainConfig(steps=300, batch=128, learning_rate=1e-2, log_every=100)
    history = train(small_denoiser(name="epsilon"), small_data(), None, config).history
    assert history.loss.iloc[-1] < 0.7 * history.loss.iloc[0]


def test_weight_zero_trains_nothing():
    class Nothing(Doubling):
        def __call__(self, log_snr):
            return torch.zeros_like(log_snr)

    denoiser = small_denoiser()
    result = train(denoiser, small_data(), Nothing(), QUICK)
    assert same(denoiser, small_denoiser())
    assert (result.history.weighted_loss == 0).all()
    assert (result.history.loss > 0).all()
    assert (result.history.grad_norm == 0).all()


def test_buffers_are_copied_to_the_average_and_resumed(tmp_path):
    class Counting(torch.nn.Linear):
        def __init__(self):
            super().__init__(2, 2)
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x, log_snr):
            self.calls += self.training
            return super().forward(x)

    def fresh():
        return Denoiser(Counting(), schedules.cosine(), "v", call="log_snr")

    half = dataclasses.replace(QUICK, steps=6)
    assert train(fresh(), small_data(), None, half, out=tmp_path / "run").denoiser.network.calls == 6
    resumed = train(fresh(), small_data(), None, QUICK, out=tmp_path / "run", resume=True)
    assert resumed.denoiser.network.calls == 12


def test_frozen_parameters_stay():
    denoiser = small_denoiser()
    denoiser.network.out.requires_grad_(False)
    kept = denoiser.network.out.weight.clone()
    result = train(denoiser, small_data(), None, QUICK)
    assert torch.equal(denoiser.network.out.weight, kept)
    assert torch.equal(result.denoiser.network.out.weight, kept)
    for parameter in denoiser.parameters():
        parameter.requires_grad_(False)
    with pytest.raises(InputError, match="at least one parameter that requires grad"):
        train(denoiser, small_data(), None, QUICK)


def test_weights_hear_of_every_step_and_progress_of_every_row():
    weights, calls = Doubling(), []
    result = train(small_denoiser(), small_data(), weights, QUICK, progress=lambda *told: calls.append(told))
    assert weights.seen == list(range(1, 13))
    assert [told[:2] for told in calls] == [(5, 12), (10, 12), (12, 12)]
    assert [told[2] for told in calls] == result.history.loss.tolist()


def test_weights_for_another_target_are_refused():
    with pytest.raises(InputError, match="target the denoiser predicts, x0; got weights for v"):
        train(small_denoiser(name="x0"), small_data(), Doubling(), QUICK)


def test_buckets_of_the_history_are_taken_as_a_count_or_as_edges():
    for given in (3, [-10, 0, 5, 20]):
        found = train(
            small_denoiser(), small_data(), None, dataclasses.replace(QUICK, steps=1), buckets=given
        )
        assert found.buckets == Buckets.of(given, schedules.cosine())


def test_history_has_a_column_for_each_bucket_and_says_nan_where_no_sample_fell():
    buckets = Buckets.uniform(30, 40, 2)  # where the cosine schedule never is
    history = train(small_denoiser(), small_data(), None, QUICK, buckets=buckets).history
    assert list(history.columns) == [
        *("step", "loss", "weighted_loss", "grad_norm", "loss_bucket_0", "loss_bucket_1", "seconds")
    ]
    assert history[["loss_bucket_0", "loss_bucket_1"]].isna().all(axis=None)
    assert history.seconds.is_monotonic_increasing
    by_default = train(small_denoiser(), small_data(), None, QUICK)
    assert sum(name.startswith("loss_bucket") for name in by_default.history.columns) == 10
    assert len(by_default.buckets) == 10


@pytest.mark.parametrize("stop", [1, 7, 10, 12])
def test_ctrl_c_leaves_a_checkpoint_that_resumes_to_the_same_bytes(tmp_path, stop):
    """Interrupted in and at the end of a row, at the end of the run; with weights that remember."""
    whole_denoiser, resumed_denoiser = small_denoiser(), small_denoiser(seed=5)
    whole = train(whole_denoiser, small_data(), Doubling(), QUICK)

    def interrupt(step):
        if step == stop:
            os.kill(os.getpid(), signal.SIGINT)

    out = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        train(small_denoiser(), small_data(), Doubling(interrupt), QUICK, out=out)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    weights = Doubling()
    resumed = train(resumed_denoiser, small_data(), weights, QUICK, out=out, resume=True)
    assert weights.seen == list(range(stop + 1, 13))
    assert same(resumed_denoiser, whole_denoiser)
    assert same(resumed.denoiser, whole.denoiser)
    pd.testing.assert_frame_equal(timeless(resumed.history), timeless(whole.history), check_exact=True)


def test_a_network_that_draws_itself_repeats_and_resumes_too(tmp_path):
    def with_dropout():
        network = torch.nn.Sequential(torch.nn.Dropout(0.5), torch.nn.Linear(2, 2))
        torch.nn.init.ones_(network[1].weight)
        torch.nn.init.zeros_(network[1].bias)
        return Denoiser(network, schedules.cosine(), "v", call=lambda net, x, log_snr, cond: net(x))

    whole = train(with_dropout(), small_data(), None, QUICK)
    start = with_dropout()
    before = torch.get_rng_state()
    train(start, small_data(), None, dataclasses.replace(QUICK, steps=7), out=tmp_path / "run")
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(99)
    resumed = train(with_dropout(), small_data(), None, QUICK, out=tmp_path / "run", resume=True)
    assert same(resumed.denoiser, whole.denoiser)
    masks = []
    for seed, step, rank in ((3, 0, 0), (3, 0, 0), (3, 1, 0), (4, 0, 0), (3, 0, 1), (3, 1024, 0)):
        with own_draws(seed, step, torch.device("cpu"), rank):
            masks.append(torch.rand(8))
    assert torch.equal(masks[0], masks[1]) and len({tuple(mask.tolist()) for mask in masks}) == 5


def test_a_finished_run_can_be_made_longer(tmp_path):
    longer = dataclasses.replace(QUICK, steps=20)
    train(small_denoiser(), small_data(), None, dataclasses.replace(QUICK, steps=10), out=tmp_path / "run")
    resumed = train(small_denoiser(), small_data(), None, longer, out=tmp_path / "run", resume=True)
    assert same(resumed.denoiser, train(small_denoiser(), small_data(), None, longer).denoiser)
    with pytest.raises(InputError, match="steps: expected at least the 20 already done; got 12"):
        train(small_denoiser(), small_data(), None, QUICK, out=tmp_path / "run", resume=True)


class Exploding(Doubling):
    def __init__(self, step):
        super().__init__()
        self.step = step

    def __call__(self, log_snr):
        return super().__call__(log_snr) / (self.steps + 1 != self.step)


@pytest.mark.parametrize("step", [6, 9])
def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_step(tmp_path, step):
    """At step 6 a checkpoint is due within a row; it must not be written."""
    out = tmp_path / "run"
    words = rf"got loss \d.*weighted_loss inf.* at step {step}\. .*is kept in .*run"
    with pytest.raises(MeasurementError, match=words):
        train(small_denoiser(), small_data(), Exploding(step), QUICK, out=out)
    assert read_manifest(out).step == (0 if step == 6 else 6)
    resumed = train(small_denoiser(), small_data(), Doubling(), QUICK, out=out, resume=True)
    assert same(resumed.denoiser, train(small_denoiser(), small_data(), Doubling(), QUICK).denoiser)
    with pytest.raises(MeasurementError, match=f"step {step}") as caught:
        train(small_denoiser(), small_data(), Exploding(step), QUICK)
    assert "kept" not in str(caught.value)


def test_every_schedule_and_target_can_be_trained_on():
    for schedule in (schedules.linear_beta(), schedules.flow(), schedules.edm()):
        for name in ("epsilon", "x0", "v", "score", "flow", "F"):
            config = dataclasses.replace(QUICK, steps=2)
            history = train(small_denoiser(schedule=schedule, name=name), small_data(), None, config).history
            assert np.isfinite(history.loss).all()


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("dit", {"width": 8, "depth": 1, "heads": 2}),
        ("unet", {"channels": 4, "attention": 4}),
        ("uvit", {"width": 8, "depth": 3, "heads": 2}),
    ],
)
def test_networks_of_images_resume_too(tmp_path, name, options):
    """Buffers, attention, norms and many parameters: the same bytes."""
    images = torch.randn(40, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    from ntkdiag.data import Data

    data = Data("noise", images[:30], images[30:])

    def fresh():
        network = models.build(name, (1, 4, 4), frequencies=4, **options)
        return Denoiser(network, schedules.cosine(), "epsilon", call="log_snr")

    train(fresh(), data, None, dataclasses.replace(QUICK, steps=6), out=tmp_path / "run")
    resumed = train(fresh(), data, None, QUICK, out=tmp_path / "run", resume=True)
    assert same(resumed.denoiser, train(fresh(), data, None, QUICK).denoiser)
