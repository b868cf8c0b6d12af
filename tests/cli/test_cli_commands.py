"""Every command on small runs: what it prints, what --json says, what it writes."""

from __future__ import annotations

import json
import math
import shutil
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from ntkdiag import weights
from ntkdiag.claims import verify
from ntkdiag.claims.levels import training_steps
from ntkdiag.cli.inputs.report_files import verdicts
from ntkdiag.diagnosis import Diagnosis
from ntkdiag.errors import MeasurementError
from ntkdiag.process import schedules
from ntkdiag.report import FIGURES
from ntkdiag.weights import RULES, WeightTable, rule

QUICKLY = ["--buckets", "4", "--samples", "8", "--probes", "2", "--controls", "1"]


@pytest.fixture
def few_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page with a figure of each of its inputs: all of them are drawn in tests of their own."""
    few = {name: FIGURES[name] for name in ("trace", "weights", "history")}
    monkeypatch.setattr("ntkdiag.report.page.page.FIGURES", few)


# measure


def test_measure_prints_a_line_a_bucket_and_writes_the_diagnosis(
    call: Any, workspace: Path, trained: Path
) -> None:
    result = call("measure", "--model", trained, *QUICKLY, "--out", "diag")
    assert result.code == 0 and result.err == ""
    diagnosis = Diagnosis.load("diag")
    lines = result.out.splitlines()
    said = " ".join(result.out.split())
    assert "MLP" in lines[0] and "4 buckets × 8 samples, 2 probes" in said
    rows = lines[lines.index(next(line for line in lines if set(line) == {"─"})) + 1 :][:4]
    assert [row.split()[0] for row in rows] == ["−9.7", "−3.2", "3.2", "9.7"]
    for row, trace in zip(rows, diagnosis.summary["trace"], strict=True):
        assert float(row.split()[1]) == pytest.approx(trace, rel=0.01)
    assert "diag" in lines[-1]


def test_measure_without_out_writes_nothing_and_says_so(call: Any, workspace: Path, trained: Path) -> None:
    result = call("measure", "--model", trained, *QUICKLY)
    assert result.code == 0 and "--out" in result.err
    assert list(workspace.iterdir()) == []


def test_measure_as_json_is_the_diagnosis_it_writes(call: Any, workspace: Path, trained: Path) -> None:
    result = call("measure", "--model", trained, *QUICKLY, "--out", "diag", "--json")
    document, diagnosis = result.document, Diagnosis.load("diag")
    assert document["written"] == "diag" and result.err == ""
    for row, wanted in zip(document["summary"], diagnosis.summary.to_dict("records"), strict=True):
        for name, value in wanted.items():
            same = row[name] is None if math.isnan(value) else row[name] == value
            assert same, name
    assert len(document["refs"]["untrained"]) == 4


def test_the_seed_decides_the_numbers(call: Any, workspace: Path, trained: Path) -> None:
    def summary(seed: int) -> Any:
        return call("measure", "--model", trained, *QUICKLY, "--seed", seed, "--json").document["summary"]

    assert summary(1) == summary(1) != summary(2)


def test_measure_takes_some_parameters_and_little_memory(call: Any, workspace: Path, trained: Path) -> None:
    every = call("measure", "--model", trained, *QUICKLY, "--json").document
    some = call(
        "measure", "--model", trained, *QUICKLY, "--params", "out.*", "--params", "layers.*", "--json"
    ).document
    thrifty = call(
        "measure", "--model", trained, *QUICKLY, "--memory", "20K", "--engine", "exact", "--json"
    ).document
    assert 0 < some["meta"]["network"]["parameters"] < every["meta"]["network"]["parameters"]
    assert some["meta"]["config"]["params"] == ["out.*", "layers.*"]
    assert thrifty["meta"]["engine"] == "exact"
    for row, wanted in zip(thrifty["summary"], every["summary"], strict=True):
        assert row["trace"] == pytest.approx(wanted["trace"], rel=1e-4)


def test_measure_takes_a_sketch(call: Any, workspace: Path, trained: Path) -> None:
    """At k = 500 nothing is sketched; at k = 2 the trace is near, and its engine is named."""
    exact = call("measure", "--model", trained, *QUICKLY, "--json").document
    whole = call(
        "measure", "--model", trained, *QUICKLY, "--engine", "sketch", "--sketch", "500", "--json"
    ).document
    small = call(
        "measure", "--model", trained, *QUICKLY, "--engine", "sketch", "--sketch", "2", "--json"
    ).document
    assert exact["meta"]["engine"] == "streaming"
    assert whole["meta"]["engine"] == small["meta"]["engine"] == "sketch"
    assert any(how.endswith("; sketch of 2") for how in small["meta"]["coverage"].values())
    for one, other, wanted in zip(whole["summary"], small["summary"], exact["summary"], strict=True):
        assert one["gsnr"] == pytest.approx(wanted["gsnr"], rel=1e-3)
        assert other["trace"] != wanted["trace"] == pytest.approx(other["trace"], rel=1.0)


def test_every_option_reaches_the_measurement(
    call: Any, workspace: Path, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, Any] = {}

    def record(denoiser: Any, data: Any, buckets: Any, **given: Any) -> None:
        seen.update(given, data=data.name, edges=buckets.edges)
        raise MeasurementError("seen enough")

    monkeypatch.setattr("ntkdiag.diagnosis.measure", record)
    result = call(
        "measure", "--model", trained, "--buckets", "2", "--range", "-1,3", "--samples", "7", "--probes", "5", "--seed",
        "11", "--engine", "sketch", "--sketch", "9", "--memory", "2M", "--params", "out.*", "--no-check", "--controls", "2",
    )  # fmt: skip
    assert result.code == 1
    assert list(seen.pop("refs")) == ["untrained", "untrained 2"] and callable(seen.pop("progress"))
    assert seen == {
        "samples": 7, "probes": 5, "seed": 11, "engine": "sketch", "sketch": 9, "memory": 2 * 1024**2, "params": ["out.*"],
        "name": "trained", "full": None, "data": "mixture", "edges": (-1.0, 1.0, 3.0), "held_out_unseen": True,
        "check": False, "extrapolate": False, "resume": None, "distributed": False,
    }  # fmt: skip


def test_noise_levels_that_the_schedule_never_trains_are_refused_or_marked(
    call: Any, workspace: Path, few_figures: None
) -> None:
    network = ["--model", "mlp", "--data", "mixture", "--schedule", "linear_log_snr"]
    wide = [*network, "--buckets", "-14,-12,-4,0,6", "--samples", "8", "--probes", "1", "--controls", "0"]
    refused = call("measure", *wide)
    assert refused.code == 2 and refused.err.count("\n") == 1
    assert "log-SNR -10 to 10" in refused.err and "buckets at -13. With --extrapolate noise" in refused.err
    shown = call("measure", *wide, "--extrapolate", "--out", "diag")
    assert shown.code == 0 and Diagnosis.load("diag").summary["extrapolated"].tolist() == [
        True,
        False,
        False,
        False,
    ]
    rows = [line.split()[0] for line in shown.out.splitlines() if line.strip().startswith(("−", "3"))]
    assert rows == 2 * ["−13*", "−8", "−2", "3"]  # the table has two parts
    said = "never saw log-SNR −13 in training"
    assert said in shown.out and said in " ".join(call("verify", "--from", "diag").out.split())
    assert call("report", "diag", "--out", "page.html").code == 0
    page = Path("page.html").read_text()
    assert said in page and "−13*" in page
    weights = call("weights", "--from", "diag", "--score", "amplitude")
    assert "1 of 4 rows are from noise levels that the network never saw" in weights.err


def test_force_replaces_a_diagnosis(call: Any, workspace: Path, trained: Path) -> None:
    for given, code in (([], 0), ([], 2), (["--force"], 0)):
        assert call("measure", "--model", trained, *QUICKLY, "--out", "diag", *given).code == code


# verify


def test_verify_answers_from_a_diagnosis_and_ends_with_0_whatever_it_finds(
    call: Any, workspace: Path, measured: Path
) -> None:
    result = call("verify", "--from", measured)
    assert result.code == 0 and result.err == ""
    found = verify(Diagnosis.load(measured))
    printed = " ".join(result.out.split())
    assert printed.startswith(" ".join(found.text.split()))  # the plain answer comes first
    assert max(len(line) for line in result.out.splitlines()) <= 80
    for row in found.answers.itertuples():
        assert next(line for line in result.out.splitlines() if line.startswith(row.claim))
        assert row.statement in printed and row.text in printed
    table = [line.split() for line in result.out.splitlines()]
    for end in ("noisy", "clean"):
        row = found.claims[(found.claims["statistic"] == "trace") & (found.claims["end"] == end)].iloc[0]
        heading = next(place for place, line in enumerate(table) if line[:2] == [end, "end"])
        cells = next(line for line in table[heading:] if line[:1] == ["trace"])
        assert float(cells[1]) == pytest.approx(row["middle"], rel=0.01)
        assert float(cells[3]) == pytest.approx(row["at_end"], rel=0.01)
        assert float(cells[4]) == pytest.approx(np.exp(-row["effect"]), rel=0.06)


def test_verify_measures_a_network_and_keeps_everything(call: Any, workspace: Path, trained: Path) -> None:
    result = call("verify", "--model", trained, *QUICKLY, "--out", "verdicts", "--json")
    assert result.code == 0
    document = result.document
    assert [row["claim"] for row in document["answers"]] == ["C1", "C2", "C3", "C4", "C5", "C6"]
    written = json.loads((workspace / "verdicts" / "verdicts.json").read_text())
    assert {**written, "written": str(Path("verdicts"))} == document
    assert written["versions"]["ntkdiag"] == metadata.version("ntkdiag") and "torch" in written["versions"]
    table = pd.read_csv(workspace / "verdicts" / "verdicts.csv")
    again = verify(Diagnosis.load(workspace / "verdicts" / "diagnosis"))
    assert list(table["word"]) == list(again.claims["word"]) and again.text == document["text"]
    assert set(table["network"]) == {"measured"} and set(table["controls"]) == {1}


def test_verify_says_what_it_costs_before_it_starts(
    call: Any, workspace: Path, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, Any] = {}

    def record(denoiser: Any, data: Any, buckets: Any, **given: Any) -> None:
        seen.update(given)
        raise MeasurementError("seen enough")

    monkeypatch.setattr("ntkdiag.diagnosis.measure", record)
    for level, samples, probes, controls in (
        ("quick", 64, 8, 3),
        ("standard", 128, 16, 5),
        ("thorough", 256, 24, 8),
    ):
        result = call("verify", "--model", trained, "--level", level)
        assert (seen["samples"], seen["probes"], len(seen["refs"])) == (samples, probes, controls)
        # Two probes are all there are for two outputs.
        steps = training_steps(controls + 1, 10, samples, 2)
        assert f"{controls + 1} networks at 10 noise levels with {samples} samples and 2 probes" in result.err
        assert f"about as much as {steps:,} training steps" in result.err
    assert (
        call("verify", "--model", trained, "--level", "quick", "--samples", "9", "--controls", "0").code == 1
    )
    assert (seen["samples"], seen["probes"], len(seen["refs"])) == (9, 8, 0)
    call("verify", "--model", trained)
    assert seen["samples"] == 128


def test_verify_from_a_folder_writes_verdicts_alone(call: Any, workspace: Path, measured: Path) -> None:
    assert call("verify", "--from", measured, "--out", "v").code == 0
    assert {path.name for path in (workspace / "v").iterdir()} == {"verdicts.csv", "verdicts.json"}


def test_verify_from_several_folders_answers_each(call: Any, workspace: Path, measured: Path) -> None:
    shutil.copytree(measured, "other")
    result = call("verify", "--from", measured, "--from", "other", "--out", "v", "--json")
    assert result.code == 0
    assert list(result.document["networks"]) == [str(measured), "other"]
    table = pd.read_csv("v/verdicts.csv")
    assert list(dict.fromkeys(table["network"])) == [str(measured), "other"] and len(table) == 36
    printed = call("verify", "--from", measured, "--from", "other").out
    assert f"{measured}:" in printed and "other:" in printed


def test_verify_gives_verdicts_on_a_recipe(call: Any, workspace: Path, measured: Path) -> None:
    folders = []
    for seed in range(5):
        one = Diagnosis.load(measured)
        one.meta["network"]["digest"] = str(seed)
        one.save(f"seed{seed}")
        folders += ["--from", f"seed{seed}"]
    result = call("verify", "--recipe", *folders, "--out", "v")
    found = verify({name: Diagnosis.load(name) for name in folders[1::2]}, recipe=True)
    assert result.code == 0 and result.err == ""
    assert " ".join(result.out.split()).startswith(" ".join(found.text.split()))
    assert max(len(line) for line in result.out.splitlines()) <= 80
    assert {path.name for path in Path("v").iterdir()} == {"verdicts.csv", "verdicts.json", "slopes.csv"}
    assert pd.read_csv("v/verdicts.csv")["verdict"].tolist() == found.claims["verdict"].tolist()
    document = call("verify", "--recipe", *folders, "--json").document
    assert document["text"] == found.text and len(document["claims"]) == 6
    assert call("report", measured, "--verdicts", "v", "--out", "page.html").code == 2
    for given, said in (
        (["--model", "x"], "--recipe"),
        (folders[:8], "at least 5"),
        ([*folders, "--from", "seed0/../seed0"], "each training seed once"),
    ):
        refused = call("verify", "--recipe", *given)
        assert refused.code == 2 and said in refused.err and refused.out == ""


# weights


def test_a_rule_is_printed_saved_and_given_as_json(call: Any, workspace: Path) -> None:
    arguments = ["weights", "--rule", "min_snr", "--target", "v", "--option", "gamma=3", "--schedule", "flow"]
    result = call(*arguments, "--out", "folder/table.csv", "--json")
    wanted = rule("min_snr", "v", schedules.flow(), gamma=3.0)
    assert result.document["weight"] == wanted.weight.tolist()
    assert result.document["log_snr"] == wanted.log_snr.tolist()
    assert WeightTable.load("folder/table.csv").weight.tolist() == wanted.weight.tolist()
    text = call(*arguments)
    zero = next(line for line in text.out.splitlines() if line.split()[:1] == ["0"])
    assert float(zero.split()[1]) == pytest.approx(float(wanted(0.0)), rel=0.01)


def test_a_rule_keeps_its_own_scale_if_asked(call: Any, workspace: Path) -> None:
    document = call(
        "weights", "--rule", "constant_v", "--target", "epsilon", "--clip", "7", "--no-normalise", "--json"
    ).document
    assert max(document["weight"]) == 7.0
    assert document["weight"][-1] == pytest.approx(1 + math.exp(-document["log_snr"][-1]))


def test_measured_weights_are_normalised_under_the_diagnosis_own_schedule(
    call: Any, workspace: Path, measured: Path
) -> None:
    document = call("weights", "--from", measured, "--score", "learnability", "--json").document
    diagnosis = Diagnosis.load(measured)
    wanted = weights.measured(diagnosis, "learnability", schedule=schedules.cosine())
    assert document["weight"] == wanted.weight.tolist()
    assert wanted.mean_under(schedules.cosine()) == pytest.approx(1.0, rel=1e-6)
    other = call("weights", "--from", measured, "--power", "0", "--schedule", "flow", "--json").document
    assert other["weight"] == pytest.approx([1.0] * 4)


def test_weights_with_intervals_are_saved_as_json(call: Any, workspace: Path, measured: Path) -> None:
    assert (
        call(
            "weights", "--from", measured, "--score", "gsnr", "--precision", "inf", "--out", "gsnr.json"
        ).code
        == 0
    )
    table = WeightTable.load("gsnr.json")
    assert table.low is not None and bool((table.low <= table.high).all())


def test_the_list_has_every_rule(call: Any) -> None:
    result = call("weights", "--list")
    assert [line.split()[0] for line in result.out.splitlines()] == list(RULES)
    assert [entry["rule"] for entry in call("weights", "--list", "--json").document] == list(RULES)


# sample


def test_samples_are_saved_drawn_and_judged(call: Any, workspace: Path, trained: Path) -> None:
    arguments = ["sample", "--model", trained, "--count", "20", "--steps", "2", "--seed", "5"]
    result = call(*arguments, "--out", "deep/s.npy")
    assert result.code == 0 and result.err == ""
    values = np.load(workspace / "deep" / "s.npy")
    assert values.shape == (20, 2) and values.dtype == np.float32 and np.isfinite(values).all()
    assert (workspace / "deep" / "s.png").read_bytes().startswith(b"\x89PNG")
    assert all(
        word in result.out for word in ("energy distance", "log-likelihood", "KL divergence", "real data")
    )
    document = call(*arguments, "--out", "deep/s.npy", "--force", "--json").document
    assert np.array_equal(np.load(workspace / "deep" / "s.npy"), values)
    assert call(*arguments, "--seed", "6", "--out", "other.npy").code == 0
    assert not np.allclose(np.load(workspace / "other.npy"), values)
    distance = document["quality"]["energy distance"]
    assert distance["samples"]["value"] > distance["real data"]["value"]
    assert document["quality"]["KL divergence, nats"]["samples"]["low"] > 0
    assert document["written"] == ["deep/s.npy", "deep/s.png"]


def test_samples_that_cannot_be_drawn_have_no_picture(call: Any, workspace: Path) -> None:
    np.save("vectors.npy", np.random.default_rng(0).standard_normal((20, 3)).astype(np.float32))
    result = call(
        "sample", "--model", "mlp", "--data", "vectors.npy", "--count", "2", "--steps", "1", "--out", "s.npy"
    )
    assert result.code == 0
    assert "at its initialisation" in result.err and "fewer than 3 samples" in result.out
    assert not (workspace / "s.png").exists()


# plot and report


@pytest.mark.parametrize("name", ["f.png", "f.svg", "f.pdf"])
def test_a_figure_is_written(call: Any, workspace: Path, measured: Path, name: str) -> None:
    result = call("plot", measured, "--what", "effective_rank", "--out", name, "--json")
    assert result.document == {"figure": "effective_rank", "written": name}
    head = (workspace / name).read_bytes()[:100]
    assert head.startswith((b"\x89PNG", b"<?xml", b"%PDF"))


def test_a_figure_is_named_after_itself_and_can_be_replaced(
    call: Any, workspace: Path, measured: Path
) -> None:
    assert call("plot", measured, "--what", "trace").code == 0
    assert (workspace / "trace.png").is_file()
    assert call("plot", measured, "--what", "trace").code == 2
    assert call("plot", measured, "--what", "trace", "--force", "--theme", "dark").code == 0


def test_figures_of_weights_and_runs(call: Any, refused: Any, measured: Path, trained: Path) -> None:
    assert "--run" in refused("plot", measured, "--what", "history")
    assert call("plot", measured, "--what", "history", "--run", f"mine={trained}").code == 0
    assert call("weights", "--rule", "erd", "--target", "v", "--out", "erd.csv").code == 0
    assert call("plot", measured, "--what", "weights", "--table", "erd.csv").code == 0


def test_two_runs_of_one_name_are_refused(refused: Any, measured: Path, trained: Path) -> None:
    assert "two named 'run'" in refused("report", measured, "--run", trained, "--run", f"run={trained}")


def test_the_page_shows_verdicts_tables_and_runs(
    call: Any, workspace: Path, measured: Path, trained: Path, few_figures: None
) -> None:
    assert call("weights", "--rule", "erd", "--target", "v", "--out", "erd.csv").code == 0
    assert call("verify", "--from", measured, "--out", "verdicts").code == 0
    result = call(
        "report", measured, "--verdicts", "verdicts", "--table", "erd=erd.csv", "--run", f"constant={trained}",
        "--out", "deep/page.html",
    )  # fmt: skip
    assert result.code == 0 and "deep/page.html" in result.out
    page = (workspace / "deep" / "page.html").read_text()
    for word in ("C1", "C2", "C3", "erd", "constant", "mixture"):
        assert word in page
    assert verify(Diagnosis.load(measured)).text.split(".")[0] in page
    assert call("report", measured, "--out", "deep/page.html").code == 2


def test_a_page_without_verdicts_has_the_diagnosis_judged_if_it_can_be(
    call: Any, workspace: Path, measured: Path, trained: Path
) -> None:
    small = ["--buckets", "2", "--samples", "3", "--probes", "1", "--controls", "0"]
    assert call("measure", "--model", trained, *small, "--out", "d").code == 0
    assert verdicts(None, Diagnosis.load("d")) is None
    judged = verdicts(None, Diagnosis.load(measured))
    assert judged is not None
    assert judged.text == verify(Diagnosis.load(measured)).text


def test_torch_is_left_as_it_was(call: Any, workspace: Path, trained: Path) -> None:
    before = torch.get_rng_state()
    assert call("measure", "--model", trained, *QUICKLY).code == 0
    assert call("sample", "--model", trained, "--count", "4", "--steps", "1", "--out", "s.npy").code == 0
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.is_grad_enabled()
