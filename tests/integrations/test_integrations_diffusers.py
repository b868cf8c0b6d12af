"""Weights in diffusers' training scripts: real schedulers, every prediction type, losses as the scripts form them."""

from __future__ import annotations

import math
import warnings

import pytest
import torch
from integrations_cases import Recorder, refresher

from ntkdiag.errors import InputError
from ntkdiag.integrations.diffusers import ScriptWeights, loss_target
from ntkdiag.process import schedules
from ntkdiag.process.target import value
from ntkdiag.weights import WeightTable, rule

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    diffusers = pytest.importorskip("diffusers")

STEPS = torch.tensor([0, 3, 250, 500, 999])


@pytest.fixture
def draws() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """x0, noise and a network's output, [5, 1, 4, 4]."""
    draw = torch.Generator().manual_seed(0)
    return tuple(torch.randn(5, 1, 4, 4, generator=draw) for _ in range(3))  # type: ignore[return-value]


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
def test_a_ddpm_script_weighs_the_loss_of_its_prediction_type(prediction_type: str, draws: tuple) -> None:
    x0, noise, output = draws
    scheduler = diffusers.DDPMScheduler(prediction_type=prediction_type)
    target = {
        "epsilon": noise,
        "v_prediction": scheduler.get_velocity(x0, noise, STEPS),
        "sample": x0,
    }[prediction_type]
    name = {"epsilon": "epsilon", "v_prediction": "v", "sample": "x0"}[prediction_type]
    assert loss_target(scheduler) == name

    weights = ScriptWeights(rule("min_snr", name, gamma=5.0), scheduler)
    loss = torch.nn.functional.mse_loss(output, target, reduction="none").flatten(1).mean(1)
    weighted = (weights(STEPS) * loss).mean()

    snr = scheduler.alphas_cumprod[STEPS] / (1 - scheduler.alphas_cumprod[STEPS])
    divisor = {"epsilon": snr, "v": snr + 1, "x0": torch.ones_like(snr)}[name]
    torch.testing.assert_close(weighted, (snr.clamp(max=5.0) / divisor * loss).mean(), rtol=1e-5, atol=0.0)


def test_one_objective_costs_the_same_in_every_prediction_type(draws: tuple) -> None:
    # One network function, written as ε, v and x0: its min-SNR loss must not depend on the writing.
    error = draws[2]
    steps = torch.tensor([10, 100, 400, 600, 800])
    losses = []
    for prediction_type, name in (("epsilon", "epsilon"), ("v_prediction", "v"), ("sample", "x0")):
        scheduler = diffusers.DDPMScheduler(prediction_type=prediction_type, clip_sample=False)
        alpha_bar = scheduler.alphas_cumprod[steps].double().reshape(-1, 1, 1, 1)
        off = 0.1 * error.double()  # how far the predicted x0 is from x0
        gain = {"epsilon": (alpha_bar / (1 - alpha_bar)).sqrt(), "v": (1 - alpha_bar).rsqrt(), "x0": 1.0}[
            name
        ]
        weights = ScriptWeights(rule("min_snr", name), scheduler)(steps)
        losses.append((weights * ((gain * off) ** 2).flatten(1).mean(1)).mean())
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-6, atol=0.0)
    torch.testing.assert_close(losses[0], losses[2], rtol=1e-6, atol=0.0)


def test_zero_terminal_snr_has_its_limits() -> None:
    scheduler = diffusers.DDPMScheduler(prediction_type="v_prediction", rescale_betas_zero_snr=True)
    assert ScriptWeights(rule("min_snr", "v"), scheduler)(torch.tensor([999])).item() == 0.0
    scheduler = diffusers.DDPMScheduler(rescale_betas_zero_snr=True)
    assert ScriptWeights(rule("min_snr", "epsilon"), scheduler)(torch.tensor([999])).item() == 1.0


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_a_flow_script_weighs_by_sigmas_and_by_timesteps_alike(shift: float, draws: tuple) -> None:
    x0, noise, output = draws
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=shift)
    assert loss_target(scheduler) == "flow"
    index = torch.tensor([0, 10, 500, 900, 999])
    timesteps, sigmas = scheduler.timesteps[index], scheduler.sigmas[index].reshape(-1, 1, 1, 1)
    weights = ScriptWeights(rule("cosmap", "flow", schedules.flow(), normalise=False), scheduler)
    weighting = weights.of_sigmas(sigmas)
    assert weighting.shape == (5, 1, 1, 1) and weighting.dtype == torch.float32
    expected = 2 / (math.pi * (1 - 2 * sigmas + 2 * sigmas**2))
    torch.testing.assert_close(weighting, expected, rtol=1e-5, atol=0.0)
    torch.testing.assert_close(weights(timesteps), weighting.flatten(), rtol=1e-5, atol=0.0)
    loss = (weighting.float() * (output - (noise - x0)) ** 2).flatten(1).mean(1).mean()
    assert torch.isfinite(loss)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_an_edm_style_script_compares_the_preconditioned_output_with_x0(
    prediction_type: str, draws: tuple
) -> None:
    x0, noise, output = draws
    scheduler = diffusers.EDMEulerScheduler(prediction_type=prediction_type)
    assert loss_target(scheduler) == "x0"
    sigmas = torch.tensor([0.01, 0.1, 0.5, 2.0, 40.0]).reshape(-1, 1, 1, 1)
    noisy = x0 + sigmas * noise
    predicted = scheduler.precondition_outputs(noisy, output, sigmas)

    # The scripts' own weight, σ^−2 on x0, is the plain error of the noise.
    plain = ScriptWeights(rule("constant_epsilon", "x0"), scheduler)
    torch.testing.assert_close(plain.of_sigmas(sigmas), sigmas**-2.0, rtol=1e-5, atol=0.0)
    torch.testing.assert_close(
        plain(sigmas.flatten().log() / 4), sigmas.flatten() ** -2.0, rtol=1e-5, atol=0.0
    )

    # EDM's weight on x0 is the plain error of what the network itself puts out.
    edm = ScriptWeights(rule("edm", "x0", sigma_data=scheduler.config.sigma_data), scheduler)
    loss = (edm.of_sigmas(sigmas) * (predicted - x0) ** 2).mean()
    c_out = sigmas * 0.5 / (sigmas**2 + 0.25).sqrt() * (-1 if prediction_type == "v_prediction" else 1)
    wanted = (x0 - 0.25 / (sigmas**2 + 0.25) * noisy) / c_out
    torch.testing.assert_close(loss, ((output - wanted) ** 2).mean(), rtol=1e-4, atol=0.0)


@pytest.mark.parametrize(
    ("sigma_data", "prediction", "name"),
    [(0.5, "epsilon", "F"), (1.0, "epsilon", "F"), (1.0, "v_prediction", "v")],
)
def test_what_an_edm_scheduler_is_read_to_predict_gives_x0_by_its_own_preconditioning(
    sigma_data: float, prediction: str, name: str, draws: tuple
) -> None:
    scheduler = diffusers.EDMEulerScheduler(sigma_data=sigma_data, prediction_type=prediction)
    schedule = schedules.from_diffusers(scheduler)
    assert schedule.predicted[0] == name
    x0, noise, _ = (part.double() for part in draws)
    sigmas = torch.tensor([0.01, 0.1, 0.5, 2.0, 40.0], dtype=torch.float64)
    predicted = value(name, schedule, -2 * sigmas.log(), x0, noise)
    shaped = sigmas.reshape(-1, 1, 1, 1)
    found = scheduler.precondition_outputs(x0 + shaped * noise, predicted, shaped)
    torch.testing.assert_close(found, x0, rtol=1e-6, atol=1e-6)


def test_sigmas_of_a_vp_scheduler_are_noise_levels() -> None:
    scheduler = diffusers.EulerDiscreteScheduler(prediction_type="epsilon")
    alpha_bar = scheduler.alphas_cumprod[STEPS]
    sigmas = ((1 - alpha_bar) / alpha_bar).sqrt().reshape(-1, 1, 1, 1)
    weights = ScriptWeights(rule("p2", "epsilon"), scheduler)
    torch.testing.assert_close(weights.of_sigmas(sigmas).flatten(), weights(STEPS), rtol=1e-4, atol=0.0)


def test_weights_for_another_target_are_refused() -> None:
    v = rule("min_snr", "v")
    with pytest.raises(
        InputError, match=r"weights for epsilon, since the scheduler's prediction_type is 'epsilon'"
    ):
        ScriptWeights(v, diffusers.DDPMScheduler())
    with pytest.raises(InputError, match="weights for flow, since the scheduler is one of flow matching"):
        ScriptWeights(v, diffusers.FlowMatchEulerDiscreteScheduler())
    with pytest.raises(InputError, match="weights for x0, since scripts compare the preconditioned output"):
        ScriptWeights(v, diffusers.EDMEulerScheduler())
    with pytest.raises(InputError, match="weights for epsilon, as loss_target says"):
        ScriptWeights(v, diffusers.DDPMScheduler(prediction_type="v_prediction"), loss_target="epsilon")
    # A script may bring every prediction to one target before it compares.
    assert ScriptWeights(v, diffusers.DDPMScheduler(), loss_target="v_prediction").target == "v"
    assert ScriptWeights(v, schedules.linear_beta()).target == "v"


def test_what_is_not_weights_or_not_a_time_is_refused() -> None:
    scheduler = diffusers.DDPMScheduler(prediction_type="v_prediction")
    with pytest.raises(InputError, match="weights: expected a weight table, a Refresher, or the path"):
        ScriptWeights(lambda t: t, scheduler)  # type: ignore[arg-type]
    weights = ScriptWeights(rule("min_snr", "v"), scheduler)
    with pytest.raises(InputError, match="times from 0 to 999; got 1000"):
        weights(torch.tensor([1000]))
    with pytest.raises(InputError, match="sigmas: expected numbers from 0 to inf; got -1"):
        weights.of_sigmas(torch.tensor([-1.0]))
    flow = ScriptWeights(rule("erd", "flow", schedules.flow()), diffusers.FlowMatchEulerDiscreteScheduler())
    with pytest.raises(InputError, match=r"sigmas: expected numbers from 0 to 1; got 1\.5"):
        flow.of_sigmas(torch.tensor([1.5]))


def test_times_of_zero_to_one_are_not_taken_for_thousandths() -> None:
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3)
    measured = WeightTable(torch.tensor([-6.0, 0.0, 6.0]), torch.tensor([0.5, 1.0, 2.0]), "flow")
    weights = ScriptWeights(measured, scheduler)
    with pytest.raises(InputError, match="no time within"):
        weights(torch.tensor([0.9, 0.5, 0.1]))
    torch.testing.assert_close(weights(torch.tensor([500.0])), torch.tensor([1.0]))


def test_a_table_comes_from_a_file_and_a_refresher_gets_its_steps(tmp_path) -> None:
    scheduler = diffusers.DDPMScheduler(prediction_type="v_prediction")
    rule("min_snr", "v").save(tmp_path / "weights.csv")
    made = ScriptWeights(tmp_path / "weights.csv", scheduler)
    assert isinstance(made.source, WeightTable)
    recorder = Recorder("v")
    weights = ScriptWeights(recorder, scheduler)
    for step in (1, 2, 3):
        weights.after_step(step)
    assert recorder.steps == [1, 2, 3] and weights.state_dict() == {"steps": [1, 2, 3]}
    live = ScriptWeights(refresher("v", every=1), scheduler)
    before = live(STEPS)
    live.after_step(1)
    assert not torch.equal(live(STEPS), before)
