"""Weight tables on disk: bit-exact both ways, and every way a file can be wrong is told in one line."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ntkdiag.errors import InputError
from ntkdiag.process import schedules
from ntkdiag.weights import WeightTable, rule

SUFFIXES = (".csv", ".json")


def tensor(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def measured() -> WeightTable:
    return WeightTable(
        tensor(-2.0, 0.1 + 0.2, 1.0),
        tensor(1 / 3, 5e-324, 1e300),
        "v",
        name='measured gsnr: 100 % ε, # and "quotes"',
        low=tensor(0.1, 0.0, 1e299),
        high=tensor(0.5, 1.0, 2e300),
        meta={"source": "measured", "note": "a\nb, c", "nested": {"deep": [1, 2.5, None, True]}},
    )


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_measured_table_reads_back_bit_by_bit(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"weights{suffix}"
    made = measured()
    made.save(path)
    read = WeightTable.load(path)
    for column in ("log_snr", "weight", "low", "high"):
        assert torch.equal(getattr(read, column), getattr(made, column))
    assert (read.name, read.target, dict(read.meta), read.rule) == (made.name, "v", dict(made.meta), None)
    read.save(tmp_path / f"again{suffix}")
    assert (tmp_path / f"again{suffix}").read_bytes() == path.read_bytes()


@settings(max_examples=30, deadline=None)
@given(
    values=st.lists(st.floats(0, allow_nan=False, allow_infinity=False), min_size=2, max_size=6).filter(any)
)
def test_any_weights_read_back_bit_by_bit(
    values: list[float], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("weights") / "weights.csv"
    made = WeightTable(torch.arange(len(values), dtype=torch.float64), tensor(*values), "x0")
    made.save(path)
    assert torch.equal(WeightTable.load(path).weight, made.weight)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    ("name", "target", "path", "more"),
    [
        ("min_snr", "v", schedules.cosine(), {"gamma": 3.0}),
        ("sigmoid", "epsilon", schedules.linear_log_snr(-9, 9), {"bias": 1.0}),
        ("erd", "F", schedules.edm(sigma_data=0.7), {"convention": "raw"}),
        ("debias", "epsilon", schedules.from_table([4.0, 1.0, -math.inf]), {"clip": 9.0}),
        ("sigmoid", "v", schedules.from_table([4.0, 1.0, -2.0]), {}),
    ],
)
def test_a_rule_reads_back_as_a_rule(
    suffix: str, name: str, target: str, path: schedules.Schedule, more: dict, tmp_path: Path
) -> None:
    file = tmp_path / f"weights{suffix}"
    made = rule(name, target, path, **more)
    made.save(file)
    read = WeightTable.load(file)
    between = tensor(-1.987, 0.123, 3.21)
    assert read.rule == made.rule
    assert torch.equal(read(between), made(between))
    assert torch.equal(read.weight, made.weight)


def test_a_csv_is_one_that_pandas_and_people_can_read(tmp_path: Path) -> None:
    import pandas as pd

    path = tmp_path / "weights.csv"
    made = rule("min_snr", "v", schedules.linear_log_snr())
    made.save(path)
    lines = path.read_text().splitlines()
    assert lines[:3] == ["# format: ntkdiag weight table 1", "# name: min_snr(gamma=5)", "# target: v"]
    frame = pd.read_csv(path, comment="#")
    assert list(frame.columns) == ["log_snr", "weight"]
    assert len(frame) == len(made.weight)


def test_saving_leaves_no_scraps_and_replaces_whole_files(tmp_path: Path) -> None:
    path = tmp_path / "weights.csv"
    path.write_text("old")
    measured().save(path)
    assert [file.name for file in tmp_path.iterdir()] == ["weights.csv"]
    assert path.read_text().startswith("# format")


def test_other_suffixes_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    for call in (measured().save, WeightTable.load):
        with pytest.raises(
            InputError, match=r"suffix of .*weights\.pkl: expected one of \.csv, \.json; got '\.pkl'"
        ):
            call(tmp_path / "weights.pkl")
    with pytest.raises(InputError, match="writable folder"):
        measured().save(tmp_path / "missing" / "weights.csv")
    bad = WeightTable(tensor(0.0, 1.0), tensor(1.0, 1.0), "v", meta={"x": math.nan})
    for suffix in SUFFIXES:
        with pytest.raises(InputError, match=r"meta of .*: expected values JSON can hold"):
            bad.save(tmp_path / f"bad{suffix}")
    assert not list(tmp_path.iterdir())


HEAD = "# format: ntkdiag weight table 1\n# name: mine\n# target: v\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (HEAD + "log_snr,weight\n0,1\n1,x\n", r"row 2, weight: expected a number; got 'x'"),
        (HEAD + "log_snr,weight\n0,1\n1\n", r"row 2: expected 2 values; got 1"),
        (HEAD + "log_snr,weight\n0,1\n1,\n", r"row 2, weight: expected a number; got ''"),
        (
            HEAD + "log_snr,weight\n0,1\n1,nan\n",
            r"weights\.csv, row 2, weight: expected a finite number; got nan",
        ),
        (
            HEAD + "log_snr,weight\n0,-1\n1,1\n",
            r"weights\.csv, row 1, weight: expected a number ≥ 0; got -1\.0",
        ),
        (HEAD + "log_snr,weight\n1,1\n0,1\n", r"weights\.csv, row 2, log_snr: expected a larger log-SNR"),
        (HEAD + "log_snr,weight\n0,1\n", r"weights\.csv: expected at least 2 rows; got 1"),
        (HEAD + "log_snr\n0\n1\n", r"expected the columns log_snr,weight .*; got log_snr"),
        (HEAD + "snr,weight\n0,1\n1,1\n", r"expected the columns log_snr,weight .*; got snr,weight"),
        (HEAD + "log_snr,weight,low\n0,1,1\n1,1,1\n", r"expected the columns"),
        (HEAD, r"expected the columns .*; got none"),
        ("", r"expected the columns"),
        ("log_snr,weight\n0,1\n1,1\n", r"format: expected field required; got nothing"),
        (
            HEAD.replace("table 1", "table 9") + "log_snr,weight\n0,1\n1,1\n",
            r"format: expected .*table 1.*table 9",
        ),
        (
            HEAD.replace("target: v", "target: w") + "log_snr,weight\n0,1\n1,1\n",
            r"target: expected one of epsilon",
        ),
        (HEAD + "# meta: {broken\nlog_snr,weight\n0,1\n1,1\n", r"line '# meta:': expected JSON"),
        (
            HEAD + "# meta: [1]\nlog_snr,weight\n0,1\n1,1\n",
            r"line '# meta:': expected a JSON object; got list",
        ),
        (
            HEAD + '# rule: {"rule": "min_snr"}\nlog_snr,weight\n0,1\n1,1\n',
            r"rule parameters: expected field required",
        ),
    ],
)
def test_a_broken_csv_is_told_by_row(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=words) as caught:
        WeightTable.load(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"weight": [1.0, "2", 3.0]}, r"row 2 weight: expected .*number; got '2'"),
        ({"weight": [1.0, None, 3.0]}, r"row 2 weight: .*got None"),
        ({"weight": [1.0, 2.0]}, r"weight: expected 3 values"),
        ({"weight": None}, r"weight: .*list.*got None"),
        ({"surprise": 1}, r"surprise: expected extra inputs are not permitted; got 1"),
        ({"name": 3}, r"name: .*string.*got 3"),
        ({"low": [0.0, 0.0, 0.0]}, r"both of low and high, or neither"),
        (
            {"rule": {"rule": "min_snr", "parameters": {}, "clip": None, "schedule": {}, "scale": 1.0}},
            "a schedule has a name",
        ),
        (
            {"rule": {"rule": "nope", "parameters": {}, "clip": None, "schedule": None, "scale": 1.0}},
            "rule: expected one of",
        ),
        (
            {"rule": {"rule": "min_snr", "parameters": {}, "clip": None, "schedule": None, "scale": 0.0}},
            "scale of a rule",
        ),
        (
            {
                "rule": {
                    "rule": "min_snr",
                    "parameters": {"gamma": "five"},
                    "clip": None,
                    "schedule": None,
                    "scale": 1.0,
                }
            },
            "gamma of rule 'min_snr'",
        ),
        (
            {
                "rule": {
                    "rule": "sigmoid",
                    "parameters": {},
                    "clip": None,
                    "schedule": {"name": "flow", "speed": 3},
                    "scale": 1.0,
                }
            },
            "parameter of schedule flow",
        ),
    ],
)
def test_a_broken_json_is_told_by_place(change: dict, words: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.json"
    sound = {
        "format": "ntkdiag weight table 1",
        "name": "mine",
        "target": "v",
        "log_snr": [0.0, 1.0, 2.0],
        "weight": [1.0, 2.0, 3.0],
    }
    path.write_text(json.dumps(sound))
    assert WeightTable.load(path)(1.0).item() == 2.0
    path.write_text(json.dumps({**sound, **change}))
    with pytest.raises(InputError, match=words) as caught:
        WeightTable.load(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_that_was_edited_by_hand_is_not_taken_for_its_rule(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"weights{suffix}"
    made = rule("min_snr", "v", schedules.linear_log_snr())
    made.save(path)
    path.write_text(path.read_text().replace(repr(made.weight[7].item()), "0.5"))
    with pytest.raises(
        InputError, match=r"weights\.\w+, row 8, weight: .*got 0\.5, so the table was edited by hand"
    ):
        WeightTable.load(path)


def test_a_changed_parameter_is_an_edit_too(tmp_path: Path) -> None:
    path = tmp_path / "weights.csv"
    rule("min_snr", "v", schedules.linear_log_snr()).save(path)
    path.write_text(path.read_text().replace('"gamma": 5.0', '"gamma": 6.0'))
    with pytest.raises(InputError, match="edited by hand"):
        WeightTable.load(path)


def test_without_its_rule_line_the_numbers_stand_for_themselves(tmp_path: Path) -> None:
    path = tmp_path / "weights.csv"
    made = rule("min_snr", "v", schedules.linear_log_snr())
    made.save(path)
    path.write_text(
        "\n".join(line for line in path.read_text().splitlines() if not line.startswith("# rule:"))
    )
    read = WeightTable.load(path)
    assert read.rule is None and torch.equal(read.weight, made.weight)


def test_files_that_are_no_tables_at_all(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"missing\.csv: expected a readable file; got No such file"):
        WeightTable.load(tmp_path / "missing.csv")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(InputError, match="readable file"):
        WeightTable.load(tmp_path / "folder.csv")
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="UTF-8"):
        WeightTable.load(tmp_path / "bytes.json")
    (tmp_path / "deep.json").write_text("[" * 100_000)
    with pytest.raises(InputError, match="JSON"):
        WeightTable.load(tmp_path / "deep.json")


def test_windows_line_ends_and_blank_lines_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "weights.csv"
    measured().save(path)
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n") + b"\r\n\r\n")
    assert torch.equal(WeightTable.load(path).weight, measured().weight)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("digits.json", '{"log_snr": [' + "9" * 5000 + "]}", "expected JSON; got Exceeds the limit"),
        (
            "digits.csv",
            HEAD + '# meta: {"a": ' + "9" * 5000 + "}\nlog_snr,weight\n0,1\n1,1\n",
            "meta:': expected JSON",
        ),
        ("cell.csv", HEAD + "log_snr,weight\n0," + "1" * 140_000 + "\n1,1\n", "CSV table; got field larger"),
        (
            "memory.json",
            json.dumps(
                {
                    "format": "ntkdiag weight table 1",
                    "name": "mine",
                    "target": "v",
                    "rule": {
                        "rule": "sigmoid",
                        "parameters": {"bias": 0.0},
                        "clip": None,
                        "schedule": {"name": "linear_beta", "steps": 10**10},
                        "scale": 1.0,
                    },
                    "log_snr": [0.0, 1.0],
                    "weight": [1.0, 1.0],
                }
            ),
            "linear_beta steps: expected at most 1,000,000",
        ),
    ],
)
def test_more_than_anybody_writes_is_refused_in_a_line(
    name: str, text: str, words: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=words) as caught:
        WeightTable.load(tmp_path / name)
    assert len(str(caught.value)) < 2500


def test_the_mark_that_spreadsheets_put_first_does_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "weights.csv"
    measured().save(path)
    path.write_bytes("\ufeff".encode() + path.read_bytes())
    assert torch.equal(WeightTable.load(path).weight, measured().weight)


def test_a_table_on_a_thousand_steps_is_a_small_file_that_names_them(tmp_path: Path) -> None:
    levels = torch.linspace(7, -5, 1000, dtype=torch.float64)
    path, other = schedules.from_table(levels), schedules.from_table(levels + 1e-9)
    grid, weight = torch.tensor([-4.0, 0.0, 4.0]), torch.tensor([1.0, 2.0, 3.0])
    record = {"diagnosis": {"config": {"target": "v"}}}
    made = WeightTable(grid, weight, "v", meta=record).normalised(path)
    kept = made.meta["normalised"]["schedule"]
    assert (kept["name"], kept["steps"], kept["first"], kept["last"]) == ("from_table", 1000, 7.0, -5.0)
    again = WeightTable(grid, weight, "v").normalised(other)
    assert kept["digest"] != again.meta["normalised"]["schedule"]["digest"]
    for suffix in (".csv", ".json"):
        file = tmp_path / f"weights{suffix}"
        made.save(file)
        assert file.stat().st_size < 1500
        loaded = WeightTable.load(file)
        assert torch.equal(loaded.weight, made.weight) and loaded.meta == made.meta


def test_a_file_that_holds_all_steps_in_its_record_is_still_read(tmp_path: Path) -> None:
    path = schedules.from_table(torch.linspace(7, -5, 1000))
    meta = {"normalised": {"schedule": path.describe(), "mean_before": 1.0}}
    WeightTable(torch.tensor([-4.0, 4.0]), torch.tensor([1.0, 2.0]), "v", meta=meta).save(
        tmp_path / "old.csv"
    )
    assert WeightTable.load(tmp_path / "old.csv").meta == meta


def test_a_rule_that_depends_on_a_thousand_steps_holds_them_once(tmp_path: Path) -> None:
    path = schedules.from_table(torch.linspace(7, -5, 1000, dtype=torch.float64))
    made = rule("constant_epsilon", "flow", path)
    made.save(tmp_path / "rule.json")
    text = (tmp_path / "rule.json").read_text()
    assert text.count("6.987987987987988") == 1  # the second step
    levels = torch.tensor([-4.3, 0.2, 6.9])
    torch.testing.assert_close(WeightTable.load(tmp_path / "rule.json")(levels), made(levels), rtol=0, atol=0)
