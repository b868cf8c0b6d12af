"""`ntkdiag audit` and what `ntkdiag weights` writes and draws beside its table."""

from __future__ import annotations

import json
import math
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors import safe_open

from ntkdiag.cli.output.text_plot import text_plot
from ntkdiag.process import schedules
from ntkdiag.weights import WeightTable, rule, save_steps

FUNCTIONS = """
import torch

def right(snr):
    return snr.clamp(max=5) / (snr + 1)

def for_epsilon(snr):
    return snr.clamp(max=5) / snr

def of_steps(t):
    beta = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    bar = torch.cumprod(1 - beta, 0)
    snr = (bar / (1 - bar))[t]
    return snr.clamp(max=5) / (snr + 1)

def failing(snr):
    raise RuntimeError("two\\nlines")

number = 3
"""


@pytest.fixture
def functions(workspace: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of weight functions in the current folder, under a name that no other test has imported."""
    name = f"weights_of_{abs(hash(request.node.nodeid))}"
    (workspace / f"{name}.py").write_text(FUNCTIONS)
    monkeypatch.syspath_prepend(str(workspace))
    return name


def test_a_sound_function_ends_with_0_and_its_rule(call: Any, functions: str) -> None:
    result = call("audit", f"{functions}:right", "--target", "v", "--rule", "min_snr", "--option", "gamma=5")
    assert result.code == 0 and result.err == ""
    assert "equals: min_snr(gamma=5) on v" in result.out
    assert "█" in result.out and "log-SNR" in result.out


def test_a_mistake_ends_with_1_and_its_name(call: Any, functions: str) -> None:
    result = call("audit", f"{functions}:for_epsilon", "--target", "v")
    assert result.code == 1 and result.err == ""
    assert "mistake: formula_of_another_target" in result.out
    assert max(map(len, result.out.splitlines())) <= 100


def test_json_is_one_document_whatever_was_found(call: Any, functions: str) -> None:
    result = call("audit", f"{functions}:for_epsilon", "--target", "v", "--json")
    assert result.code == 1
    assert result.document["ok"] is False and result.document["written"] is None
    assert result.document["findings"][0]["name"] == "formula_of_another_target"
    assert len(result.document["curve"]["weight"]) == 121


def test_timesteps_of_a_schedule(call: Any, functions: str) -> None:
    result = call("audit", f"{functions}:of_steps", "--target", "v", "--argument", "timesteps", "--rule", "min_snr",
                  "--schedule", "linear_beta", "--json")  # fmt: skip
    assert result.code == 0 and result.document["rule"] == "min_snr(gamma=5) on v"
    assert result.document["mean"] == pytest.approx(
        rule("min_snr", "v").mean_under(schedules.linear_beta()), rel=1e-2
    )


def test_tables_are_audited_with_their_own_target(call: Any, workspace: Path) -> None:
    rule("erd", "v", schedules.cosine()).save("erd.csv")
    result = call("audit", "erd.csv", "--schedule", "cosine", "--json")
    assert result.code == 0 and result.document["mean"] == pytest.approx(1.0, abs=1e-3)
    assert call("audit", "erd.csv", "--target", "epsilon").code == 1


@pytest.mark.parametrize("name", ["curve.csv", "new/all.json"])
def test_the_curve_can_be_saved(call: Any, functions: str, workspace: Path, name: str) -> None:
    arguments = ["audit", f"{functions}:for_epsilon", "--target", "v", "--out", name]
    assert call(*arguments).code == 1
    if name.endswith(".csv"):
        assert list(pd.read_csv(name).columns) == ["log_snr", "weight", "reference", "ratio"]
    else:
        written = json.loads(Path(name).read_text())
        assert written["ok"] is False and written["versions"]["numpy"] == np.__version__
    again = call(*arguments)
    assert again.code == 2 and "--force" in again.err
    assert call(*arguments, "--force").code == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["{m}:nothing", "--target", "v"], "function in {m}"),
        (["{m}:rihgt", "--target", "v"], "Did you mean 'right'?"),
        (["{m}:number", "--target", "v"], "expected a function; got int"),
        (["{m}:failing", "--target", "v"], "RuntimeError: two"),
        (["{m}:right"], "target: expected the target"),
        (["{m}:right", "--target", "w"], "target: expected one of"),
        (["{m}:right", "--target", "v", "--rule", "min_snrr"], "Did you mean 'min_snr'?"),
        (["{m}:right", "--target", "v", "--rule", "min_snr", "--option", "gama=5"], "Did you mean 'gamma'?"),
        (
            ["{m}:right", "--target", "v", "--rule", "min_snr", "--option", "gamma=five"],
            "gamma of rule 'min_snr'",
        ),
        (
            ["{m}:right", "--target", "v", "--option", "target=x0"],
            "--option: expected parameters of the rule",
        ),
        (["{m}:right", "--target", "v", "--argument", "timesteps"], "schedule: expected the schedule"),
        (["{m}:right", "--target", "v", "--argument", "time"], "argument: expected one of"),
        (["{m}:right", "--target", "v", "--schedule-option", "steps=3"], "--schedule-option"),
        (["{m}:right", "--target", "v", "--out", "curve.png"], "file type of curve.png"),
        (["no_such_module_at_all:f", "--target", "v"], "no_such_module_at_all"),
        (
            ["right", "--target", "v"],
            "weights: expected package.module:function, file.py:function, or a .csv or .json file",
        ),
        (["missing.csv"], "missing.csv: expected a readable file"),
        (["missing.csv", "--argument", "snr"], "--argument: expected nothing beside a table"),
        ([], "Missing argument"),
    ],
)
def test_what_cannot_be_audited_is_refused_in_one_line(
    refused: Any, functions: str, arguments: list[str], words: str
) -> None:
    line = refused("audit", *(argument.format(m=functions) for argument in arguments))
    assert words.format(m=functions) in line


@pytest.mark.parametrize("suffix", [".npy", ".safetensors"])
def test_weights_of_every_step_of_a_scheduler(call: Any, workspace: Path, suffix: str) -> None:
    arguments = [
        "weights",
        "--rule",
        "min_snr",
        "--target",
        "v",
        "--schedule",
        "linear_beta",
        "--out",
        f"new/w{suffix}",
    ]
    assert call(*arguments).code == 0
    expected = rule("min_snr", "v", schedules.linear_beta()).to_steps(schedules.linear_beta())
    if suffix == ".npy":
        found = torch.from_numpy(np.load(f"new/w{suffix}", allow_pickle=False))
    else:
        with safe_open(f"new/w{suffix}", "pt") as file:
            found = file.get_tensor("weight")
            assert file.metadata()["target"] == "v" and "linear_beta" in file.metadata()["schedule"]
            assert json.loads(file.metadata()["versions"])["torch"] == metadata.version("torch")
    assert found.shape == (1000,) and torch.equal(found, expected)


def test_steps_of_a_continuous_schedule_are_refused(refused: Any) -> None:
    line = refused("weights", "--rule", "erd", "--target", "v", "--out", "new/w.npy")
    assert "schedule: expected a discrete schedule" in line


def test_save_steps_refuses_other_files(tmp_path: Path) -> None:
    from ntkdiag.errors import InputError

    with pytest.raises(InputError, match=r"expected one of \.npy, \.safetensors"):
        save_steps(rule("erd", "v"), schedules.linear_beta(), tmp_path / "w.pkl")
    assert list(tmp_path.iterdir()) == []


def test_measured_products_and_smoothing_reach_the_table(call: Any, workspace: Path, trained: Path) -> None:
    assert call("measure", "--model", trained, "--buckets", "4", "--samples", "8", "--probes", "2", "--controls", "0",
                "--out", "diag").code == 0  # fmt: skip
    result = call("weights", "--from", "diag", "--score", "bayes*amplitude", "--bandwidth", "2", "--out", "b.csv",
                  "--json")  # fmt: skip
    assert result.code == 0
    assert (
        result.document["meta"]["bandwidth"] == 2.0 and result.document["meta"]["score"] == "bayes*amplitude"
    )
    assert WeightTable.load("b.csv").name == "measured bayes*amplitude"


def test_a_table_that_ends_before_ten_is_shown_as_far_as_it_goes(call: Any) -> None:
    result = call("weights", "--rule", "sigmoid", "--target", "epsilon", "--schedule", "linear_log_snr",
                  "--schedule-option", "log_snr_min=-8.5", "--schedule-option", "log_snr_max=8.5")  # fmt: skip
    assert result.code == 0
    assert " −8  " in result.out and " 10  " not in result.out


def test_a_text_plot_is_as_high_as_the_logarithm() -> None:
    values = [10.0**-place for place in range(5)]
    lines = text_plot([0.0, 1.0, 2.0, 3.0, 4.0], values).splitlines()
    columns = ["".join(line.partition("│")[2].ljust(5)[place] for line in lines[:8]) for place in range(5)]
    filled = [sum(" ▁▂▃▄▅▆▇█".index(cell) for cell in column) for column in columns]
    assert filled == [64, 48, 33, 17, 1]
    assert lines[0].startswith("     1.00 │") and "10⁻⁴" in lines[7]
    assert lines[-1].split() == ["0", "4", "log-SNR"]


def test_what_cannot_be_drawn_is_left_out() -> None:
    assert text_plot([0.0, 1.0], [0.0, math.nan]) == ""
    lines = text_plot([0.0, 1.0, 2.0], [math.inf, 1.0, -1.0]).splitlines()
    assert lines[7].partition("│")[2] == " █"
    assert len(text_plot(list(range(500)), [1.0] * 500).splitlines()[0].partition("│")[2]) == 57
