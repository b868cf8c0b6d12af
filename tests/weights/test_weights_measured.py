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

from ntkdiag.errors import InputError
from ntkdiag.process import schedules
from ntkdiag.weights import SCORES, WeightTable, evaluate, measured


def diagnosis(target: str = "v", **columns: Any) -> SimpleNamespace:
    count = len(next(iter(columns.values()))) if columns else 3
    frame = pd.DataFrame({"bucket": range(count), "log_snr": np.linspace(-6, 6, count), **columns})
    meta = {
        "config": {"target": target, "samples": 64},
        "data": {"name": "mixture"},
        "network": {"name": "MLP"},
        "bayes_source": "exact",
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
    assert table.meta["negative_score"] == [0] and table.meta["raised_to_floor"] == [0]


def test_intervals_go_through_the_same_map_and_scale() -> None:
    columns = {"gsnr": [1.0, 3.0], "gsnr_low": [-0.5, 1.0], "gsnr_high": [3.0, 99.0]}
    table = measured(diagnosis(**columns), "gsnr", floor=0.1)
    point = torch.tensor([0.5, 0.75], dtype=torch.float64).sqrt()
    assert table.low is not None and table.high is not None
    close(table.weight, (point / point.mean()).tolist())
    close(table.low, [0.1, (math.sqrt(0.5) / point.mean()).item()])
    close(table.high, [(math.sqrt(0.75) / point.mean()).item(), (math.sqrt(0.99) / point.mean()).item()])


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


def test_the_table_says_where_it_comes_from_and_can_be_saved(tmp_path: Any) -> None:
    table = measured(diagnosis(target="eps", bayes_share=[0.1, 0.2, 0.3]))
    assert table.target == "epsilon" and table.name == "measured bayes"
    assert table.meta["score"] == "bayes" and table.meta["power"] == 1.0 and table.meta["cap"] is None
    assert table.meta["diagnosis"]["bayes_source"] == "exact"
    assert table.meta["diagnosis"]["data"] == {"name": "mixture"}
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
