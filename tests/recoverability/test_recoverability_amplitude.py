"""Amplitude: the table of the three conventions, and the identities that tie targets and paths together."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from ntkdiag.errors import InputError
from ntkdiag.process import schedules
from ntkdiag.process.schedules.base import Schedule
from ntkdiag.process.target import TARGETS, coefficients
from ntkdiag.recoverability import CONVENTIONS, amplitude, log_amplitude

LEVEL = torch.linspace(-14, 14, 29, dtype=torch.float64)
ALPHA, SIGMA = torch.sigmoid(LEVEL).sqrt(), torch.sigmoid(-LEVEL).sqrt()
PATHS: dict[str, Schedule] = {
    "cosine": schedules.cosine(),
    "linear_beta": schedules.linear_beta(),
    "linear_log_snr": schedules.linear_log_snr(),
    "flow": schedules.flow(),
    "edm": schedules.edm(),
}
each_path = pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=0.0)


@each_path
def test_the_table_of_the_unit_variance_convention(path: Schedule) -> None:
    close(amplitude("epsilon", path, LEVEL), SIGMA)
    close(amplitude("x0", path, LEVEL), ALPHA)
    close(amplitude("v", path, LEVEL), math.sqrt(2) * ALPHA * SIGMA)
    close(amplitude("v", path, LEVEL), math.sqrt(0.5) / torch.cosh(LEVEL / 2))


@each_path
@pytest.mark.parametrize("target", ["epsilon", "x0", "v", "score", "flow"])
def test_raw_is_the_definition_on_the_schedules_own_path(target: str, path: Schedule) -> None:
    c_x, c_epsilon = coefficients(target, path, LEVEL)
    signal, noise = c_x * path.alpha(LEVEL), c_epsilon * path.sigma(LEVEL)
    close(amplitude(target, path, LEVEL, "raw"), (signal**2 + noise**2).sqrt())


@each_path
@pytest.mark.parametrize("target", ["epsilon", "x0", "v", "score", "flow"])
def test_raw_is_the_unit_variance_amplitude_times_the_inputs_size(target: str, path: Schedule) -> None:
    size = torch.hypot(path.alpha(LEVEL), path.sigma(LEVEL))
    close(amplitude(target, path, LEVEL, "raw"), amplitude(target, path, LEVEL) * size)
    if path.variance_preserving:
        close(amplitude(target, path, LEVEL, "raw"), amplitude(target, path, LEVEL))


@each_path
def test_what_the_published_code_computes(path: Schedule) -> None:
    alpha, sigma = path.alpha(LEVEL), path.sigma(LEVEL)
    table = {"epsilon": sigma, "x0": alpha, "v": alpha * sigma, "flow": torch.ones_like(LEVEL)}
    for target, expected in table.items():
        close(amplitude(target, path, LEVEL, "official"), expected)
        assert amplitude(target, path, -math.inf, "official").item() == 1.0


def test_the_linear_path_is_flat_after_normalisation_and_dips_before() -> None:
    path = schedules.flow()
    time = path.time(LEVEL)
    close(amplitude("flow", path, LEVEL), torch.ones_like(LEVEL))
    close(amplitude("flow", path, LEVEL, "raw"), ((1 - time) ** 2 + time**2).sqrt())
    assert amplitude("flow", path, 0.0, "raw").item() == pytest.approx(math.sqrt(0.5))


def test_the_cosine_paths_velocity_is_half_pi_times_v() -> None:
    path = schedules.cosine()
    close(amplitude("flow", path, LEVEL), math.pi / 2 * amplitude("v", path, LEVEL))


@pytest.mark.parametrize("sigma_data", [0.1, 0.5, 1.0, 2.0])
def test_f_is_v_of_data_of_unit_variance(sigma_data: float) -> None:
    """F at λ is −v of x0/σ_d at λ + 2 ln σ_d; raw, that times the standard deviation of x."""
    path = schedules.edm(sigma_data=sigma_data)
    found = amplitude("F", path, LEVEL)
    close(found, amplitude("v", path, LEVEL + 2 * math.log(sigma_data)))
    size = (sigma_data**2 + path.sigma(LEVEL) ** 2).sqrt()
    close(amplitude("F", path, LEVEL, "raw"), found * size)


def test_f_raw_is_what_can_be_measured() -> None:
    """RMS of (c_x σ_d)(α σ_d) z + c_ε σ n over unit z and n, the part of F expressed in x."""
    path = schedules.edm(sigma_data=0.3)
    z, n = torch.randn(2, 400_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for level in (-3.0, 0.0, 4.0):
        c_x, c_epsilon = coefficients("F", path, level)
        expressed = c_x * 0.3 * path.alpha(level) * 0.3 * z + c_epsilon * path.sigma(level) * n
        assert amplitude("F", path, level, "raw").item() == pytest.approx(expressed.std().item(), rel=0.01)


@pytest.mark.parametrize("target", ["epsilon", "x0", "v"])
def test_no_schedule_is_needed_where_none_matters(target: str) -> None:
    close(amplitude(target, None, LEVEL), amplitude(target, schedules.edm(), LEVEL))


def test_limits() -> None:
    assert [amplitude(t, None, math.inf).item() for t in ("epsilon", "x0", "v")] == [0.0, 1.0, 0.0]
    assert [amplitude(t, None, -math.inf).item() for t in ("epsilon", "x0", "v")] == [1.0, 0.0, 0.0]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("level", [-500.0, 500.0])
def test_logarithms_stay_finite_where_amplitudes_vanish(target: str, level: float) -> None:
    path = schedules.edm()
    found = log_amplitude(target, path, torch.tensor(level, dtype=torch.float64)).item()
    assert math.isfinite(found)
    closer = log_amplitude(target, path, torch.tensor(level / 2, dtype=torch.float64)).item()
    for slope in (0.0, 0.5):  # every amplitude ends as a straight line in λ
        if abs(found - closer) == pytest.approx(slope * abs(level) / 2, rel=1e-9, abs=1e-9):
            break
    else:
        pytest.fail(f"{target}: {found} and {closer}")


def test_shapes_and_dtypes() -> None:
    path = schedules.cosine()
    assert amplitude("v", path, 1.0).dtype == torch.float64 and amplitude("v", path, 1.0).shape == ()
    assert amplitude("v", path, 1).dtype == torch.float64
    found = amplitude("v", path, torch.zeros(2, 3))
    assert found.shape == (2, 3) and found.dtype == torch.float32


def test_refusals() -> None:
    with pytest.raises(InputError, match="convention: expected one of vp, raw, official; got 'VP'"):
        amplitude("v", schedules.cosine(), 0.0, "VP")
    with pytest.raises(InputError, match="target: expected one of"):
        amplitude("w", schedules.cosine(), 0.0)
    for target in ("score", "F"):
        with pytest.raises(InputError, match=rf"epsilon, x0, v, flow; got '{target}'\. Use convention='vp'"):
            amplitude(target, schedules.edm(), 0.0, "official")
        with pytest.raises(InputError, match=f"schedule: .* needs one for target {target}; got none"):
            amplitude(target, None, 0.0)
    for convention in CONVENTIONS[1:]:
        with pytest.raises(InputError, match=f"schedule: .* needs one for {convention}; got none"):
            amplitude("epsilon", None, 0.0, convention)
