"""The linear model beside real steps, on networks whose answer is known."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from trust_cases import Square, TwoLayers, linear_denoiser, small_data, with_x_alone

import ntkdiag as nd
from ntkdiag.claims.levels import LEVELS as VERIFIED
from ntkdiag.claims.levels import training_steps
from ntkdiag.errors import InputError, MeasurementError
from ntkdiag.kernel.preconditioner import adam
from ntkdiag.trust.kernel_comparison import compare_kernels
from ntkdiag.trust.linearity import relative_error
from ntkdiag.trust.optimizers import start_of
from ntkdiag.trust.real_steps import displacements
from ntkdiag.trust.sizes import LEVELS

SMALL = {"buckets": (-6.0, -1.0, 1.0, 6.0), "samples": 4, "repeats": 1, "steps": 4}


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "muon"])
def test_a_linear_network_has_no_error(optimizer):
    found = nd.trust.linearization(linear_denoiser(), small_data(), optimizer, learning_rate=0.1, **SMALL)
    assert found.steps["error"].max() < 1e-12
    assert found.fractions["error"].max() < 1e-9  # a thousandth of a step loses three digits
    assert (found.buckets["good_steps"] == 4).all() and (found.buckets["largest_fraction"] == 1).all()
    assert found.steps["predicted_change"].to_numpy() == pytest.approx(found.steps["true_change"].to_numpy())
    assert (found.steps["true_change"].abs() > 1e-6).all()
    assert "at least the next 4 steps" in found.text
    assert found.dtype == "float64"


def test_the_error_of_a_square_is_half_the_relative_step():
    denoiser = with_x_alone(Square())
    found = nd.trust.linearization(denoiser, small_data(), "sgd", learning_rate=0.01, batch=8, **SMALL)
    start = start_of(denoiser, "sgd", learning_rate=0.01, batch=8)
    moved = [float(step[0]) for step in displacements(start, small_data(), None, 4, 0, 0)]
    for step in (1, 2, 4):
        errors = found.steps.loc[found.steps["step"] == step, "error"]
        assert errors.to_numpy() == pytest.approx(abs(moved[step - 1]) / 6, rel=1e-6)
    by_fraction = found.fractions.groupby("fraction")["error"].mean()
    assert by_fraction.to_numpy() == pytest.approx(by_fraction.index.to_numpy() * abs(moved[0]) / 6, rel=1e-6)


def test_the_tolerance_decides_how_many_steps_are_good():
    denoiser = with_x_alone(Square())
    found = nd.trust.linearization(denoiser, small_data(), "sgd", learning_rate=0.01, batch=8, **SMALL)
    errors = found.steps.groupby("step")["error"].max()
    between = nd.trust.linearization(
        denoiser, small_data(), "sgd", learning_rate=0.01, batch=8, tolerance=(errors[1] + errors[2]) / 2, **SMALL
    )  # fmt: skip
    assert errors[1] < errors[2]
    assert (between.buckets["good_steps"] == 1).all() and between.good_steps == 1
    tight = nd.trust.linearization(
        denoiser, small_data(), "sgd", learning_rate=0.01, batch=8, tolerance=errors[1] * 0.05, **SMALL
    )  # fmt: skip
    assert tight.good_steps == 0 and (tight.buckets["largest_fraction"] == 0.01).all()
    assert "not even one step" in tight.text


@pytest.mark.parametrize(("optimizer", "learning_rate", "power"), [("adamw", 1e-3, -0.5), ("sgd", 0.3, -1.0)])
def test_two_layers_follow_the_law_of_width(optimizer, learning_rate, power):
    """1/√width at equal steps of each weight, as Adam's first are; the error of a gradient step falls with 1/width.

    The bound of Lee et al. 2019 (arXiv 1902.06720) is 1/√width; in a gradient step the terms of second order have random
    signs, which gives one more 1/√width (Dyer & Gur-Ari 2020, arXiv 1909.11304).
    """
    widths = (64, 256, 1024, 4096, 16384)
    errors = []
    for width in widths:
        each = [
            nd.trust.linearization(
                with_x_alone(TwoLayers(width, seed)), small_data(), optimizer, learning_rate=learning_rate, batch=64,
                buckets=(-2.0, 2.0), samples=8, repeats=1, steps=1,
            ).buckets["error"].mean()
            for seed in range(6)
        ]  # fmt: skip
        errors.append(np.exp(np.log(each).mean()))
    slope = np.polyfit(np.log(widths), np.log(errors), 1)[0]
    assert slope == pytest.approx(power, abs=0.1)


def test_nothing_of_the_user_is_changed_and_a_seed_gives_the_same_numbers():
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.Dropout(0.5), torch.nn.Linear(8, 2))
    denoiser = with_x_alone(network).train()
    optimizer = torch.optim.AdamW(denoiser.parameters(), lr=1e-2)
    denoiser(torch.ones(1, 2), 0.0).sum().backward()
    optimizer.step()
    before = {name: p.clone() for name, p in denoiser.named_parameters()}
    moments = [value.clone() for state in optimizer.state.values() for value in state.values()]
    random = torch.get_rng_state()
    tables = [nd.trust.linearization(denoiser, small_data(), optimizer, **SMALL).steps for _ in range(2)]
    pd.testing.assert_frame_equal(*tables)
    assert all(torch.equal(p, before[name]) for name, p in denoiser.named_parameters())
    after = [value for state in optimizer.state.values() for value in state.values()]
    assert all(torch.equal(a, b) for a, b in zip(moments, after, strict=True))
    assert torch.equal(random, torch.get_rng_state()) and denoiser.training


def test_the_users_state_makes_the_steps():
    """Large moments from before move the copy as they would move the network."""
    denoiser = linear_denoiser()
    optimizer = torch.optim.SGD(denoiser.parameters(), lr=0.1, momentum=0.9)
    for p in denoiser.parameters():
        optimizer.state[p]["momentum_buffer"] = torch.full_like(p, 1000.0)
    step = next(
        displacements(start_of(denoiser, optimizer, learning_rate=1, batch=4), small_data(), None, 1, 0, 0)
    )
    assert all(part.flatten().tolist() == pytest.approx([-90.0] * part.numel(), rel=0.02) for part in step)


def test_a_training_run_goes_on_from_its_checkpoint(tmp_path):
    network = nd.models.build("mlp", (2,), width=8, depth=1, frequencies=4)
    denoiser = nd.Denoiser(network, nd.schedules.cosine(), "v", call="log_snr")
    config = nd.train.TrainConfig(steps=6, batch=16, learning_rate=1e-2, warmup=12, gradient_clip=0.5)
    result = nd.train.train(denoiser, small_data(), None, config, out=tmp_path / "run")
    start = start_of(result.denoiser, str(tmp_path / "run"), learning_rate=1, batch=None)
    live = dict(denoiser.named_parameters())  # the run trained it in place; the result is the average
    assert all(torch.equal(p, live[name]) for name, p in start.denoiser.named_parameters())
    assert start.batch == 16 and start.clip == 0.5 and start.rate is not None
    assert start.rate(0) == pytest.approx(1e-2 * 7 / 12)
    state = start.optimizers[0].state[next(start.denoiser.parameters())]
    assert float(state["step"]) == 6
    found = nd.trust.linearization(
        result.denoiser, small_data(), tmp_path / "run", buckets=3, samples=4, repeats=2, steps=4
    )
    assert found.comparison is not None and set(found.comparison.better) <= {
        "plain",
        "preconditioned",
        "cannot say",
    }
    assert "at step 6 of the run" in found.optimizer
    quick = nd.trust.linearization(result.denoiser, small_data(), tmp_path / "run", buckets=3, level="quick")
    assert quick.comparison is not None and set(quick.buckets["kernel"]) == {"cannot say"}
    assert "takes several continuations, as at level standard" in quick.text
    known = start.preconditioner
    assert known is not None and set(known) == set(live)
    assert all(torch.equal(known[n], p) for n, p in adam(start.optimizers[0], start.denoiser).items())


def test_the_preconditioned_kernel_wins_where_parameters_have_unequal_scales():
    """One output by a slow parameter and one by a fast one: Adam moves both alike, the plain kernel only the fast one."""

    class Uneven(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.w = torch.nn.Parameter(torch.zeros(2))
            self.register_buffer("scale", torch.tensor([1.0, 0.01]))

        def forward(self, x, log_snr):
            noisy = (log_snr < 0)[:, None]
            return torch.where(noisy, self.w[0] * self.scale[0] * x, self.w[1] * self.scale[1] * x)

    denoiser = nd.Denoiser(Uneven(), nd.schedules.cosine(), "x0", call="log_snr")
    optimizer = torch.optim.AdamW(denoiser.parameters(), lr=1e-3, betas=(0.5, 0.99), weight_decay=0)
    x = torch.randn(64, 2, generator=torch.Generator().manual_seed(0))
    for _ in range(20):
        optimizer.zero_grad()
        level = torch.cat([torch.full((32,), -4.0), torch.full((32,), 4.0)])
        (denoiser(x, level) - x).square().mean().backward()
        optimizer.step()
    sizes = {"buckets": (-4, 0, 4), "samples": 16, "repeats": 4, "steps": 8}
    found = nd.trust.linearization(denoiser, small_data(), optimizer, **sizes).comparison
    assert found is not None
    assert found.better[1] == "preconditioned"
    assert found.preconditioned_explained > found.plain_explained


def test_either_kernel_can_win_and_neither():
    true = np.array([[-2.0, -1.0], [-2.1, -0.9], [-1.9, -1.1]])
    right, wrong = np.array([-4.0, -2.0]), np.array([1.0, -5.0])
    assert compare_kernels(true, right, wrong).better == ("plain", "plain")
    assert compare_kernels(true, wrong, right).better == ("preconditioned", "preconditioned")
    assert compare_kernels(true, right, right).better == ("cannot say", "cannot say")
    turned = compare_kernels(true, -right, right)
    assert turned.plain.tolist() == [0, 0] and turned.plain_explained == 0


def test_one_continuation_has_no_spread():
    alone = compare_kernels(np.array([[-2.0, -1.0]]), np.array([-4.0, -2.0]), np.array([1.0, -5.0]))
    assert alone.better == ("cannot say", "cannot say")
    assert alone.plain_explained == 1 and alone.preconditioned_explained < 0.5


def test_a_frozen_output_has_no_relative_error():
    error = relative_error(torch.zeros(2, 3, 1), torch.stack([torch.zeros(3, 1), torch.ones(3, 1)]))
    assert error.isnan().tolist() == [True, False] and error[1] == 1


def test_a_network_that_runs_in_float32_alone_is_compared_in_it():
    class Narrow(torch.nn.Linear):
        def forward(self, x):
            return torch.nn.functional.linear(x.float(), self.weight, self.bias)

    found = nd.trust.linearization(with_x_alone(Narrow(2, 2)), small_data(), "sgd", **SMALL)
    assert found.dtype == "float32"
    assert found.steps["error"].max() < 1e-3


def test_quick_costs_less_than_a_fifth_of_quick_verification():
    sizes = VERIFIED["quick"]
    verify = training_steps(1 + sizes.controls, 10, sizes.samples, sizes.probes)
    assert LEVELS["quick"].training_steps(10) < verify / 5
    assert LEVELS["quick"].training_steps(10) < LEVELS["standard"].training_steps(10)
    many = dataclasses.replace(LEVELS["quick"], samples=800)
    assert many.training_steps(10) > 50 * LEVELS["quick"].training_steps(10) / 2


def test_steps_that_diverge_are_an_error():
    with pytest.raises(MeasurementError, match="Lower the learning rate"):
        nd.trust.linearization(linear_denoiser(), small_data(), "sgd", learning_rate=1e38, **SMALL)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"optimizer": "adam"}, "optimizer: expected one of sgd, adamw, muon"),
        ({"optimizer": 3}, "got int"),
        ({"optimizer": []}, "got list"),
        ({"samples": 0}, "samples"),
        ({"tolerance": 0}, "tolerance"),
        ({"level": "fast"}, "quick, standard, thorough"),
        ({"batch": -1}, "batch"),
    ],
)
def test_bad_input_is_said_in_a_line(arguments, words):
    with pytest.raises(InputError, match=words):
        nd.trust.linearization(linear_denoiser(), small_data(), **{**SMALL, **arguments})


def test_an_optimizer_of_another_network_is_refused():
    other = torch.optim.SGD(linear_denoiser().parameters(), lr=0.1)
    with pytest.raises(InputError, match=r"denoiser\.parameters\(\)"):
        nd.trust.linearization(linear_denoiser(), small_data(), other, **SMALL)


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(InputError, match="a folder with a training run in it"):
        nd.trust.linearization(linear_denoiser(), small_data(), tmp_path, **SMALL)
