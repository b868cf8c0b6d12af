"""Schedulers of the diffusers library are recognised by the attributes they carry."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from ntkdiag.errors import InputError
from ntkdiag.process import schedules


class Config(dict):  # type: ignore[type-arg]
    """Like diffusers' FrozenDict: a mapping whose entries are attributes too."""

    __getattr__ = dict.__getitem__


def scheduler(config: dict[str, Any] | None = None, **attributes: Any) -> SimpleNamespace:
    return SimpleNamespace(config=Config(config or {}), **attributes)


def ddpm_alphas_cumprod(dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0).to(dtype)


def test_alphas_cumprod_is_a_table() -> None:
    found = schedules.from_diffusers(scheduler(alphas_cumprod=ddpm_alphas_cumprod(torch.float64)))
    assert found.name == "from_table" and found.discrete
    steps = torch.arange(1000, dtype=torch.float64)
    torch.testing.assert_close(
        found.log_snr(steps), schedules.linear_beta().log_snr(steps), rtol=1e-9, atol=1e-9
    )


def test_float32_scheduler_loses_no_more_than_float32_did() -> None:
    found = schedules.from_diffusers(scheduler(alphas_cumprod=ddpm_alphas_cumprod()))
    steps = torch.arange(1000, dtype=torch.float64)
    # 1 − ᾱ = 1e-4 at the first step, known to half a unit of float32 near 1, 3e-8.
    torch.testing.assert_close(
        found.log_snr(steps), schedules.linear_beta().log_snr(steps), rtol=0, atol=4e-4
    )


def test_alphas_cumprod_may_end_in_zero_snr() -> None:
    found = schedules.from_diffusers(scheduler(alphas_cumprod=np.array([0.9, 0.5, 0.1, 0.0])))
    assert float(found.log_snr(3.0)) == -math.inf
    assert float(found.log_snr(1.0)) == 0.0
    assert float(found.alpha(found.log_snr(2.0))) == pytest.approx(math.sqrt(0.1))


def test_alphas_cumprod_goes_before_the_sigmas_of_an_euler_scheduler() -> None:
    both = scheduler({"prediction_type": "epsilon"}, alphas_cumprod=[0.9, 0.5, 0.1], sigmas=[1.0, 0.0])
    assert schedules.from_diffusers(both).name == "from_table"


def test_flow_matching_sigmas_are_a_flow() -> None:
    sigmas = torch.linspace(1, 0.001, 1000)
    found = schedules.from_diffusers(scheduler({"shift": 3.0, "use_dynamic_shifting": False}, sigmas=sigmas))
    assert found == schedules.flow(shift=3.0)


def test_shift_by_image_size_is_not_taken_over() -> None:
    config = {"shift": 3.0, "use_dynamic_shifting": True}
    assert schedules.from_diffusers(scheduler(config, sigmas=[1.0, 0.5, 0.0])) == schedules.flow()


def test_sigmas_may_stand_in_the_config() -> None:
    assert schedules.from_diffusers(scheduler({"sigmas": [1.0, 0.5]})) == schedules.flow()


@pytest.mark.parametrize("config", [{"use_flow_sigmas": True}, {"prediction_type": "flow_prediction"}])
def test_multistep_scheduler_in_flow_mode_is_a_flow_despite_its_betas(config: dict[str, Any]) -> None:
    found = schedules.from_diffusers(
        scheduler(config | {"flow_shift": 5.0}, alphas_cumprod=ddpm_alphas_cumprod(), sigmas=[14.0, 0.0])
    )
    assert found == schedules.flow(shift=5.0)


def test_edm_config_is_edm() -> None:
    config = {"sigma_min": 0.002, "sigma_max": 80.0, "sigma_data": 0.7}
    found = schedules.from_diffusers(scheduler(config, sigmas=torch.linspace(80, 0, 10)))
    assert found == schedules.edm(sigma_data=0.7)


def test_config_may_be_a_plain_object() -> None:
    found = schedules.from_diffusers(SimpleNamespace(config=SimpleNamespace(sigma_data=0.5)))
    assert found == schedules.edm()


EDM_CONFIG = {"sigma_min": 0.002, "sigma_max": 80.0, "sigma_data": 0.5}
SIGMAS = torch.tensor([80.0, 2.0, 0.002, 0.0], dtype=torch.float64)


@pytest.mark.parametrize(("scale", "time"), [(0.25, math.log(3) / 4), (250.0, 250 * math.log(3))])
def test_edm_and_consistency_models_are_told_apart_by_their_timesteps(scale: float, time: float) -> None:
    found = schedules.from_diffusers(
        scheduler(EDM_CONFIG, sigmas=SIGMAS, timesteps=scale * SIGMAS[:-1].log().float())
    )
    assert found == schedules.edm() and found.time_range[1] == pytest.approx(709.78 * scale, rel=1e-4)
    assert float(found.log_snr(time)) == pytest.approx(-2 * math.log(3), rel=1e-12)
    assert float(found.time(-2 * math.log(3))) == pytest.approx(time, rel=1e-12)


def test_trigflow_counts_the_angle() -> None:
    found = schedules.from_diffusers(scheduler({"prediction_type": "trigflow", "sigma_data": 0.5}))
    assert found == schedules.cosine() and float(found.log_snr(math.pi / 4)) == pytest.approx(0, abs=1e-15)
    angle = 0.3
    assert float(found.alpha(found.log_snr(angle))) == pytest.approx(math.cos(angle))
    # d/dt (cos t, sin t)
    assert [float(rate) for rate in found.rates(found.log_snr(angle))] == pytest.approx(
        [-math.sin(angle), math.cos(angle)]
    )


def test_the_velocity_of_a_flow_is_that_of_t_in_whatever_unit_t_is_told() -> None:
    found = schedules.from_diffusers(scheduler({"num_train_timesteps": 500}, sigmas=[1.0, 0.5]))
    assert float(found.time(0.0)) == 250.0
    assert [float(rate) for rate in found.rates(0.0)] == [-1.0, 1.0]


def test_a_last_step_that_stands_in_for_zero_snr_may_lie_above_the_one_before() -> None:
    alphas = [0.9, 0.5, 4e-9, 2.0**-24]
    found = schedules.from_diffusers(scheduler(alphas_cumprod=torch.tensor(alphas, dtype=torch.float64)))
    levels = [math.log(one / (1 - one)) for one in alphas]
    assert [float(found.log_snr(step)) for step in range(4)] == pytest.approx(levels, rel=1e-12)
    assert [float(found.time(level)) for level in levels[:3]] == pytest.approx([0, 1, 2], abs=1e-12)
    assert 1 < float(found.time(levels[3])) < 2
    assert found.support[0] < min(levels) and float(found.cdf(found.support[1])) == 1.0
    probability = torch.linspace(0.01, 0.99, 9, dtype=torch.float64)
    torch.testing.assert_close(found.cdf(found.quantile(probability)), probability)


def test_roots_of_the_cumulative_product_are_a_table_too() -> None:
    found = schedules.from_diffusers(SimpleNamespace(sqrt_alphas_cumprod=[0.9**0.5, 0.5**0.5]))
    assert float(found.log_snr(1)) == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize(
    ("unknown", "words"),
    [
        (
            scheduler(EDM_CONFIG, sigmas=SIGMAS, timesteps=SIGMAS[:-1].atan()),
            r"timesteps of SimpleNamespace: expected ln\(sigma\)/4 \(EDM\) or 250 ln\(sigma\)",
        ),
        (
            scheduler(sigmas=[0.9, 0.4, 0.0], timesteps=[0.1, 0.6]),
            r"expected 1000 times its sigmas .* got 2 of another unit from 0.1 to 0.6",
        ),
        (
            scheduler(alphas_cumprod=[0.9, 0.5, 0.1], timesteps=[-1.6, -0.2]),
            r"expected steps of its 3 alphas_cumprod",
        ),
        (scheduler(alphas_cumprod=[0.9, 0.1, 0.2]), "from clean to noisy"),
        (object(), "expected a scheduler with `alphas_cumprod`.*`config.sigma_data`.*`sigmas`.*got object"),
        (None, "got NoneType"),
        (scheduler(sigmas=[14.6, 1.0, 0.0]), "flow matching.*from_table"),
        (scheduler(sigmas=[]), "flow matching"),
        (scheduler(sigmas="abc"), "scheduler sigmas: expected a list of numbers; got str"),
        (scheduler(alphas_cumprod=[]), "values in \\[0, 1\\); got 0 values"),
        (scheduler(alphas_cumprod=[0.9, math.nan]), "values in \\[0, 1\\)"),
        (scheduler(alphas_cumprod=[0.1, 0.5, 0.9]), "from clean to noisy"),
        (scheduler(alphas_cumprod=ddpm_alphas_cumprod(torch.float16)), "half precision"),
    ],
)
def test_what_cannot_be_recognised_is_refused_in_words(unknown: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        schedules.from_diffusers(unknown)
