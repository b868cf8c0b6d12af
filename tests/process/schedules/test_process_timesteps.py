"""Timesteps in the units of schedules and schedulers, and the log-SNR they stand for."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ntkdiag.errors import InputError
from ntkdiag.process import schedules
from ntkdiag.process.schedules.diffusers_scheduler import prediction_type
from ntkdiag.process.schedules.timesteps import Timesteps

ALPHAS = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0)
TABLE = SimpleNamespace(alphas_cumprod=ALPHAS, config={"prediction_type": "v_prediction"})
FLOW = SimpleNamespace(sigmas=[1.0, 0.5], config={"num_train_timesteps": 500})
EDM = SimpleNamespace(sigmas=[80.0, 1.0], config={"sigma_data": 0.5})


@pytest.mark.parametrize(
    ("scheduler", "timestep", "log_snr"),
    [
        (TABLE, 400, math.log(ALPHAS[400] / (1 - ALPHAS[400]))),
        (schedules.linear_beta(), 400, math.log(ALPHAS[400] / (1 - ALPHAS[400]))),
        (FLOW, 125.0, 2 * math.log(3)),  # t = 1/4
        (schedules.flow(), 0.25, 2 * math.log(3)),
        (EDM, math.log(3) / 4, -2 * math.log(3)),  # s = 3
        (schedules.edm(), 3.0, -2 * math.log(3)),
        (schedules.cosine(), 0.5, 0.0),
    ],
)
def test_a_timestep_is_read_in_the_schedulers_own_unit(
    scheduler: Any, timestep: float, log_snr: float
) -> None:
    axis = Timesteps(scheduler)
    found = axis.log_snr(torch.tensor([timestep]))
    assert found.dtype == torch.float64
    assert found.item() == pytest.approx(log_snr, rel=1e-6, abs=1e-12)
    assert axis.at(found).item() == pytest.approx(timestep, rel=1e-6)


def test_a_table_answers_with_its_nearest_step() -> None:
    axis = Timesteps(TABLE)
    levels = axis.log_snr(torch.tensor([10.4, 10.6]))
    assert torch.equal(axis.at(levels), torch.tensor([10, 11]))


def test_a_flow_scheduler_that_does_not_say_counts_to_a_thousand() -> None:
    axis = Timesteps(SimpleNamespace(sigmas=[1.0, 0.5], config=SimpleNamespace()))
    assert axis.log_snr(torch.tensor([500])).item() == 0.0


@pytest.mark.parametrize("scheduler", [TABLE, FLOW, EDM], ids=["table", "flow", "edm"])
def test_a_schedule_counts_as_the_scheduler_it_was_read_from(scheduler: Any) -> None:
    levels = torch.tensor([-6.0, 0.5, 3.0], dtype=torch.float64)
    schedule = schedules.from_diffusers(scheduler)
    found = schedules.log_snr_of_timesteps(scheduler, schedule.time(levels))
    torch.testing.assert_close(found, levels)
    torch.testing.assert_close(schedule.log_snr(schedule.time(levels)), levels)
    again = schedules.named(**schedule.describe())
    assert torch.equal(again.time(levels), schedule.time(levels)) and again.time_range == schedule.time_range


@pytest.mark.parametrize(
    ("scheduler", "timestep", "last"), [(TABLE, 1000, 999), (FLOW, 501, 500), (schedules.cosine(), -0.1, 1)]
)
def test_a_timestep_outside_the_schedule_is_refused(scheduler: Any, timestep: float, last: int) -> None:
    with pytest.raises(InputError, match=f"timesteps for schedule .*: expected times from 0 to {last}; got"):
        Timesteps(scheduler).log_snr(torch.tensor([0.5, timestep]))


def test_the_prediction_type_is_read_if_there_is_one() -> None:
    assert prediction_type(TABLE) == "v_prediction"
    assert prediction_type(SimpleNamespace(config=SimpleNamespace(prediction_type="epsilon"))) == "epsilon"
    assert prediction_type(FLOW) is None and prediction_type(SimpleNamespace()) is None


def test_times_that_are_logarithms_or_angles_are_not_taken_from_whole_numbers() -> None:
    for scheduler in (EDM, schedules.edm(time_scale=250), schedules.cosine(time_scale=math.pi / 2)):
        with pytest.raises(
            InputError, match=r"floating-point times .* since it has no whole steps; got torch.int64"
        ):
            Timesteps(scheduler).log_snr(torch.tensor([1]))
    with pytest.raises(InputError, match=r"times from -177\.099 to 177\.446; got 500"):
        Timesteps(EDM).log_snr(torch.tensor([500.0]))
    assert Timesteps(schedules.edm()).log_snr(torch.tensor([1])).item() == 0.0  # the noise level itself


def test_the_last_time_may_be_rounded() -> None:
    angle = Timesteps(schedules.cosine(time_scale=math.pi / 2))
    assert angle.log_snr(torch.tensor([1.5708])).item() == -math.inf
    with pytest.raises(InputError, match=r"times from 0 to 1.5708; got 1.58"):
        angle.log_snr(torch.tensor([1.58]))
