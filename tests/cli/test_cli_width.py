"""What commands print fits 80 columns where there is no terminal: tables are cut, text is wrapped; paths stay whole."""

from __future__ import annotations

import io
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest

import ntkdiag as nd
from ntkdiag.cli import main
from ntkdiag.report.tables import Table

TRAIN = "train --data digits --model dit --model-option width=16 --model-option depth=1 --steps 4 --batch 8 --out {}/run"
MEASURE = (
    "measure --model {0}/run --samples 90 --probes 2 --buckets 6 --controls 1 --by label --out {0}/measured"
)


@dataclass(frozen=True)
class Measured:
    """A small training run, a diagnosis of it by class, and what measuring it printed."""

    folder: Path
    out: str
    err: str


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Measured:
    folder = tmp_path_factory.mktemp("width")
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.delenv("COLUMNS", raising=False)
        assert main(TRAIN.format(folder).split()) == 0
        assert main(MEASURE.format(folder).split()) == 0
    return Measured(folder, out.getvalue(), err.getvalue())


def too_wide(text: str) -> list[str]:
    return [line for line in text.splitlines() if len(line) > 80 and "/" not in line]


def test_training_and_results_by_class_fit_80_columns(run: Measured) -> None:
    assert "By class" in run.out
    assert not too_wide(run.out)
    assert not too_wide(run.err)


@pytest.mark.parametrize(
    "command",
    [
        "measure --model {trained} --samples 2 --buckets 2 --controls 1 --kernel full --top-k 2",
        "verify --from {measured}",
        "weights --from {measured} --score bayes",
        "weights --rule erd --target v",
        "audit {function}:weight --target v --rule min_snr --option gamma=5",
        "sample --model {run} --count 4 --steps 2 --out {out}",
        "demo --quick --out {demo}",
    ],
    ids=lambda command: " ".join(command.split()[:2]),
)
def test_nothing_is_wider_than_80_columns(
    command: str,
    run: Measured,
    trained: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    # Figures and page print nothing, and take most of the time of a small demo.
    monkeypatch.setattr("ntkdiag.report.save_figures", lambda *arguments, **parts: {})
    monkeypatch.setattr("ntkdiag.report.write_page", lambda path, *arguments, **parts: path)
    function = tmp_path / "mine.py"
    function.write_text("def weight(snr):\n    return snr.clamp(max=5) / (snr + 1)\n")
    places = {
        "function": function,
        "trained": trained,
        "run": run.folder / "run",
        "measured": run.folder / "measured",
        "out": tmp_path / "drawn.npy",
        "demo": tmp_path / "demo",
    }
    assert main([part.format(**places) for part in command.split()]) in (0, 1)
    printed = capsys.readouterr()
    assert printed.out.strip()
    assert not too_wide(printed.out)
    assert not too_wide(printed.err)


def test_a_wide_terminal_gets_the_whole_table(
    run: Measured, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["measure", "--model", str(run.folder / "run"), "--samples", "8", "--buckets", "2"]) == 0
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
