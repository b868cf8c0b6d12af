"""Bad input: exit code 2, one clear line on stderr, nothing half-written."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

TINY = ["--model", "mlp", "--model-option", "width=8", "--model-option", "depth=1", "--data", "mixture"]
QUICKLY = ["--buckets", "4", "--samples", "8", "--probes", "2", "--controls", "1"]
MEASURE = ["measure", *TINY, *QUICKLY, "--out", "out"]
Refused = Callable[..., str]
Array = Callable[..., str]


def weights_of(trained: Path) -> dict[str, torch.Tensor]:
    return load_file(trained / "average.safetensors")


# Files


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["measure", "--model", "mlp", "--data", "none.npy", "--out", "out"], "none.npy"),
        ([*MEASURE, "--checkpoint", "none.safetensors"], "none.safetensors"),
        (["verify", "--from", "none"], "none"),
        (["weights", "--from", "none"], "none"),
        (["plot", "none"], "none"),
        (["report", "none"], "none"),
        (["train", *TINY, "--weights", "none.csv", "--out", "out"], "none.csv"),
        (["train", "--resume", "--out", "none"], "none"),
        (["measure", "--model", "runs/none"], "runs/none"),
    ],
)
def test_a_missing_file_is_named(refused: Refused, arguments: list[str], named: str) -> None:
    assert named in refused(*arguments)


def test_report_names_what_is_missing_beside_the_diagnosis(refused: Refused, measured: Path) -> None:
    assert "none.csv" in refused("report", measured, "--table", "none.csv")
    assert "none" in refused("report", measured, "--run", "none")
    assert "none.csv" in refused("report", measured, "--verdicts", "none.csv")


def test_files_that_are_something_else_are_refused(refused: Refused, workspace: Path) -> None:
    for name in ("text.npy", "text.safetensors", "text.csv"):
        (workspace / name).write_text("not what it says")
    assert "text.npy" in refused("measure", "--model", "mlp", "--data", "text.npy")
    assert "text.safetensors" in refused(*MEASURE, "--checkpoint", "text.safetensors")
    assert "text.csv" in refused("train", *TINY, "--weights", "text.csv", "--out", "out")
    (workspace / "diagnosis").mkdir()
    (workspace / "diagnosis" / "diagnosis.json").write_text("{")
    assert "JSON" in refused("verify", "--from", "diagnosis")


# Data


def test_data_of_a_wrong_shape_is_refused(refused: Refused, array: Array) -> None:
    assert "shape [5]" in refused("measure", "--model", "mlp", "--data", array(np.zeros(5)))
    flat = array(np.zeros((20, 3), np.float32))
    assert "(channels, height, width)" in refused("measure", "--model", "dit", "--data", flat)


def test_data_of_another_shape_than_in_training_is_refused(
    refused: Refused, array: Array, trained: Path
) -> None:
    line = refused("measure", "--model", trained, "--data", array(np.zeros((20, 3), np.float32)))
    assert "[2], as in training" in line and "got [3]" in line


def test_nan_in_data_is_refused_and_its_place_reported(refused: Refused, array: Array) -> None:
    values = np.zeros((20, 2), np.float32)
    values[7, 1] = np.nan
    assert "NaN or infinity in sample 7" in refused("measure", "--model", "mlp", "--data", array(values))


def test_no_samples_or_too_many_are_refused(refused: Refused, array: Array) -> None:
    few = array(np.random.default_rng(0).standard_normal((10, 2)))
    assert "--samples" in refused(*MEASURE, "--samples", "0")
    assert "--probes" in refused(*MEASURE, "--probes", "0")
    assert "at most the 8 points" in refused("measure", "--model", "mlp", "--data", few, "--samples", "9")
    assert "at least 8" in refused("verify", *TINY, "--samples", "7")
    assert "--count" in refused("sample", *TINY, "--count", "0", "--out", "s.npy")


# Checkpoints


def test_nan_in_a_checkpoint_is_refused_and_its_tensor_reported(
    refused: Refused, workspace: Path, trained: Path
) -> None:
    state = weights_of(trained)
    state["out.weight"][0, 0] = float("nan")
    save_file(state, workspace / "nan.safetensors")
    assert "NaN or infinity in out.weight" in refused(*MEASURE, "--checkpoint", "nan.safetensors")


def test_a_checkpoint_whose_keys_do_not_fit_is_refused(
    refused: Refused, workspace: Path, trained: Path
) -> None:
    state = weights_of(trained)
    state["extra.weight"] = state.pop("out.weight")
    save_file(state, workspace / "other.safetensors")
    line = refused(*MEASURE, "--checkpoint", "other.safetensors")
    assert "missing (first: out.weight" in line and "unexpected (first: extra.weight" in line


def test_a_checkpoint_of_another_width_is_refused(refused: Refused, trained: Path) -> None:
    line = refused(
        "measure", "--model", "mlp", "--data", "mixture", "--checkpoint", trained / "average.safetensors"
    )
    assert "of another shape" in line


def test_a_checkpoint_that_would_run_code_is_refused(refused: Refused, workspace: Path) -> None:
    class Bomb:
        def __reduce__(self) -> object:
            return (pytest.fail, ("code from a checkpoint was run",))

    torch.save({"ema": Bomb()}, workspace / "bomb.pt")
    line = refused(*MEASURE, "--checkpoint", "bomb.pt")
    assert "without running code" in line and "two lines of Python convert it" in line


def test_an_index_that_leads_out_of_its_folder_is_refused(refused: Refused, workspace: Path) -> None:
    (workspace / "m.index.json").write_text('{"weight_map": {"out.weight": "../other.safetensors"}}')
    assert "names of files in its own folder" in refused(*MEASURE, "--checkpoint", "m.index.json")


def test_a_header_that_announces_too_much_is_refused(refused: Refused, workspace: Path) -> None:
    header = b'{"a":{"dtype":"F32","shape":[1000000000],"data_offsets":[0,4000000000]}}'
    (workspace / "w.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    assert "a whole .safetensors file" in refused(*MEASURE, "--checkpoint", "w.safetensors")


def test_a_key_without_a_checkpoint_is_refused(refused: Refused) -> None:
    assert "--weights-key: expected --checkpoint beside it" in refused(*MEASURE, "--weights-key", "ema")


def test_a_sketch_beside_an_exact_engine_or_of_no_size_is_refused(refused: Refused) -> None:
    words = "--sketch: expected --engine sketch beside it; got --engine exact"
    assert words in refused(*MEASURE, "--engine", "exact", "--sketch", "8")
    assert "--sketch: expected an integer of at least 1; got 0" in refused(
        *MEASURE, "--engine", "sketch", "--sketch", "0"
    )


# Names


@pytest.mark.parametrize(
    ("arguments", "suggestion"),
    [
        ([*MEASURE, "--schedule", "cosin"], "cosine"),
        ([*MEASURE, "--target", "epsilom"], "epsilon"),
        ([*MEASURE, "--data", "mixtur"], "mixture"),
        ([*MEASURE, "--engine", "exat"], "exact"),
        ([*MEASURE, "--engine", "scetch"], "sketch"),
        ([*MEASURE, "--call", "log_srn"], "log_snr"),
        ([*MEASURE, "--model-option", "widht=3"], "width"),
        ([*MEASURE, "--schedule", "linear_beta", "--schedule-option", "stepz=3"], "steps"),
        (["measure", "--model", "mpl"], "mlp"),
        (["weights", "--rule", "min_snrr", "--target", "v"], "min_snr"),
        (["weights", "--rule", "erd", "--target", "epsilonn"], "epsilon"),
        (["weights", "--rule", "min_snr", "--target", "v", "--option", "gama=5"], "gamma"),
        (["train", *TINY, "--weights", "min_srn:gamma=5", "--out", "out"], "min_snr"),
        (["train", *TINY, "--weights", "refresh:10,scor=gsnr", "--out", "out"], "score"),
        (["train", *TINY, "--weights", "refresh:10,score=gsmr", "--out", "out"], "gsnr"),
        (["train", *TINY, "--preset", "mixtures", "--out", "out"], "mixture"),
        (["train", *TINY, "--setting", "ema_dekay=0.9", "--out", "out"], "ema_decay"),
    ],
)
def test_an_unknown_name_is_answered_with_the_closest(
    refused: Refused, arguments: list[str], suggestion: str
) -> None:
    assert f"Did you mean '{suggestion}'?" in refused(*arguments)


def test_unknown_names_beside_a_diagnosis_too(refused: Refused, measured: Path) -> None:
    assert "Did you mean 'learnability'?" in refused("weights", "--from", measured, "--score", "learnabilty")
    assert "Did you mean 'effective_rank'?" in refused("plot", measured, "--what", "effectiv_rank")
    assert "Did you mean 'light'?" in refused("plot", measured, "--theme", "lihgt")


def test_an_option_that_would_be_ignored_is_refused(refused: Refused, measured: Path) -> None:
    assert "--score: expected nothing beside --rule" in refused(
        "weights", "--rule", "erd", "--target", "v", "--score", "gsnr"
    )
    assert "--target: expected nothing beside --from" in refused(
        "weights", "--from", measured, "--target", "v"
    )
    assert "--rule: expected nothing beside --from" in refused("weights", "--from", measured, "--rule", "erd")
    assert "--samples: expected nothing beside --from" in refused(
        "verify", "--from", measured, "--samples", "9"
    )
    assert "--model: expected nothing beside --from" in refused(
        "verify", "--from", measured, "--model", "mlp"
    )


def test_an_unknown_command_or_option_is_one_line(refused: Refused) -> None:
    assert "mesure" in refused("mesure")
    assert "--bukets" in refused("measure", "--bukets", "3")
    assert "--samples" in refused("measure", "--samples", "many")
    assert "--out" in refused("train", *TINY)
    assert "DIAGNOSIS" in refused("plot")
    assert "--seed" in refused(*MEASURE, "--seed", "-1")


# Buckets and numbers


@pytest.mark.parametrize(
    ("buckets", "word"),
    [
        ("5,0,-5", "increasing"),
        ("-5,-5,0", "increasing"),
        ("0,inf", "finite"),
        ("0,nan", "finite"),
        ("0", "at least 1"),
        ("-3", "at least 1"),
        ("ten", "a count such as 10"),
        ("1,two", "numbers between commas"),
        ("density:0", "at least 1"),
        ("density:", "a count such as 10"),
        ("quantile:5", "density:COUNT"),
    ],
)
def test_buckets_that_cannot_be_are_refused(refused: Refused, buckets: str, word: str) -> None:
    assert word in refused(*MEASURE, "--buckets", buckets)


@pytest.mark.parametrize("span", ["5,-5", "0,0", "1", "1,2,3", "a,b", "0,inf"])
def test_a_range_that_is_none_is_refused(refused: Refused, span: str) -> None:
    assert "range" in refused(*MEASURE, "--range", span)


def test_a_range_says_nothing_beside_edges(refused: Refused) -> None:
    assert "--range" in refused(*MEASURE, "--buckets", "-1,1", "--range", "-2,2")
    assert "--range" in refused(*MEASURE, "--buckets", "density:3", "--range", "-2,2")


@pytest.mark.parametrize("size", ["0", "-1", "2T", "much", ""])
def test_a_memory_that_is_none_is_refused(refused: Refused, size: str) -> None:
    assert "--memory" in refused(*MEASURE, "--memory", size)


@pytest.mark.parametrize("option", ["--model-option", "--schedule-option"])
@pytest.mark.parametrize("value", ["width", "=3", ""])
def test_an_option_without_a_value_is_refused(refused: Refused, option: str, value: str) -> None:
    assert option in refused(*MEASURE, option, value)


@pytest.mark.parametrize(
    "arguments",
    [
        [*MEASURE, "--model-option", "frequencies=many"],
        [*MEASURE, "--schedule", "linear_beta", "--schedule-option", "steps=many"],
        [*MEASURE, "--schedule", "linear_beta", "--schedule-option", "beta_start=x"],
        [*MEASURE, "--schedule", "from_table"],
        [*MEASURE, "--schedule", "from_table", "--schedule-option", "log_snr=1,2,3"],
        [*MEASURE, "--params", "none.*"],
        [*MEASURE, "--device", "abacus"],
        [*MEASURE, "--device", "cuda:77"],
        ["train", *TINY, "--steps", "0", "--out", "out"],
        ["train", *TINY, "--setting", "ema_decay=2", "--out", "out"],
        ["train", *TINY, "--setting", "ema_decay=x", "--out", "out"],
        ["train", *TINY, "--weights", "refresh:often", "--out", "out"],
        ["train", *TINY, "--weights", "refresh:0", "--out", "out"],
        ["train", *TINY, "--weights", "refresh:10,samples=x", "--out", "out"],
        ["train", *TINY, "--weights", "refresh:10,max_change=x", "--out", "out"],
        ["train", *TINY, "--weights", "min_snr:gamma", "--out", "out"],
        ["train", *TINY, "--weights", "min_snr:target=x0", "--out", "out"],
        ["train", *TINY, "--weights", "min_snr:clip=x", "--out", "out"],
        ["train", "--resume", "--force", "--out", "out"],
        ["verify", *TINY, "--buckets", "2"],
        ["weights", "--rule", "erd", "--target", "v", "--option", "name=x"],
        ["weights", "--rule", "erd", "--target", "v", "--option", "clip=x"],
        ["weights", "--rule", "erd", "--target", "v", "--schedule", "edm", "--schedule-option", "p_std=x"],
        ["weights"],
        ["weights", "--rule", "erd"],
        ["weights", "--rule", "erd", "--from", "x"],
        ["weights", "--rule", "min_snr", "--target", "v", "--option", "gamma=-1"],
        ["weights", "--rule", "min_snr", "--target", "v", "--option", "schedule=cosine"],
        ["weights", "--rule", "constant_x0", "--target", "epsilon"],
        ["weights", "--rule", "erd", "--target", "v", "--schedule-option", "steps=10"],
        ["weights", "--rule", "erd", "--target", "v", "--out", "table.txt"],
    ],
)
def test_values_out_of_reach_are_refused(refused: Refused, arguments: list[str]) -> None:
    refused(*arguments)


# Weight tables


@pytest.mark.parametrize(
    ("body", "word"),
    [
        ("log_snr,weight\n-5,1\n0,-0.5\n5,1\n", "row 2, weight"),
        ("log_snr,weight\n-5,1\n0,\n5,1\n", "row 2, weight"),
        ("log_snr,weight\n-5,1\n0,nan\n5,1\n", "row 2, weight"),
        ("log_snr,weight\n-5,1\n0\n5,1\n", "row 2"),
        ("log_snr\n-5\n0\n", "log_snr,weight"),
        ("log_snr,weight\n5,1\n0,1\n", "row 2, log_snr"),
        ("log_snr,weight\n-5,0\n5,0\n", "at least one positive weight"),
    ],
)
def test_a_table_with_negative_or_missing_weights_is_refused(
    refused: Refused, workspace: Path, body: str, word: str
) -> None:
    header = "# format: ntkdiag weight table 1\n# name: mine\n# target: v\n"
    (workspace / "mine.csv").write_text(header + body)
    assert word in refused("train", *TINY, "--weights", "mine.csv", "--out", "out")


def test_a_table_for_another_target_is_refused(refused: Refused, call: Callable[..., object]) -> None:
    call("weights", "--rule", "erd", "--target", "epsilon", "--out", "epsilon.csv")
    assert "epsilon" in refused("train", *TINY, "--weights", "epsilon.csv", "--out", "out")


# Output


COMMANDS = [
    ["measure", *TINY, *QUICKLY],
    ["verify", *TINY, "--buckets", "4", "--samples", "8", "--probes", "2"],
    ["train", *TINY, "--steps", "2"],
    ["demo", "--quick"],
]


@pytest.mark.parametrize("arguments", COMMANDS, ids=lambda arguments: arguments[0])
def test_a_folder_that_holds_another_run_is_refused(
    refused: Refused, workspace: Path, arguments: list[str]
) -> None:
    (workspace / "out").mkdir()
    (workspace / "out" / "training.json").write_text("{}")
    line = refused(*arguments, "--out", "out")
    assert "another run" in line and "--force" in line


@pytest.mark.parametrize("arguments", COMMANDS, ids=lambda arguments: arguments[0])
def test_a_folder_with_other_files_is_refused_even_with_force(
    refused: Refused, workspace: Path, arguments: list[str]
) -> None:
    (workspace / "out").mkdir()
    (workspace / "out" / "thesis.tex").write_text("years of work")
    assert "other files" in refused(*arguments, "--out", "out", "--force")


@pytest.mark.parametrize("arguments", COMMANDS, ids=lambda arguments: arguments[0])
def test_a_path_below_a_file_is_refused(refused: Refused, workspace: Path, arguments: list[str]) -> None:
    (workspace / "file").write_text("")
    assert "file" in refused(*arguments, "--out", "file/out")
    assert "file" in refused(*arguments, "--out", "file")


def test_the_output_is_checked_before_the_work(
    refused: Refused, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*arguments: object, **more: object) -> None:
        raise AssertionError("work was begun")

    monkeypatch.setattr("ntkdiag.data.load", never)
    (workspace / "out").mkdir()
    (workspace / "out" / "demo.json").write_text("{}")
    for arguments in COMMANDS:
        refused(*arguments, "--out", "out")


def test_an_existing_file_is_refused_without_force(refused: Refused, workspace: Path, measured: Path) -> None:
    for name in ("table.csv", "figure.png", "page.html", "samples.npy", "other.png"):
        (workspace / name).write_text("mine")
    assert "--force" in refused("weights", "--rule", "erd", "--target", "v", "--out", "table.csv")
    assert "--force" in refused("plot", measured, "--out", "figure.png")
    assert "--force" in refused("report", measured, "--out", "page.html")
    assert "--force" in refused("sample", *TINY, "--out", "samples.npy")
    assert "other.png" in refused("sample", *TINY, "--out", "other.npy")


def test_an_output_of_an_unknown_type_is_refused(refused: Refused, measured: Path) -> None:
    assert ".csv" in refused("weights", "--rule", "erd", "--target", "v", "--out", "table")
    assert ".png" in refused("plot", measured, "--out", "figure.jpeg")
    assert ".html" in refused("report", measured, "--out", "page.htm")
    assert ".npy" in refused("sample", *TINY, "--out", "samples.npz")


@pytest.mark.parametrize(
    ("arguments", "remedy"),
    [
        (["weights", "--rule", "debias", "--target", "epsilon"], "Bound the weight with --clip"),
        (["weights", "--rule", "debias", "--target", "epsilon"], "or give --no-normalise."),
        (
            ["weights", "--rule", "debias", "--target", "epsilon", "--schedule", "from_table", "--schedule-option",
             "log_snr=3,1,-inf"],
            "--clip",
        ),
        (["audit", "operator:neg", "--target", "flow"], "Pass it, for example --schedule flow."),
        (["audit", "operator:neg", "--target", "v", "--argument", "timesteps"], "for example --schedule linear_beta."),
    ],
)  # fmt: skip
def test_remedies_are_spelt_as_options(refused: Refused, arguments: list[str], remedy: str) -> None:
    line = refused(*arguments)
    assert remedy in line and "=False" not in line and "clip=" not in line and "schedule=" not in line


def test_remedies_beside_a_measurement_are_spelt_as_options(refused: Refused, measured: Path) -> None:
    line = refused("weights", "--from", measured, "--score", "bayes*bayes")
    assert line.endswith("Use --power for powers.\n")


# Names and places


def test_a_name_that_is_too_long_is_reported(refused: Refused) -> None:
    long = "n" * 300 + ".csv"
    assert "File name too long" in refused("weights", "--rule", "erd", "--target", "v", "--out", long)
    assert "File name too long" in refused("audit", long)


def test_a_folder_that_cannot_be_made_is_reported(refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object, **more: object) -> None:
        raise OSError(28, "No space left on device", "a/b")

    monkeypatch.setattr(Path, "mkdir", full)
    line = refused("weights", "--rule", "erd", "--target", "v", "--out", "a/b/c.csv")
    assert line == "error: a/b/c.csv: expected a path in a writable folder; got No space left on device.\n"


def test_a_device_that_holds_no_numbers_is_refused(refused: Refused) -> None:
    assert "--device: expected a device this machine has" in refused("measure", *TINY, "--device", "meta")


def test_a_very_long_word_is_not_repeated_in_full(refused: Refused) -> None:
    assert len(refused("weights", "x" * 100_000)) < 4000


def test_a_terminal_without_greek_gets_escapes(workspace: Path) -> None:
    call = "import sys; from ntkdiag.cli import main; sys.exit(main())"
    for arguments in (["audit", "--help"], ["weights", "--rule", "erd", "--target", "v"]):
        done = subprocess.run(
            [sys.executable, "-c", call, *arguments],
            env={**os.environ, "PYTHONIOENCODING": "ascii"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0 and done.stderr == ""
    assert "\\u2588" in done.stdout  # a full block of the text plot
