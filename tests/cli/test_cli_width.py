"""What commands print fits 80 columns where there is no terminal: tables are cut, text is wrapped; paths stay whole."""

from __future__ import annotations

from pathlib import Path

import pytest

import ntkdiag as nd
from ntkdiag.cli import main
from ntkdiag.report.tables import Table


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("width")
    train = [
        "train",
        "--data",
        "digits",
        "--model",
        "dit",
        "--model-option",
        "width=16",
        "--model-option",
        "depth=1",
    ]
    assert main([*train, "--steps", "4", "--batch", "8", "--out", str(folder / "run")]) == 0
    measure = [
        "measure",
        "--model",
        str(folder / "run"),
        "--samples",
        "90",
        "--probes",
        "3",
        "--buckets",
        "6",
    ]
    assert main([*measure, "--by", "label", "--out", str(folder / "measured")]) == 0
    return folder


def too_wide(text: str) -> list[str]:
    return [line for line in text.splitlines() if len(line) > 80 and "/" not in line]


@pytest.mark.parametrize(
    "command",
    [
        [
            "measure",
            "--model",
            "{run}",
            "--samples",
            "90",
            "--probes",
            "3",
            "--buckets",
            "6",
            "--by",
            "label",
        ],
        [
            "measure",
            "--model",
            "{run}",
            "--samples",
            "2",
            "--buckets",
            "2",
            "--kernel",
            "full",
            "--top-k",
            "2",
        ],
        ["verify", "--from", "{measured}"],
        ["weights", "--from", "{measured}", "--score", "bayes"],
        ["weights", "--rule", "erd", "--target", "v"],
        ["audit", "{function}:weight", "--target", "v", "--rule", "min_snr", "--option", "gamma=5"],
        ["sample", "--model", "{run}", "--count", "4", "--steps", "2", "--out", "{out}"],
        ["demo", "--quick", "--out", "{demo}"],
    ],
    ids=lambda command: " ".join(command[:2]),
)
def test_nothing_is_wider_than_80_columns(
    command: list[str],
    run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    function = tmp_path / "mine.py"
    function.write_text("def weight(snr):\n    return snr.clamp(max=5) / (snr + 1)\n")
    places = {
        "function": function,
        "run": run / "run",
        "measured": run / "measured",
        "out": tmp_path / "drawn.npy",
        "demo": tmp_path / "demo",
    }
    assert main([part.format(**places) for part in command]) in (0, 1)
    printed = capsys.readouterr()
    assert printed.out.strip()
    assert not too_wide(printed.out)
    assert not too_wide(printed.err)


def test_a_wide_terminal_gets_the_whole_table(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["measure", "--model", str(run / "run"), "--samples", "8", "--buckets", "2"]) == 0
    heads = [line for line in capsys.readouterr().out.splitlines() if line.startswith("log-SNR")]
    assert len(heads) == 1 and "trace" in heads[0] and "loss" in heads[0]


def test_a_table_is_cut_between_columns_and_keeps_its_first() -> None:
    table = Table(("a", "long heading", "b", "c"), (("1", "2", "3", "4"),))
    assert table.as_text(17).splitlines() == [
        "a  long heading",
        "─" * 15,
        "1             2",
        "",
        "a  b  c",
        "─" * 7,
        "1  3  4",
    ]
    assert table.as_text(3).count("a") == 4  # each column by itself, however narrow the line
    assert nd.report.summary_table is not None
