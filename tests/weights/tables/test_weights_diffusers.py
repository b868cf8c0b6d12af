"""The diffusers library as judge: its SNR, its training scripts' min-SNR branches, its SD3 weighting."""

from __future__ import annotations

import math
import warnings

import pytest
import torch

from ntkdiag.process import schedules
from ntkdiag.weights import evaluate, rule
from ntkdiag.weights.audit import audit

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    diffusers = pytest.importorskip("diffusers")
    training_utils = pytest.importorskip("diffusers.training_utils")

GAMMA = 5.0
STEPS = torch.arange(1000)
BETAS = ("linear", "scaled_linear", "squaredcos_cap_v2")


def scheduler(betas: str = "scaled_linear", zero_terminal: bool = False):
    return diffusers.DDPMScheduler(beta_schedule=betas, rescale_betas_zero_snr=zero_terminal)


def script_weight(snr: torch.Tensor, prediction_type: str) -> torch.Tensor:
    """What the training scripts multiply the loss of a sample with, from their own description of min-SNR."""
    held = torch.minimum(snr, torch.full_like(snr, GAMMA))
    return held / {"epsilon": snr, "v_prediction": snr + 1}[prediction_type]


@pytest.mark.parametrize("zero_terminal", [False, True])
@pytest.mark.parametrize("betas", BETAS)
def test_their_snr_is_ours(betas: str, zero_terminal: bool) -> None:
    theirs = training_utils.compute_snr(scheduler(betas, zero_terminal), STEPS)
    level = schedules.from_diffusers(scheduler(betas, zero_terminal)).log_snr(STEPS.double())
    torch.testing.assert_close(level.exp().float(), theirs, rtol=2e-6, atol=0.0)
    assert (level[-1].item() == -math.inf) is zero_terminal and (theirs[-1].item() == 0.0) is zero_terminal


@pytest.mark.parametrize("target", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("betas", BETAS)
def test_their_min_snr_branches_are_ours(betas: str, target: str) -> None:
    noise = scheduler(betas)
    theirs = script_weight(training_utils.compute_snr(noise, STEPS), target)
    ours = rule("min_snr", target, gamma=GAMMA) if target == "epsilon" else rule("min_snr", "v", gamma=GAMMA)
    torch.testing.assert_close(ours.from_timesteps(noise, STEPS), theirs, rtol=5e-6, atol=0.0)
    found = audit(
        lambda t: script_weight(training_utils.compute_snr(noise, t), target),
        target,
        argument="timesteps",
        schedule=noise,
        rule="min_snr",
        gamma=GAMMA,
    )
    assert found.ok and "equals" in found.names


@pytest.mark.parametrize("betas", BETAS)
def test_at_zero_terminal_snr_their_epsilon_branch_is_nan_where_the_limit_is_one(betas: str) -> None:
    noise = scheduler(betas, zero_terminal=True)
    theirs = script_weight(training_utils.compute_snr(noise, STEPS), "epsilon")
    ours = rule("min_snr", "epsilon", gamma=GAMMA).from_timesteps(noise, STEPS)
    # They are wrong in the last step, and only there.
    assert theirs[-1].isnan() and ours[-1].item() == 1.0
    torch.testing.assert_close(ours[:-1], theirs[:-1], rtol=5e-6, atol=0.0)
    found = audit(
        lambda t: script_weight(training_utils.compute_snr(noise, t), "epsilon"),
        "epsilon",
        argument="timesteps",
        schedule=noise,
        rule="min_snr",
    )
    assert not found.ok and found.names[0] == "not_finite_at_zero_snr"


@pytest.mark.parametrize("betas", BETAS)
def test_at_zero_terminal_snr_their_v_branch_is_right(betas: str) -> None:
    noise = scheduler(betas, zero_terminal=True)
    theirs = script_weight(training_utils.compute_snr(noise, STEPS), "v_prediction")
    ours = rule("min_snr", "v", gamma=GAMMA).from_timesteps(noise, STEPS)
    torch.testing.assert_close(ours, theirs, rtol=5e-6, atol=0.0)
    assert ours[-1].item() == theirs[-1].item() == 0.0


def test_the_snr_weight_of_x0_in_the_unconditional_script_is_the_plain_error_of_noise() -> None:
    noise = scheduler("linear")
    alpha_bar = noise.alphas_cumprod
    theirs = (alpha_bar / (1 - alpha_bar))[STEPS]
    ours = rule("constant_epsilon", "x0").from_timesteps(noise, STEPS)
    torch.testing.assert_close(ours, theirs, rtol=2e-6, atol=0.0)


def test_the_one_that_was_added_to_snr_for_v_is_found_on_their_own_scheduler() -> None:
    # As the scripts had it from diffusers PR 5238 to PR 6307.
    noise = scheduler()

    def as_it_was(timesteps: torch.Tensor) -> torch.Tensor:
        snr = training_utils.compute_snr(noise, timesteps) + 1
        return torch.minimum(snr, torch.full_like(snr, GAMMA)) / snr

    found = audit(
        as_it_was, "v_prediction", argument="timesteps", schedule=noise, rule="min_snr", gamma=GAMMA
    )
    assert found.names[0] == "snr_plus_one" and not found.ok


@pytest.mark.parametrize("betas", BETAS)
def test_their_snr_of_betas_before_the_rescale_is_found(betas: str) -> None:
    before, after = scheduler(betas), scheduler(betas, zero_terminal=True)
    found = audit(
        lambda t: script_weight(training_utils.compute_snr(before, t), "v_prediction"),
        "v",
        argument="timesteps",
        schedule=after,
        rule="min_snr",
        gamma=GAMMA,
    )
    assert "snr_before_rescale" in found.names
    root = before.alphas_cumprod[-1].sqrt().item()
    told = float(found.findings[0].text.partition("√ᾱ_T was ")[2].partition(")")[0])
    assert told == pytest.approx(root, rel=0.05)


SIGMAS = torch.linspace(0.001, 1, 1000)


@pytest.mark.parametrize(("scheme", "name"), [("none", "uniform"), ("cosmap", "cosmap")])
def test_their_sd3_weighting_of_the_velocity_is_ours(scheme: str, name: str) -> None:
    path = schedules.flow()
    theirs = training_utils.compute_loss_weighting_for_sd3(scheme, SIGMAS)
    ours = evaluate(name, "flow", path.log_snr(SIGMAS.double()), path)
    torch.testing.assert_close(ours.float(), theirs, rtol=5e-6, atol=0.0)
    noise = diffusers.FlowMatchEulerDiscreteScheduler()
    found = audit(
        lambda t: training_utils.compute_loss_weighting_for_sd3(scheme, t / 1000),
        "flow",
        argument="timesteps",
        schedule=noise,
        rule=name,
    )
    assert found.ok and found.rule == f"{name} on flow"


def test_their_sigma_sqrt_is_the_velocity_error_written_on_x0_and_has_no_root() -> None:
    path = schedules.flow()
    theirs = training_utils.compute_loss_weighting_for_sd3("sigma_sqrt", SIGMAS)
    ours = evaluate("uniform", "x0", path.log_snr(SIGMAS.double()), path)
    torch.testing.assert_close(ours.float(), theirs, rtol=5e-6, atol=0.0)

    def of_time(time: torch.Tensor) -> torch.Tensor:
        return training_utils.compute_loss_weighting_for_sd3("sigma_sqrt", time)

    # Right where the scripts precondition the output to x0, another objective where they do not.
    assert audit(of_time, "x0", argument="timesteps", schedule=path, rule="uniform").ok
    on_velocity = audit(of_time, "flow", argument="timesteps", schedule=path, rule="uniform")
    assert on_velocity.names[0] == "formula_of_another_target" and not on_velocity.ok


def test_their_sd3_weighting_at_the_ends_of_time() -> None:
    path, ends = schedules.flow(), torch.tensor([0.0, 1.0])
    for scheme, name, target in (("none", "uniform", "flow"), ("cosmap", "cosmap", "flow")):
        theirs = training_utils.compute_loss_weighting_for_sd3(scheme, ends)
        ours = evaluate(name, target, path.log_snr(ends.double()), path)
        torch.testing.assert_close(ours.float(), theirs, rtol=1e-6, atol=0.0)
    # 1/σ² has no bound without noise; ours says so instead of handing out infinity.
    assert training_utils.compute_loss_weighting_for_sd3("sigma_sqrt", ends)[0].isinf()
    assert rule("uniform", "x0", clip=1e6)(math.inf).item() == 1e6
