"""The ERD weight: its three conventions against its defining amplitude, and its ties to other rules."""

from __future__ import annotations

import math

import pytest
import torch

from ntkdiag.errors import InputError
from ntkdiag.process import schedules
from ntkdiag.process.schedules.base import Schedule
from ntkdiag.process.target import coefficients
from ntkdiag.weights import evaluate

LEVEL = torch.linspace(-14, 14, 57, dtype=torch.float64)
PATHS = ("cosine", "flow", "edm", "linear_log_snr")
# The table leaves √2 out of v, and with it out of F, which is −v of the scaled data.
DROPPED = {"v": math.sqrt(2), "F": math.sqrt(2)}


def amplitude(target: str, path: Schedule, alpha: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """√((c_x α)² + (c_ε σ)²), straight from the definition."""
    c_x, c_epsilon = coefficients(target, path, LEVEL)
    return ((c_x * alpha) ** 2 + (c_epsilon * sigma) ** 2).sqrt()


def close(left: torch.Tensor, right: torch.Tensor) -> None:
    torch.testing.assert_close(left, right, rtol=1e-11, atol=0.0)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("target", ["epsilon", "x0", "v", "score", "flow"])
def test_vp_is_the_amplitude_on_the_unit_variance_path(path: str, target: str) -> None:
    schedule = schedules.named(path)
    alpha, sigma = torch.sigmoid(LEVEL).sqrt(), torch.sigmoid(-LEVEL).sqrt()
    expected = amplitude(target, schedule, alpha, sigma) / DROPPED.get(target, 1.0)
    close(evaluate("erd", target, LEVEL, schedule), expected)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("target", ["epsilon", "x0", "v", "score", "flow"])
def test_raw_is_the_amplitude_on_the_schedules_own_path(path: str, target: str) -> None:
    schedule = schedules.named(path)
    expected = amplitude(target, schedule, schedule.alpha(LEVEL), schedule.sigma(LEVEL)) / DROPPED.get(
        target, 1.0
    )
    close(evaluate("erd", target, LEVEL, schedule, convention="raw"), expected)


@pytest.mark.parametrize("sigma_data", [0.5, 1.0, 2.0])
def test_f_is_the_amplitude_for_data_of_its_own_scale(sigma_data: float) -> None:
    schedule = schedules.edm(sigma_data=sigma_data)
    noise = torch.exp(-LEVEL / 2)
    # Data of standard deviation σ_d: its expressed part has the amplitude c_x α σ_d², its unit being σ_d.
    own = amplitude("F", schedule, torch.full_like(LEVEL, sigma_data**2), noise) / math.sqrt(2)
    close(evaluate("erd", "F", LEVEL, schedule, convention="raw"), own)
    close(evaluate("erd", "F", LEVEL, schedule), own / (noise**2 + sigma_data**2).sqrt())
    scaled = LEVEL + 2 * math.log(sigma_data)
    close(evaluate("erd", "F", LEVEL, schedule), 0.5 / torch.cosh(scaled / 2))


def test_the_linear_path_is_flat_after_normalisation_and_dips_before() -> None:
    path = schedules.flow()
    time = path.time(LEVEL)
    close(evaluate("erd", "flow", LEVEL, path), torch.ones_like(LEVEL))
    close(evaluate("erd", "flow", LEVEL, path, convention="raw"), ((1 - time) ** 2 + time**2).sqrt())


def test_official_is_what_the_published_code_computes() -> None:
    path = schedules.flow()
    time = path.time(LEVEL)
    expected = {"epsilon": time, "x0": 1 - time, "v": time * (1 - time), "flow": torch.ones_like(time)}
    for target, weight in expected.items():
        close(evaluate("erd", target, LEVEL, path, convention="official"), weight)
    for target in expected:
        close(
            evaluate("erd", target, LEVEL, schedules.cosine(), convention="official"),
            evaluate("erd", target, LEVEL) if target != "flow" else torch.ones_like(LEVEL),
        )


def test_official_is_one_where_there_is_no_signal() -> None:
    path = schedules.cosine()
    for target in ("epsilon", "x0", "v", "flow"):
        assert evaluate("erd", target, -math.inf, path, convention="official").item() == 1.0
    assert evaluate("erd", "x0", -math.inf, path, convention="vp").item() == 0.0
    assert evaluate("erd", "x0", -100.0, path, convention="official").item() == pytest.approx(math.exp(-50))


def test_official_refuses_targets_the_code_does_not_know() -> None:
    for target in ("score", "F"):
        with pytest.raises(
            InputError, match=r"convention='official'.*epsilon, x0, v, flow.*Use convention='vp'"
        ):
            evaluate("erd", target, 0.0, schedules.edm(), convention="official")


@pytest.mark.parametrize("convention", ["raw", "official"])
def test_conventions_of_a_path_need_the_path(convention: str) -> None:
    with pytest.raises(
        InputError, match=f"schedule: expected a schedule, because ERD needs one for {convention}"
    ):
        evaluate("erd", "epsilon", 0.0, convention=convention)


def test_ties_to_p2_and_debias() -> None:
    close(evaluate("erd", "epsilon", LEVEL), evaluate("p2", "epsilon", LEVEL, k=1.0, gamma=0.5))
    close(evaluate("erd", "v", LEVEL), evaluate("debias", "v", LEVEL))


def test_f_with_unit_data_is_v() -> None:
    close(evaluate("erd", "F", LEVEL, schedules.edm(sigma_data=1.0)), evaluate("erd", "v", LEVEL))


def test_the_edm_path_is_unbounded_in_raw_units() -> None:
    with pytest.raises(InputError, match="clip="):
        evaluate("erd", "epsilon", -math.inf, schedules.edm(), convention="raw")
    assert evaluate("erd", "epsilon", -math.inf, schedules.edm()).item() == 1.0
