"""The study of training with ERD weights at a tiny size, its ties, its picture, and its arithmetic by hand."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure

import ntkdiag as nd
from analysis import command_line, quality
from analysis.erd import run
from analysis.erd.compare import (
    Thresholds,
    best_rates,
    by_bucket,
    differences,
    first_step,
    holm,
    noise_levels,
    with_middle,
    with_steps,
)
from analysis.erd.rules import (
    CLOSED,
    CONSTANT,
    RULES,
    TIES,
    Measuring,
    source,
    table_of_middle,
    table_of_share,
    weights,
)
from analysis.fresh_network import fresh_network
from ntkdiag.weights import LearnedUncertainty, Refresher

FIGURE = Path(__file__).parents[2] / "figures" / "erd.py"
PATHS = {"epsilon": "cosine", "v": "cosine", "flow": "flow"}


def test_a_stopped_study_goes_on_with_the_same_cells_and_the_rules_that_are_one_function_tie(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "mixture"
    run.study("tiny", tmp_path)
    cells = pd.read_csv(folder / "cells.csv")
    plan = command_line.settings(run.HERE, "tiny")["data"]["mixture"]
    assert [tuple(row) for row in cells[run.KEY[1:]].to_numpy().tolist()] == list(run.planned(plan))
    assert cells.filter(regex="^(quality|loss)").notna().all(axis=None)
    ties = pd.read_csv(folder / "ties.csv")
    assert list(ties.rules) == ["debias = erd"] and (ties.largest_gap < 1e-5).all()
    assert set(pd.read_csv(folder / "differences.csv").rule) == {"erd", "middle", "edm2", "gain"}
    assert list(pd.read_csv(folder / "best_rates.csv").rule) == ["erd"]
    # Two cells are missing: exactly these are run, and they come out the same, but for the time they take.
    cells[:-2].to_csv(folder / "cells.csv", index=False)
    calls = []
    cell = run.cell
    monkeypatch.setattr(run, "cell", lambda *a: calls.append(a) or cell(*a))
    run.study("tiny", tmp_path)
    assert len(calls) == 2
    again = pd.read_csv(folder / "cells.csv")
    pd.testing.assert_frame_equal(again.drop(columns="seconds"), cells.drop(columns="seconds"))
    the_figure().draw(tmp_path, tmp_path / "erd.png")
    assert (tmp_path / "erd.png").read_bytes().startswith(b"\x89PNG")
    # Cells of other settings are not mixed in.
    (folder / "study.json").write_text('{"config": {}}')
    with pytest.raises(SystemExit, match="expected cells of the same settings"):
        run.study("tiny", tmp_path)


def the_figure() -> ModuleType:
    """The script of the study's figure."""
    spec = importlib.util.spec_from_file_location("figure_erd", FIGURE)
    assert spec is not None and spec.loader is not None
    figure = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(figure)
    return figure


@pytest.mark.parametrize(("largest", "text"), [(-80.0, "← -80%"), (80.0, "+80% →"), (9.0, None)])
def test_a_change_far_from_all_others_is_an_arrow_with_its_number(largest: float, text: str | None) -> None:
    changes = [-4.0, 6.0, largest]
    table = pd.DataFrame(
        {"target": "v", "rule": ["erd", "gsnr", "edm2"], "base": 50.0, "difference": changes}
    )
    table = table.assign(low=table["difference"] - 1, high=table["difference"] + 1)
    table[["low", "high", "difference"]] /= 2
    axes = Figure().add_subplot()
    the_figure().draw_changes(axes, table, list(table["rule"]))
    assert [found.get_text() for found in axes.texts] == ([text] if text else [])
    low, high = axes.get_xlim()
    assert all(low < change - 1 and change + 1 < high for change in changes if abs(change) < 10)


def test_more_cells_leave_the_finished_ones_as_they_are_and_other_settings_do_not() -> None:
    config = {"clip": 10, "plan": {"seeds": 3, "rules": [["erd"]], "train": {"steps": 9}}}
    more = {"clip": 10, "plan": {"seeds": 5, "rules": [["erd", "gain"]], "train": {"steps": 9}}}
    longer = {"clip": 10, "plan": {"seeds": 3, "rules": [["erd"]], "train": {"steps": 10}}}
    assert run.of_a_cell(config) == run.of_a_cell(more)
    assert run.of_a_cell(config) != run.of_a_cell(longer)


def test_the_plan_has_every_cell_once_and_whole_seeds_one_after_another() -> None:
    for plan in command_line.settings(run.HERE, "full")["data"].values():
        keys = list(run.planned(plan))
        assert len(set(keys)) == len(keys) and {key[3] for key in keys} <= set(RULES)
        first = [
            key for key in keys if key[3] in plan["rules"][0] and key[1] == plan["train"]["learning_rate"]
        ]
        assert [key[2] for key in first] == sorted(key[2] for key in first)


def test_a_control_is_trained_for_one_seed_and_is_not_in_the_sweep() -> None:
    for plan in command_line.settings(run.HERE, "full")["data"].values():
        keys = list(run.planned(plan))
        for target, (control, other) in TIES.items():
            assert [key[2] for key in keys if key[0] == target and key[3] == control] == [0]
            assert len([key for key in keys if key[0] == target and key[3] == other]) >= plan["seeds"]


@pytest.mark.parametrize("target", ["epsilon", "flow"])
def test_the_middle_alone_is_moved(target: str) -> None:
    schedule = nd.schedules.named(PATHS[target])
    more, less = (table_of_middle(name, target, schedule) for name in ("middle", "ends"))
    grid = torch.tensor([-9.0, -4.0, 0.0, 4.0, 9.0], dtype=torch.float64)
    for table, ratio in ((more, 3.0), (less, 1 / 3)):
        assert table.mean_under(schedule) == pytest.approx(1, rel=1e-6)
        values = table(grid) / table(grid)[0]
        expected = torch.tensor([1, 1, ratio, 1, 1], dtype=torch.float64)
        torch.testing.assert_close(values, expected, rtol=0.05, atol=0)
    drawn = schedule.sample(20_000, torch.Generator().manual_seed(0))
    assert float(more(drawn).mean()) == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("target", TIES)
def test_rules_that_tie_are_one_function(target: str) -> None:
    schedule = nd.schedules.named(PATHS[target])
    grid = torch.linspace(-15, 15, 31, dtype=torch.float64)
    left, right = (weights(name, target, schedule, 10)[0](grid) for name in TIES[target])
    torch.testing.assert_close(left, right, rtol=1e-12, atol=0)


def test_only_rules_without_a_mean_are_clipped() -> None:
    clipped = {
        (target, name)
        for target in ("epsilon", "x0", "v")
        for name in CLOSED
        if weights(name, target, nd.schedules.cosine(), 10)[1]
    }
    assert clipped == {("epsilon", "debias"), ("x0", "debias"), ("x0", "p2_1_half")}


def test_measured_rules_are_what_their_names_say() -> None:
    start = fresh_network("mlp", {"width": 8}, "mixture", "v")
    measuring = Measuring(samples=6, buckets=3, every=5)
    found = {name: source(name, start, 10, measuring, 0)[0] for name in ("edm2", "bayes", "gain", "erd")}
    assert isinstance(found["edm2"], LearnedUncertainty) and isinstance(found["gain"], Refresher)
    assert found["gain"].every == 5
    # Of v, ERD's amplitude and the recoverable share both fall where noise hides the data.
    grid = torch.tensor([-6.0, 0.0], dtype=torch.float64)
    for name in ("bayes", "erd"):
        values = found[name](grid)
        assert 1.5 * values[0] < values[1]


def test_weights_by_share_are_its_root() -> None:
    buckets = nd.Buckets.uniform(-3, 3, 3)
    table = table_of_share(buckets, torch.tensor([0.04, 0.36, 1.0]), "v")
    torch.testing.assert_close(table.weight, torch.tensor([1 / 3, 1.0, 5 / 3], dtype=torch.float64))
    assert table.target == "v" and table.log_snr.tolist() == list(buckets.centers)


def test_pictures_are_judged_by_features_beside_their_floors(monkeypatch: pytest.MonkeyPatch) -> None:
    original = quality.train_feature_network
    seen = []
    monkeypatch.setattr(
        quality,
        "train_feature_network",
        lambda data: seen.append(data.train) or original(data, steps=2),
    )
    data = nd.data.load("digits")
    judge = quality.Judge(data, 60, 397)
    found = judge.judge(torch.zeros(60, 1, 8, 8) + 0.3 * torch.randn(60, 1, 8, 8))
    names = (
        "quality",
        "fd_features",
        "mmd_features",
        "sliced_wasserstein",
        "precision",
        "recall",
        "density",
        "coverage",
    )
    assert set(found) == {f"{name}{end}" for name in names for end in ("", "_floor")}
    assert found["quality"] > 5 * found["quality_floor"] and found["coverage"] < found["coverage_floor"]
    # The floor is the mean of draws of digits that the classifier has not learned from.
    (learned,) = seen
    assert len(learned) == len(judge.unseen) == len(data.train) // 2
    rows = torch.cat([learned, judge.unseen]).flatten(1)
    assert torch.equal(rows.unique(dim=0), data.train.flatten(1).unique(dim=0))
    draws = [judge.judge(real)["fd_features"] for real in judge._real()]
    assert found["fd_features_floor"] == pytest.approx(sum(draws) / len(draws)) and len(set(draws)) > 1
    classes = {row.numpy().tobytes(): int(label) for row, label in zip(data.train, data.labels, strict=True)}
    by_class = quality.Judge(data, 60, 50, by_class=True)
    for real in by_class._real():
        drawn = torch.tensor([classes[row.numpy().tobytes()] for row in real])
        assert torch.equal(drawn.bincount(minlength=10), data.held_out_labels[:50].bincount(minlength=10))


def test_cells_of_another_classifier_are_refused(tmp_path: Path) -> None:
    run.require_same_features(tmp_path, {"a1"}, "a1")
    run.require_same_features(tmp_path, set(), "a1")
    with pytest.raises(SystemExit, match="judged by the features 'a1'; got 'a1, b2'"):
        run.require_same_features(tmp_path, {"a1", "b2"}, "a1")


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]


def rows(values: dict[str, tuple[float, ...]], rate: float = 1e-3) -> list[dict[str, object]]:
    return [
        {"data": "d", "target": "v", "learning_rate": rate, "seed": seed, "rule": rule, "quality": value}
        for rule, each in values.items()
        for seed, value in enumerate(each)
    ]


def test_differences_are_paired_by_seed() -> None:
    cells = pd.DataFrame(rows({CONSTANT: (1.0, 5.0, 9.0), "erd": (0.9, 4.7, 8.8), "gain": (1.0, 5.0, 9.0)}))
    found, same = differences(cells, CONSTANT).to_dict("records")
    assert found["rule"] == "erd" and found["difference"] == pytest.approx(-0.2)
    # Student's t for 2 degrees of freedom at 97.5% is 4.3027.
    assert found["high"] - found["difference"] == pytest.approx(4.3027 * 0.1 / math.sqrt(3), rel=1e-4)
    assert (same["difference"], same["p"], same["p_holm"]) == (0.0, 1.0, 1.0)


def test_differences_to_another_rule_are_those_of_the_two() -> None:
    cells = pd.DataFrame(rows({CONSTANT: (1.0, 5.0), "min_snr_5": (2.0, 4.0), "erd": (0.0, 3.0)}))
    found = {row["rule"]: row for row in differences(cells, "min_snr_5").to_dict("records")}
    assert set(found) == {CONSTANT, "erd"} and found["erd"]["base"] == 3.0
    assert found["erd"]["difference"] == pytest.approx(-1.5) and found[CONSTANT]["difference"] == 0


def test_the_middle_is_the_buckets_around_a_log_snr_of_zero() -> None:
    cells = pd.DataFrame({f"loss_bucket_{index}": [float(index**2)] for index in range(8)})
    assert with_middle(cells, nd.Buckets.uniform(-8, 8, 8)).loss_middle.tolist() == [(9 + 16) / 2]


def test_the_noise_level_whose_loss_goes_with_the_samples_is_found() -> None:
    change = {"a": -2.0, "b": -1.0, "c": 1.0, "d": 3.0}
    cells = pd.DataFrame(
        rows({CONSTANT: (5.0, 8.0)} | {name: (5 + by, 8 + by) for name, by in change.items()})
    )
    by = cells.rule.map(change | {CONSTANT: 0.0})
    cells["loss_bucket_0"], cells["loss_bucket_1"] = cells.seed + by**3, cells.seed - by
    cells["loss"] = cells.loss_bucket_0 + cells.loss_bucket_1
    (found,) = noise_levels(cells).to_dict("records")
    assert found["rules"] == 4 and found["measure"] == "quality"
    assert (found["loss_bucket_0"], found["loss_bucket_1"]) == pytest.approx((1, -1))
    assert noise_levels(cells[cells.rule != "d"]).empty and noise_levels(cells[cells.rule != CONSTANT]).empty


def test_losses_of_buckets_are_relative_to_the_same_seed() -> None:
    cells = pd.DataFrame(rows({CONSTANT: (1.0, 1.0), "erd": (1.0, 1.0), "gain": (1.0,)}))
    cells["loss_bucket_0"], cells["loss_bucket_1"] = [1.0, 10.0, 0.8, 9.0, 7.0], [2.0, 2.0, 2.0, 3.0, 7.0]
    (found,) = by_bucket(cells).to_dict("records")
    assert (found["rule"], found["seeds"]) == ("erd", 2)
    assert found["loss_bucket_0"] == pytest.approx(-0.15) and found["loss_bucket_1"] == pytest.approx(0.25)


def test_the_first_step_at_a_quality_by_hand() -> None:
    curve = [(100, 8.0), (200, 4.0), (300, 5.0), (400, 1.0)]
    assert first_step(curve, 6.0) == 150.0 and first_step(curve, 2.0) == 375.0
    assert first_step(curve, 9.0) == 100.0 and first_step(curve, 0.5) == 400.0
    assert math.isnan(first_step(curve[:1], 1.0)) and math.isnan(first_step(curve, math.nan))


def test_the_threshold_is_the_constant_rules_mean_at_its_step() -> None:
    cells = pd.DataFrame(rows({CONSTANT: (1.0, 3.0), "erd": (1.0, 2.0)}))
    cells["quality_at_50"] = [4.0, 6.0, 3.0, 7.0]
    found = with_steps(cells, Thresholds(50, 100))
    assert (found.threshold == 5.0).all()
    assert found.steps_to_quality.tolist() == pytest.approx([50, 50 + 50 / 3, 50, 50 + 50 * 2 / 5])


def test_each_rule_is_compared_at_the_rate_that_suits_it() -> None:
    cells = pd.DataFrame(
        rows({CONSTANT: (4.0, 6.0), "erd": (1.0, 2.0), "gain": (9.0, 9.0)}, 1e-3)
        + rows({CONSTANT: (3.0, 5.0), "erd": (8.0, 8.0)}, 2e-3)
    )
    found = best_rates(cells).to_dict("records")
    assert len(found) == 1 and found[0]["rule"] == "erd"
    assert (found[0]["rate"], found[0]["constant_rate"]) == (1e-3, 2e-3)
    assert found[0]["difference"] == pytest.approx(-2.5)
