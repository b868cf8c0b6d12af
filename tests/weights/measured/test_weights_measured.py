"""Weights from a diagnosis: the scale of each score, floor and cap, intervals, and what is refused."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given as drawn
from hypothesis import settings
from hypothesis import strategies as st

from ntkdiag.errors import InputError
from ntkdiag.process import schedules
from ntkdiag.weights import SCORES, WeightTable, evaluate, measured
from ntkdiag.weights.measured.score_to_weight import ScoreToWeight
from ntkdiag.weights.measured.scores import amplitudes


def diagnosis(target: str = "v", **columns: Any) -> SimpleNamespace:
    count = len(next(iter(columns.values()))) if columns else 3
    frame = pd.DataFrame({"bucket": range(count), "log_snr": np.linspace(-6, 6, count), **columns})
    meta = {
        "config": {"target": target, "samples": 64},
        "data": {"name": "mixture"},
        "network": {"name": "MLP"},
        "bayes_source": "exact",
        "environment": {"torch": "2.6.0"},
        "seconds": 1.0,
    }
    return SimpleNamespace(summary=frame, meta=meta)


def close(weight: torch.Tensor, expected: list[float]) -> None:
    torch.testing.assert_close(weight, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=0.0)


def ratios(table: WeightTable) -> list[float]:
    return (table.weight / table.weight[0]).tolist()


def test_an_amplitude_enters_as_it_is_and_shares_as_their_root() -> None:
    assert ratios(measured(diagnosis(amplitude=[1.0, 4.0, 9.0]), "amplitude")) == pytest.approx([1, 4, 9])
    assert ratios(measured(diagnosis(bayes_share=[0.01, 0.04, 0.09]), "bayes")) == pytest.approx([1, 2, 3])
    assert ratios(measured(diagnosis(learnability=[0.01, 0.04, 0.09]), "learnability")) == pytest.approx(
        [1, 2, 3]
    )


def test_the_gradient_ratio_enters_as_the_signals_share_of_energy() -> None:
    # g = 1/3, 1, 3 are shares 1/4, 1/2, 3/4.
    table = measured(diagnosis(gsnr=[1 / 3, 1.0, 3.0]), "gsnr")
    assert ratios(table) == pytest.approx([1, math.sqrt(2), math.sqrt(3)])


def test_amplitudes_of_a_vp_process_give_back_the_erd_weight() -> None:
    level = np.linspace(-6, 6, 13)
    alpha, sigma = (torch.sigmoid(torch.tensor(sign * level)).sqrt() for sign in (1, -1))
    table = measured(diagnosis(amplitude=(math.sqrt(2) * alpha * sigma).numpy()), "amplitude", floor=0.0)
    erd = evaluate("erd", "v", table.log_snr)
    torch.testing.assert_close(table.weight, erd / erd.mean(), rtol=1e-12, atol=0.0)
    assert table.target == "v"


def test_weights_are_multiples_of_their_mean() -> None:
    table = measured(diagnosis(amplitude=[1.0, 2.0, 3.0]), "amplitude")
    close(table.weight, [0.5, 1.0, 1.5])
    close(
        measured(diagnosis(amplitude=[1.0, 2.0, 3.0]), "amplitude", power=2.0).weight,
        [3 / 14, 12 / 14, 27 / 14],
    )
    close(measured(diagnosis(amplitude=[1.0, 2.0, 0.0]), "amplitude", power=0.0).weight, [1.0, 1.0, 1.0])


def test_floor_and_cap_are_multiples_of_the_mean_and_on_record() -> None:
    table = measured(diagnosis(amplitude=[0.1, 1.0, 1.9]), "amplitude", floor=0.2, cap=1.5)
    close(table.weight, [0.2, 1.0, 1.5])
    assert (table.meta["raised_to_floor"], table.meta["lowered_to_cap"]) == ([0], [2])
    untouched = measured(diagnosis(amplitude=[0.1, 1.0, 1.9]), "amplitude")
    assert (untouched.meta["raised_to_floor"], untouched.meta["lowered_to_cap"]) == ([], [])
    assert measured(diagnosis(amplitude=[0.0, 1.0, 1.0]), "amplitude", floor=0.0).weight[0] == 0


def test_a_negative_estimate_stands_at_the_floor_and_is_on_record() -> None:
    table = measured(diagnosis(gsnr=[-0.2, 1.0, 3.0]), "gsnr", floor=0.05)
    assert table.weight[0].item() == 0.05
    assert table.meta["out_of_range"] == [0] and table.meta["raised_to_floor"] == [0]


def test_limits_hold_the_error_of_the_mean_too() -> None:
    """Two buckets: w_1 = 2 v_1/(v_1 + v_2), so an error of either moves it by v_2 δ_1 − v_1 δ_2 times 2/(v_1 + v_2)²."""
    columns = {"gsnr": [1.0, 3.0], "gsnr_low": [0.25, 1.0], "gsnr_high": [3.0, 99.0]}
    table = measured(diagnosis(**columns), "gsnr", floor=0.0, precision=None)
    low, point, high = (
        torch.tensor([value / (1 + value) for value in columns[name]], dtype=torch.float64).sqrt()
        for name in ("gsnr_low", "gsnr", "gsnr_high")
    )
    assert table.low is not None and table.high is not None
    close(table.weight, (point / point.mean()).tolist())
    slope = 2 / point.sum() ** 2
    down = slope * torch.hypot(point[1] * (point - low)[0], point[0] * (high - point)[1])
    up = slope * torch.hypot(point[1] * (high - point)[0], point[0] * (point - low)[1])
    assert (table.weight - table.low)[0].item() == pytest.approx(down.item())
    assert (table.high - table.weight)[0].item() == pytest.approx(up.item())


def test_limits_stay_between_floor_and_cap() -> None:
    columns = {"gsnr": [0.2, 3.0], "gsnr_low": [-0.5, 1.0], "gsnr_high": [3.0, 99.0]}
    table = measured(diagnosis(**columns), "gsnr", floor=0.3, cap=1.5, precision=None)
    assert table.low is not None and table.high is not None
    assert table.low[0] == 0.3 and table.high[1] == 1.5
    assert (table.low <= table.weight).all() and (table.weight <= table.high).all()


def test_limits_cover_weights_whose_mean_is_estimated() -> None:
    """Nominal 90% over 2,000 draws of ten amplitudes with normal errors, every bucket."""
    rng = np.random.default_rng(0)
    truth, error = np.linspace(0.2, 2.0, 10), np.linspace(0.05, 0.4, 10)
    drawn = truth + error * rng.standard_normal((2000, 10))
    reach = 1.6449 * error
    shape = ScoreToWeight(floor=0.0)
    inside = []
    for one in drawn:
        ends = [torch.from_numpy(np.clip(one + step, 0, None)) for step in (0.0, -reach, reach)]
        low, high = shape.interval(*ends)
        inside.append((low.numpy() <= truth / truth.mean()) & (truth / truth.mean() <= high.numpy()))
    assert np.all(np.abs(np.mean(inside, 0) - 0.9) < 0.025)


def test_weights_that_are_known_too_badly_are_refused_with_the_samples_that_would_do() -> None:
    columns = {"gsnr": [0.04, 0.05, 0.04], "gsnr_low": [0.0, 0.01, 0.0], "gsnr_high": [0.16, 0.2, 0.15]}
    wanted = r"expected weights known to ±50%; got ±\d+% at log-SNR .*, from 64 samples"
    with pytest.raises(InputError, match=wanted) as found:
        measured(diagnosis(**columns), "gsnr")
    table = measured(diagnosis(**columns), "gsnr", precision=math.inf)
    assert table.low is not None and table.high is not None
    half = ((table.high - table.low) / 2 / table.weight.clamp(min=1)).max().item()
    enough = int(str(found.value).split("Measure with about ")[1].split()[0])
    assert 64 * (half / 0.5) ** 2 <= enough <= 64 * (half / 0.5) ** 2 * 1.1
    measured(diagnosis(**columns), "gsnr", precision=half)
    with pytest.raises(InputError, match="precision"):
        measured(diagnosis(**columns), "gsnr", precision=0.0)


def test_intervals_that_are_missing_or_not_finite_are_left_out() -> None:
    assert measured(diagnosis(gsnr=[1.0, 3.0]), "gsnr").low is None
    broken = {"gsnr": [1.0, 3.0], "gsnr_low": [0.5, math.nan], "gsnr_high": [2.0, 4.0]}
    assert measured(diagnosis(**broken), "gsnr").low is None
    assert measured(diagnosis(bayes_share=[0.1, 0.2]), "bayes").high is None


def test_with_a_schedule_the_mean_under_its_density_is_one() -> None:
    path = schedules.cosine()
    table = measured(diagnosis(bayes_share=[0.9, 0.2, 0.1]), schedule=path)
    assert table.mean_under(path) == pytest.approx(1.0, rel=1e-12)


def test_buckets_may_come_in_any_order() -> None:
    given = diagnosis(amplitude=[1.0, 2.0, 3.0])
    given.summary = given.summary.iloc[::-1]
    table = measured(given, "amplitude")
    assert table.log_snr.tolist() == [-6.0, 0.0, 6.0]
    close(table.weight, [0.5, 1.0, 1.5])


def test_the_record_of_a_table_names_the_steps_of_the_schedule_instead_of_listing_them() -> None:
    path = schedules.from_table(torch.linspace(7, -5, 1000))
    given = diagnosis(amplitude=[1.0, 2.0, 3.0])
    given.meta["config"]["schedule"] = path.describe()
    table = measured(given, "amplitude", schedule=path)
    kept = table.meta["diagnosis"]["config"]["schedule"]
    assert kept == table.meta["normalised"]["schedule"] and kept["steps"] == 1000
    assert len(json.dumps(dict(table.meta))) < 1500
    assert len(given.meta["config"]["schedule"]["log_snr"]) == 1000


def test_the_table_says_where_it_comes_from_and_can_be_saved(tmp_path: Any) -> None:
    table = measured(diagnosis(target="eps", bayes_share=[0.1, 0.2, 0.3]))
    assert table.target == "epsilon" and table.name == "measured bayes"
    assert table.meta["score"] == "bayes" and table.meta["power"] == 1.0 and table.meta["cap"] is None
    assert table.meta["diagnosis"]["bayes_source"] == "exact"
    assert table.meta["diagnosis"]["data"] == {"name": "mixture"}
    assert table.meta["diagnosis"]["environment"] == {"torch": "2.6.0"}
    assert "seconds" not in table.meta["diagnosis"]
    json.dumps(dict(table.meta), allow_nan=False)
    table.save(tmp_path / "weights.csv")
    assert torch.equal(WeightTable.load(tmp_path / "weights.csv").weight, table.weight)


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_not_finite_names_its_bucket(score: str, bad: float) -> None:
    given = diagnosis(**{SCORES[score].column: [0.1, 0.2, bad]})
    given.summary["bucket"] = [5, 6, 7]
    with pytest.raises(InputError, match=f"score '{score}' of bucket 7: expected a finite number; got {bad}"):
        measured(given, score)


def test_what_cannot_be_made_into_weights_is_refused() -> None:
    sound = diagnosis(amplitude=[1.0, 2.0, 3.0])
    with pytest.raises(InputError, match="Did you mean 'gsnr'"):
        measured(sound, "gsrn")
    with pytest.raises(InputError, match="summary of the diagnosis: expected a column 'bayes_share'"):
        measured(sound)
    with pytest.raises(InputError, match="positive value in at least one bucket"):
        measured(diagnosis(gsnr=[-1e-3, -1e-3]), "gsnr")
    with pytest.raises(InputError, match="at least 2 rows; got 1"):
        measured(diagnosis(amplitude=[1.0]), "amplitude")
    sound.meta["config"] = {}
    with pytest.raises(InputError, match=r"meta of the diagnosis: expected config\.target"):
        measured(sound, "amplitude")


@pytest.mark.parametrize(
    ("setting", "value"),
    [("power", -1.0), ("power", math.nan), ("floor", 1.5), ("floor", -0.1), ("cap", 0.5), ("cap", math.nan)],
)
def test_settings_out_of_range_are_refused(setting: str, value: float) -> None:
    with pytest.raises(InputError, match=f"{setting}: expected a"):
        measured(diagnosis(amplitude=[1.0, 2.0]), "amplitude", **{setting: value})


def test_contamination_enters_as_the_root_of_the_rest() -> None:
    table = measured(diagnosis(contamination=[0.75, 0.19, 0.0]), "contamination")
    assert ratios(table) == pytest.approx([1, 1.8, 2])
    beyond = measured(diagnosis(contamination=[1.2, 0.19, 0.0]), "contamination", floor=0.1)
    assert beyond.weight[0].item() == 0.1
    assert beyond.meta["out_of_range"] == [0] and beyond.meta["raised_to_floor"] == [0]


def test_the_interval_of_contamination_is_turned_round() -> None:
    columns = {
        "contamination": [0.75, 0.36],
        "contamination_low": [0.64, 0.19],
        "contamination_high": [0.91, 0.51],
    }
    found = amplitudes(diagnosis(**columns).summary, "contamination")
    assert found.low is not None and found.high is not None
    close(found.low, [0.3, 0.7])
    close(found.high, [0.6, 0.9])


def test_contamination_that_could_not_be_measured_says_what_it_needs() -> None:
    with pytest.raises(
        InputError, match=r"score 'contamination' of bucket 0.*data whose posterior is known exactly"
    ):
        measured(diagnosis(contamination=[math.nan, math.nan]), "contamination")


def test_a_product_of_scores_is_a_product_of_amplitudes() -> None:
    given = diagnosis(bayes_share=[0.01, 0.04, 0.09], gsnr=[1.0, 1 / 3, 3.0])
    table = measured(given, "bayes*gsnr")
    root = [0.1 * math.sqrt(0.5), 0.2 * math.sqrt(0.25), 0.3 * math.sqrt(0.75)]
    assert ratios(table) == pytest.approx([value / root[0] for value in root])
    assert table.name == "measured bayes*gsnr" and table.meta["score"] == "bayes*gsnr"
    torch.testing.assert_close(measured(given, " gsnr * bayes").weight, table.weight, rtol=1e-14, atol=0.0)
    squared = measured(given, "bayes*gsnr", power=2.0)
    assert ratios(squared) == pytest.approx([(value / root[0]) ** 2 for value in root])


def test_the_interval_of_a_product_goes_from_the_lows_to_the_highs() -> None:
    columns: dict[str, Any] = {"bayes_share": [0.25, 0.81], "gsnr": [1.0, 3.0], "gsnr_low": [1 / 3, 1.0]}
    columns |= {"gsnr_high": [3.0, 99.0]}
    found = amplitudes(diagnosis(**columns).summary, "bayes*gsnr")
    assert found.low is not None and found.high is not None
    close(found.value, [0.5 * math.sqrt(0.5), 0.9 * math.sqrt(0.75)])
    close(found.low, [0.5 * math.sqrt(0.25), 0.9 * math.sqrt(0.5)])
    close(found.high, [0.5 * math.sqrt(0.75), 0.9 * math.sqrt(0.99)])
    table = measured(diagnosis(**columns), "bayes*gsnr", floor=0.0)
    assert table.meta["taken_as_exact"] == ["bayes"]
    both = {**columns, "bayes_share_low": [0.16, 0.64], "bayes_share_high": [0.36, 1.0]}
    wider = amplitudes(diagnosis(**both).summary, "bayes*gsnr")
    assert wider.low is not None and wider.exact == ()
    close(wider.low, [0.4 * math.sqrt(0.25), 0.8 * math.sqrt(0.5)])
    assert (
        measured(diagnosis(bayes_share=[0.1, 0.2], learnability=[0.1, 0.2]), "bayes*learnability").low is None
    )


def test_a_zero_factor_stands_at_the_floor() -> None:
    given = diagnosis(bayes_share=[0.5, 0.5, 0.5], gsnr=[-1.0, 1.0, 1.0])
    table = measured(given, "bayes*gsnr", floor=0.2)
    assert table.weight[0].item() == 0.2 and table.meta["out_of_range"] == [0]


@pytest.mark.parametrize("score", ["bayes*", "*", "", "bayes*bayes", "bayes+gsnr", "gsnr*gsrn"])
def test_products_that_are_none_are_refused(score: str) -> None:
    with pytest.raises(InputError, match="score: expected"):
        measured(diagnosis(bayes_share=[0.1, 0.2], gsnr=[0.1, 0.2]), score)


def test_smoothing_is_a_kernel_mean_of_ln_w_and_says_its_bandwidth() -> None:
    given = diagnosis(amplitude=[1.0, math.e, 1.0])  # at log-SNR −6, 0, 6
    rough = measured(given, "amplitude")
    table = measured(given, "amplitude", bandwidth=6.0)
    near = math.exp(-0.5)
    middle = 1 / (1 + 2 * near)
    expected = rough.weight[0].log() + middle
    assert table.weight[1].log().item() == pytest.approx(expected.item(), rel=1e-12)
    assert (table.meta["bandwidth"], rough.meta["bandwidth"]) == (6.0, 0.0)


@settings(max_examples=40, deadline=None)
@drawn(
    values=st.lists(st.floats(1e-6, 1e6), min_size=2, max_size=12),
    spread=st.floats(1.0, 10.0),
    bandwidth=st.floats(1e-3, 1e3),
)
def test_smoothed_weights_stay_positive_within_bounds_and_in_order(
    values: list[float], spread: float, bandwidth: float
) -> None:
    columns = {
        "amplitude": values,
        "amplitude_low": [value / spread for value in values],
        "amplitude_high": [value * spread for value in values],
    }
    rough = measured(diagnosis(**columns), "amplitude", cap=50.0, precision=None)
    table = measured(diagnosis(**columns), "amplitude", cap=50.0, bandwidth=bandwidth, precision=None)
    slack = 1 + 1e-12
    assert (table.weight >= rough.weight.min() / slack).all() and (
        table.weight <= rough.weight.max() * slack
    ).all()
    assert table.low is not None and table.high is not None
    assert (table.low <= table.weight * slack).all() and (table.weight <= table.high * slack).all()


def test_narrow_smoothing_changes_nothing_and_wide_smoothing_leaves_a_constant() -> None:
    given = diagnosis(amplitude=[1.0, 5.0, 2.0])
    rough = measured(given, "amplitude").weight
    torch.testing.assert_close(
        measured(given, "amplitude", bandwidth=1e-3).weight, rough, rtol=1e-12, atol=0.0
    )
    flat = measured(given, "amplitude", bandwidth=1e6).weight
    torch.testing.assert_close(flat, rough.log().mean().exp().expand(3), rtol=1e-9, atol=0.0)


def test_smoothing_needs_positive_weights_and_a_bandwidth() -> None:
    given = diagnosis(amplitude=[0.0, 1.0])
    with pytest.raises(InputError, match="floor: expected a number above 0, since ln w is smoothed"):
        measured(given, "amplitude", floor=0.0, bandwidth=1.0)
    for bad in (-1.0, math.nan, math.inf, "2"):
        with pytest.raises(InputError, match="bandwidth: expected a number of at least 0"):
            measured(given, "amplitude", bandwidth=bad)  # type: ignore[arg-type]


def test_smoothed_products_normalise_and_survive_a_file(tmp_path: Any) -> None:
    path = schedules.cosine()
    columns = {"bayes_share": [0.9, 0.5, 0.1], "gsnr": [0.1, 1.0, 3.0]}
    columns |= {"gsnr_low": [0.05, 0.5, 2.0], "gsnr_high": [0.2, 2.0, 4.0]}
    table = measured(diagnosis(**columns), "bayes*gsnr", schedule=path, bandwidth=2.0)
    assert table.mean_under(path) == pytest.approx(1.0, rel=1e-12)
    table.save(tmp_path / "weights.json")
    read = WeightTable.load(tmp_path / "weights.json")
    assert torch.equal(read.weight, table.weight) and dict(read.meta)["bandwidth"] == 2.0
    assert read.low is not None and table.low is not None and torch.equal(read.low, table.low)
