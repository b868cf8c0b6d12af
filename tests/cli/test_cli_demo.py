"""The demo, small: its folder, its numbers, the same numbers again, and nothing left where it fails."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pandas as pd
import pytest
import torch

from ntkdiag.claims import verify
from ntkdiag.cli import main
from ntkdiag.cli.demonstration.results import demo_text
from ntkdiag.cli.demonstration.run import FULL, QUICK
from ntkdiag.cli.inputs.loading import load
from ntkdiag.cli.inputs.training_runs import read_run
from ntkdiag.cli.options.shared import ModelOptions
from ntkdiag.diagnosis import Diagnosis
from ntkdiag.process import schedules
from ntkdiag.report import FIGURES
from ntkdiag.train import TrainConfig
from ntkdiag.weights import WeightTable, rule

FILES = {"diagnosis", "weights.csv", "constant", "erd", "page.html", "figures", "verdicts.csv", "demo.json"}

# One figure of each thing that the demo hands to figures and page; all of them are drawn in tests of their own.
DRAWN = {"trace", "weights", "history", "samples", "quality"}


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "demo"
    few = {name: FIGURES[name] for name in DRAWN}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ntkdiag.report.render.FIGURES", few)
        patch.setattr("ntkdiag.report.page.page.FIGURES", few)
        assert main(["demo", "--quick", "--seed", "2", "--out", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def document(demo: Path) -> dict[str, Any]:
    return json.loads((demo / "demo.json").read_text())


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without figures and page, which take most of the time of a small demo."""
    monkeypatch.setattr("ntkdiag.report.save_figures", lambda *arguments, **parts: {})
    monkeypatch.setattr("ntkdiag.report.write_page", lambda path, *arguments, **parts: path)


def test_everything_is_there_and_nothing_else(demo: Path) -> None:
    assert {path.name for path in demo.iterdir()} == FILES
    assert [path.name for path in demo.parent.iterdir()] == [demo.name]
    assert {path.stem for path in (demo / "figures").iterdir()} == DRAWN
    page = (demo / "page.html").read_text()
    assert all(FIGURES[name].title in page for name in DRAWN) and "Figures left out" not in page
    for word in ("C1", "C2", "C3", "constant", "erd", "digits"):
        assert word in page


def test_the_same_seed_gives_the_same_numbers(
    call: Any, workspace: Path, document: dict[str, Any], undrawn: None
) -> None:
    again = call("demo", "--quick", "--seed", "2", "--json").document
    assert (workspace / "runs" / "demo" / "demo.json").is_file()
    assert again.pop("seconds") > 0
    assert again == {key: value for key, value in document.items() if key != "seconds"}
    other = call("demo", "--quick", "--seed", "3", "--out", "other", "--json").document
    assert other["buckets"][0]["trace"] != again["buckets"][0]["trace"]
    assert other["buckets"][0]["loss_erd"] != again["buckets"][0]["loss_erd"]


def test_the_table_is_that_of_the_files(demo: Path, document: dict[str, Any]) -> None:
    diagnosis = Diagnosis.load(demo / "diagnosis")
    losses = {name: read_run(demo / name)["buckets"] for name in ("constant", "erd")}
    table = WeightTable.load(demo / "weights.csv")
    assert [row["log_snr"] for row in document["buckets"]] == [-8.0, -4.0, 0.0, 4.0, 8.0]
    for place, row in enumerate(document["buckets"]):
        measured = diagnosis.summary.iloc[place]
        for name in (
            "trace",
            "top_eigenvalue",
            "effective_rank",
            "participation_ratio_pairs",
            "amplitude",
            "gsnr",
        ):
            assert row[name] == measured[name]
        before = diagnosis.refs["untrained"].summary["effective_rank"].iloc[place]
        assert row["effective_rank_untrained"] == before
        assert row["weight"] == float(table(row["log_snr"]))
        for name, of in losses.items():
            assert row[f"loss_{name}"] == of["loss"].iloc[place]
        assert row["loss_change"] == pytest.approx(row["loss_erd"] - row["loss_constant"], abs=1e-12)
        assert row["loss_change_low"] < row["loss_change"] < row["loss_change_high"]


def test_the_weights_are_erd_for_v(demo: Path) -> None:
    wanted = rule("erd", "v", schedules.cosine())
    assert WeightTable.load(demo / "weights.csv").weight.tolist() == wanted.weight.tolist()
    assert (demo / "erd" / "weights.csv").read_bytes() == (demo / "weights.csv").read_bytes()


def test_what_was_measured_is_the_trained_network_and_the_one_before(demo: Path) -> None:
    from ntkdiag.provenance import digest

    diagnosis = Diagnosis.load(demo / "diagnosis")
    trained = load(ModelOptions(model=str(demo / "constant")))
    before = trained.controls(1)[0]["untrained"]
    assert list(diagnosis.refs) == ["untrained", "untrained 2"]
    found = [diagnosis.meta["network"]["digest"], diagnosis.refs["untrained"].meta["network"]["digest"]]
    assert found == [digest(*net.network.state_dict().values()) for net in (trained.denoiser, before)]


def test_both_runs_start_alike_and_end_apart(demo: Path) -> None:
    runs = [load(ModelOptions(model=str(demo / name))) for name in ("constant", "erd")]
    starts = [run.controls(1)[0]["untrained"] for run in runs]
    for name, value in starts[0].state_dict().items():
        assert torch.equal(value, starts[1].state_dict()[name])
    histories = [read_run(demo / name)["history"] for name in ("constant", "erd")]
    assert list(histories[0]["step"]) == list(histories[1]["step"])
    assert not torch.equal(
        runs[0].denoiser.state_dict()["network.out.weight"],
        runs[1].denoiser.state_dict()["network.out.weight"],
    )


def test_verdicts_and_quality_are_reported(demo: Path, document: dict[str, Any]) -> None:
    verdicts = pd.read_csv(demo / "verdicts.csv")
    assert [row["word"] for row in document["verdicts"]["claims"]] == list(verdicts["word"])
    assert [row["claim"] for row in document["verdicts"]["answers"]] == ["C1", "C2", "C3", "C4", "C5", "C6"]
    assert document["verdicts"]["text"] == verify(Diagnosis.load(demo / "diagnosis")).text
    assert [row["run"] for row in document["quality"]] == ["constant", "erd", "real data"]
    for row in document["quality"]:
        assert row["low"] < row["value"] < row["high"]


def test_the_text_has_the_answer_one_row_a_bucket_and_arrows_where_runs_differ(
    document: dict[str, Any],
) -> None:
    text = demo_text(document)
    lines = text.splitlines()
    assert " ".join(document["verdicts"]["text"].split()) in " ".join(text.split())
    start = max(place for place, line in enumerate(lines[:-8]) if set(line) == {"─"})
    rows = lines[start + 1 : start + 1 + len(document["buckets"])]
    for line, row in zip(rows, document["buckets"], strict=True):
        better, worse = row["loss_change_high"] < 0, row["loss_change_low"] > 0
        assert line.endswith("↓") is better and line.endswith("↑") is worse
    assert "real data" in lines[-1]


def test_every_line_of_the_table_fits_a_terminal_of_120_columns(document: dict[str, Any]) -> None:
    assert max(map(len, demo_text(document).splitlines())) <= 120


def test_it_runs_in_one_thread_so_that_cores_change_no_number(
    call: Any, workspace: Path, document: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert document["environment"]["threads"] == "1"
    seen: list[int] = []

    def failing(*arguments: object, **more: object) -> None:
        seen.append(torch.get_num_threads())
        raise KeyboardInterrupt

    monkeypatch.setattr("ntkdiag.diagnosis.measure", failing)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        assert call("demo", "--quick", "--out", "demo").code == 130
        assert (seen, torch.get_num_threads()) == ([1], 2)
    finally:
        torch.set_num_threads(before)


def test_a_demo_that_fails_leaves_nothing(
    call: Any, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ntkdiag.errors import MeasurementError

    monkeypatch.setattr("ntkdiag.diagnosis.measure", Mock(side_effect=MeasurementError("no kernel today")))
    result = call("demo", "--quick", "--out", "demo")
    assert (result.code, result.err) == (1, "error: no kernel today\n")
    assert list(workspace.iterdir()) == []


def test_force_replaces_a_demo_only_when_the_new_one_is_whole(
    call: Any, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (workspace / "demo").mkdir()
    (workspace / "demo" / "demo.json").write_text("earlier")

    def stopped(*arguments: object, **more: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("ntkdiag.diagnosis.measure", stopped)
    assert call("demo", "--quick", "--out", "demo", "--force").code == 130
    assert (workspace / "demo" / "demo.json").read_text() == "earlier"
    assert [path.name for path in workspace.iterdir()] == ["demo"]


@pytest.mark.parametrize("plan", [FULL, QUICK])
def test_the_plans_can_be_followed(plan: Any) -> None:
    assert plan.samples >= 8 and plan.probes >= 3 and plan.buckets >= 3  # for intervals and trends
    TrainConfig.preset("digits", steps=plan.steps, batch=plan.batch)
    assert (FULL.buckets, FULL.samples) == (10, 64)
