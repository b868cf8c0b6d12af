"""What training did: the band of fresh networks, its size, and the cases in which nothing is claimed."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from ntkdiag.claims import control_band

CONTROLS = [0.1, 0.2, 0.15, 0.05, 0.25]


def test_the_band_is_the_prediction_interval_of_one_more_network() -> None:
    band = control_band(1.0, CONTROLS)
    reach = stats.t.ppf(0.975, 4) * np.std(CONTROLS, ddof=1) * math.sqrt(1 + 1 / 5)
    assert (band.low, band.high) == pytest.approx((0.15 - reach, 0.15 + reach))
    assert (band.controls, band.mean, band.net) == (5, pytest.approx(0.15), pytest.approx(0.85))
    assert band.learned == "learned"


@pytest.mark.parametrize(
    ("effect", "controls", "learned"),
    [
        (0.2, CONTROLS, "as untrained"),
        (0.55, [0.94, 0.95, 0.93, 0.94, 0.95], "no claim"),  # falls, but less than fresh networks do
        (-0.1, [-0.5, -0.51, -0.49, -0.5, -0.5], "no claim"),
        (-1.0, [-0.5, -0.51, -0.49, -0.5, -0.5], "learned"),
        (1.0, [0.1], "not tested"),
        (1.0, [], "not tested"),
        (math.nan, CONTROLS, "not tested"),
        (1.0, [0.1, math.nan, 0.2], "not tested"),
    ],
)
def test_words(effect: float, controls: list[float], learned: str) -> None:
    assert control_band(effect, controls).learned == learned


@pytest.mark.parametrize("count", [2, 3, 5, 10])
def test_a_fresh_network_is_outside_in_one_of_twenty(count: int) -> None:
    rng = np.random.default_rng(count)
    draws = rng.standard_normal((4000, count + 1))
    outside = np.mean([control_band(one[0], one[1:]).learned != "as untrained" for one in draws])
    assert outside == pytest.approx(0.05, abs=0.012)  # binomial error 0.0034


def test_one_control_gives_a_net_effect_without_a_band() -> None:
    band = control_band(1.0, [0.4])
    assert band.net == pytest.approx(0.6) and math.isnan(band.low)
