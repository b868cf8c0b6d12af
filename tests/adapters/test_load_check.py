"""The load check: networks that are stated rightly pass, wrong statements are named, untrained networks are left alone."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from analysis.foreign import networks as tiny
from ntkdiag.adapters import Calling, CheckDraws, LoadCheck, Reading, check_load
from ntkdiag.adapters.load_check.errors import errors, log_ratio
from ntkdiag.adapters.preconditioning import c_noise, input_factor
from ntkdiag.adapters.reading import sigma_of
from ntkdiag.denoiser import Denoiser
from ntkdiag.errors import InputError
from ntkdiag.process import schedules
from ntkdiag.process.schedules.base import Schedule


def invoke(network: nn.Module, x: Tensor, time: Tensor, cond: Any) -> Tensor:
    return network(x, time)


def from_noise(log_snr: Tensor) -> Tensor:
    return torch.sigmoid(log_snr / 2)


DDPM, FLOW, EDM = schedules.linear_beta(), schedules.flow(), schedules.edm()
# name → schedule, target, time, its largest value, sign, factor of the input
CASES: dict[str, tuple[Schedule, str, tiny.OfLevel, float, float, tiny.OfLevel | None]] = {
    "epsilon": (DDPM, "epsilon", DDPM.time, 1000.0, 1.0, None),
    "x0": (DDPM, "x0", DDPM.time, 1000.0, 1.0, None),
    "v": (DDPM, "v", DDPM.time, 1000.0, 1.0, None),
    "flow": (FLOW, "flow", FLOW.time, 1.0, 1.0, None),
    "flow from noise": (FLOW, "flow", from_noise, 1.0, -1.0, None),
    "F": (EDM, "F", c_noise, 1.0, 1.0, input_factor(0.5)),
}


@cache
def reading_of(name: str, seed: int = 0, steps: int = 220) -> Reading:
    schedule, target, time, largest, sign, scale = CASES[name]
    network = tiny.trained(schedule, target, time, largest, sign, scale, seed, steps)
    return Reading(network, schedule, target, Calling(invoke, time, "its time", scale, sign))


def check(reading: Reading, seed: int = 0) -> LoadCheck:
    return check_load(reading, CheckDraws.draw(tiny.pictures(), reading.schedule, seed=seed))


def refused(reading: Reading) -> str:
    with pytest.raises(InputError) as caught:
        check(reading)
    return str(caught.value).partition("looks like ")[2].partition(" (error")[0]


@pytest.mark.parametrize("name", CASES)
def test_a_right_statement_fits(name: str) -> None:
    for seed in range(3):
        found = check(reading_of(name), seed)
        assert found.fits and found.error < 0.85
        assert found.closest[1] > found.error
        assert "fits" in str(found) and "\n" not in str(found)


@pytest.mark.parametrize("name", CASES)
def test_another_target_is_named(name: str) -> None:
    reading = reading_of(name)
    sign = "−" if reading.call.sign < 0 else ""
    right = "F (sigma_data 0.5)" if name == "F" else reading.target
    for target in {"epsilon", "x0", "v", "score"} - {reading.target}:
        assert refused(replace(reading, target=target)) == f"{sign}{right} at its time"


@pytest.mark.parametrize("name", CASES)
def test_the_opposite_sign_is_named(name: str) -> None:
    reading = reading_of(name)
    sign = "−" if reading.call.sign < 0 else ""
    right = "F (sigma_data 0.5)" if name == "F" else reading.target
    wrong = replace(reading, call=replace(reading.call, sign=-reading.call.sign))
    assert refused(wrong) == f"{sign}{right} at its time"


@pytest.mark.parametrize("factor", [1000.0, 0.001])
@pytest.mark.parametrize(
    ("name", "named"),
    [
        ("v", "v at 1000 t"), ("epsilon", "epsilon at 1000 t"), ("flow", "flow at t"),
        ("flow from noise", "−flow at 1 − t"), ("F", "F (sigma_data 0.5) at ln(σ)/4"),
    ],
)  # fmt: skip
def test_another_unit_of_time_is_named(name: str, named: str, factor: float) -> None:
    reading = reading_of(name)

    def time(log_snr: Tensor) -> Tensor:
        return reading.call.time(log_snr) * factor

    assert refused(replace(reading, call=replace(reading.call, time=time))) == named


@pytest.mark.parametrize(
    ("name", "named", "largest"),
    [("v", "v at 1000 t", 999.0), ("flow", "flow at t", 1.0), ("flow from noise", "−flow at 1 − t", 1.0)],
)
def test_time_that_runs_the_other_way_is_named(name: str, named: str, largest: float) -> None:
    reading = reading_of(name)

    def time(log_snr: Tensor) -> Tensor:
        return largest - reading.call.time(log_snr)

    assert refused(replace(reading, call=replace(reading.call, time=time))) == named


@pytest.mark.parametrize("shift", [3.0, 1 / 3])
def test_a_shifted_time_is_named(shift: float) -> None:
    def shifted(log_snr: Tensor) -> Tensor:
        t = FLOW.time(log_snr)
        return shift * t / (1 + (shift - 1) * t)

    network = tiny.trained(FLOW, "flow", shifted, 1.0, steps=220)
    wrong = Reading(network, FLOW, "flow", Calling(invoke, FLOW.time, "its time"))
    assert refused(wrong) == f"flow at 1 t, shifted by {shift:.2g}"
    assert check(replace(wrong, call=replace(wrong.call, time=shifted))).fits


def test_a_shift_that_says_how_often_a_level_is_trained_cannot_be_seen() -> None:
    reading = reading_of("flow")
    draws = CheckDraws.draw(tiny.pictures(), FLOW)
    found = [
        check_load(replace(reading, schedule=schedules.flow(shift=shift)), draws) for shift in (1.0, 3.0, 0.2)
    ]
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("sigma_data", [0.25, 1.0, 2.0])
def test_another_sigma_data_is_named(sigma_data: float) -> None:
    reading = reading_of("F")
    wrong = replace(
        reading,
        schedule=schedules.edm(sigma_data),
        call=replace(reading.call, scale=input_factor(sigma_data)),
    )
    assert refused(wrong) == "F (sigma_data 0.5) at its time, with c_in of sigma_data 0.5"


def test_noise_levels_for_their_logarithm_are_named() -> None:
    reading = reading_of("F")
    wrong = replace(reading, call=replace(reading.call, time=sigma_of))
    assert refused(wrong) == "F (sigma_data 0.5) at ln(σ)/4"


@pytest.mark.parametrize("name", CASES)
def test_untrained_networks_are_left_alone(name: str) -> None:
    for seed in range(1, 4):
        found = check(reading_of(name, seed, steps=0), seed)
        assert not found.fits and str(found).startswith("load check: untrained")


def test_an_output_of_zero_is_untrained_whatever_is_stated() -> None:
    for target in ("epsilon", "x0", "v"):
        network = tiny.TimeMLP()
        for parameter in network.parameters():
            nn.init.zeros_(parameter)
        reading = Reading(network, DDPM, target, Calling(invoke, DDPM.time, "steps"))
        assert not check(reading).fits


class Multiple(nn.Module):
    """A multiple of x, which at one end of the range is noise and at the other data."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor))

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        return self.factor * x


@pytest.mark.parametrize("factor", [0.5, 0.8, 0.9, 1.0, -1.0, 2.0])
def test_a_multiple_of_the_input_fits_nothing(factor: float) -> None:
    for schedule, target in ((DDPM, "v"), (FLOW, "flow"), (EDM, "epsilon")):
        call = Calling(invoke, schedule.time, "time")
        assert not check(Reading(Multiple(factor), schedule, target, call)).fits


def test_the_best_multiple_of_x_has_error_1() -> None:
    generator = torch.Generator().manual_seed(0)
    x0, epsilon = torch.randn(2, 4000, 8, dtype=torch.float64, generator=generator) * torch.tensor(
        [[[0.5]], [[1.0]]], dtype=torch.float64
    )
    levels = torch.tensor([-2.0, 0.0, 2.0], dtype=torch.float64)
    alpha, sigma = torch.sigmoid(levels).sqrt(), torch.sigmoid(-levels).sqrt()
    x = alpha[:, None, None] * x0 + sigma[:, None, None] * epsilon
    best = (alpha * 0.25 / (alpha**2 * 0.25 + sigma**2))[:, None, None] * x
    zero, one = torch.zeros(3, dtype=torch.float64), torch.ones(3, dtype=torch.float64)
    as_x0 = errors(best, (one, zero), levels.exp(), x0, epsilon)
    assert as_x0.overall == pytest.approx(1, abs=0.03)
    as_epsilon = errors(
        (x - alpha[:, None, None] * best) / sigma[:, None, None], (zero, one), levels.exp(), x0, epsilon
    )
    torch.testing.assert_close(as_epsilon.values, as_x0.values)  # one currency for all meanings
    estimate, low = log_ratio(as_epsilon, as_x0, 0.01)
    assert estimate == pytest.approx(0, abs=1e-12) and low == pytest.approx(0, abs=1e-12)


def test_samples_that_differ_leave_it_open() -> None:
    values = torch.tensor([[1.0, 1.0, 1.0, 40.0]], dtype=torch.float64)
    zero, one = torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    x0 = values[0, :, None] ** 0.5
    large = errors(torch.zeros(1, 4, 1, dtype=torch.float64), (one, zero), one, x0, x0 * 0)
    small = errors(0.5 * x0[None], (one, zero), one, x0, x0 * 0)
    assert log_ratio(large, small, 0.01) == (pytest.approx(2 * torch.tensor(2.0).log().item()),) * 2
    unequal = errors(
        torch.tensor([[[0.0], [0.0], [0.0], [6.0]]], dtype=torch.float64), (one, zero), one, x0, x0 * 0
    )
    estimate, low = log_ratio(large, unequal, 0.01)
    assert estimate > 1 and low < 0


def test_denoisers_are_checked_however_they_are_called() -> None:
    network = reading_of("v").network
    assert Denoiser(network, DDPM, "v").load_check(tiny.pictures()).fits

    def call(inner: nn.Module, x: Tensor, log_snr: Tensor, cond: Any) -> Tensor:
        return inner(x, DDPM.time(log_snr))

    assert Denoiser(network, DDPM, "v", call=call).load_check(tiny.pictures()).fits
    with pytest.raises(InputError, match="looks like v at the time of its call function"):
        Denoiser(network, DDPM, "epsilon", call=call).load_check(tiny.pictures())
    with pytest.raises(InputError, match="looks like v at 1000 t"):
        Denoiser(network, DDPM, "v", call="log_snr").load_check(tiny.pictures())


@pytest.mark.parametrize(("name", "steps"), [("v", 220), ("flow", 220), ("v", 0)])
def test_calls_that_are_no_better_see_few_samples(name: str, steps: int) -> None:
    reading, seen = reading_of(name, steps=steps), list[int]()

    def counting(network: nn.Module, x: Tensor, time: Tensor, cond: Any) -> Tensor:
        seen.append(len(x))
        return invoke(network, x, time, cond)

    steps, wrapped = list[Any](), replace(reading, call=replace(reading.call, invoke=counting))
    draws = CheckDraws.draw(tiny.pictures(), reading.schedule)
    found = check_load(wrapped, draws, lambda *step: steps.append(step))
    assert steps[0][:2] == ("load check", 0) and steps[-1][1] == steps[-1][2] > 5
    own = found.samples * len(found.levels)
    assert own < sum(seen) <= 4 * own
    assert found.closest == check(reading).closest


def test_few_samples_are_the_first_of_all() -> None:
    draws = CheckDraws.draw(tiny.pictures(), DDPM, {"label": torch.arange(len(tiny.pictures()))})
    few = draws.part(slice(3))
    assert torch.equal(few.x0, draws.x0[:3]) and torch.equal(few.epsilon, draws.epsilon[:3])
    assert few.cond is not None and draws.cond is not None
    assert torch.equal(few.cond["label"], draws.cond["label"][:3])


def test_a_seed_gives_the_same_words() -> None:
    reading = reading_of("v")
    assert str(check(reading, 3)) == str(check(reading, 3)) != str(check(reading, 4))


class Nowhere(nn.Module):
    """NaN at negative times."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        return self.inner(x, time) + 0 * time.sqrt()[:, None, None, None]


def test_numbers_that_are_not_finite_fit_nothing() -> None:
    reading = reading_of("v")
    network = Nowhere(reading.network)
    wrong = replace(reading, network=network, call=replace(reading.call, time=c_noise))
    assert refused(wrong) == "v at 1000 t"
    dead = Nowhere(tiny.TimeMLP())
    with pytest.raises(InputError, match="a NaN or infinity in its output"):
        check(replace(wrong, network=dead))


def test_a_network_that_fails_is_refused_in_a_line() -> None:
    class Fails(nn.Module):
        def forward(self, x: Tensor, time: Tensor) -> Tensor:
            raise KeyError("no\nroom")

    with pytest.raises(InputError, match="samples of shape"):
        check(Reading(Fails(), DDPM, "v", Calling(invoke, DDPM.time, "steps")))
