"""`ntkdiag drift`: from a run that kept weights to tables, a figure and a page."""

from __future__ import annotations

import html
import json
from pathlib import Path

import pytest

import ntkdiag as nd
from ntkdiag.cli import main
from ntkdiag.cli.inputs.loading import load
from ntkdiag.cli.options.shared import ModelOptions
from ntkdiag.report import FIGURES
from ntkdiag.report.page import page as built
from ntkdiag.trust.examination import TABLES, Examination

SMALL = ["--level", "quick", "--buckets", "3"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("drift") / "run"
    network = [
        "--model",
        "mlp",
        "--model-option",
        "width=8",
        "--model-option",
        "depth=1",
        "--data",
        "mixture",
    ]
    code = main(
        ["train", *network, "--steps", "4", "--batch", "8", "--setting", "keep_every=2", "--out", str(out)]
    )
    assert code == 0
    return out


def test_tables_a_figure_and_a_page(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "trust"
    assert main(["drift", str(run), *SMALL, "--out", str(out)]) == 0
    printed = capsys.readouterr()
    for words in (
        "How many steps the kernel describes",
        "How it changed in training",
        "What the features do",
    ):
        assert words in printed.out
    assert "training steps of batch 128" in printed.err
    assert max(len(line) for line in printed.out.splitlines() if not line.startswith("Written")) <= 80
    names = {path.name for path in out.iterdir()}
    assert names == {f"{name}.csv" for name in TABLES} | {"trust.json", "drift.png"}
    sizes = ["--buckets", "3", "--samples", "8", "--controls", "0"]
    assert main(["measure", "--model", str(run), *sizes, "--out", str(tmp_path / "d")]) == 0
    page = tmp_path / "page.html"
    monkeypatch.setattr(
        built, "FIGURES", {"output_rank": FIGURES["output_rank"]}
    )  # one figure takes less time
    assert main(["report", str(tmp_path / "d"), "--trust", str(out), "--out", str(page)]) == 0
    text = page.read_text()
    assert "How far to trust this" in text and text.count("This kernel describes") == 2
    assert "was not measured: 'ntkdiag drift" not in text  # beside the verdicts stands what the folder says
    capsys.readouterr()
    assert main(["verify", "--from", str(tmp_path / "d"), "--trust", str(out)]) == 0
    said = Examination.load(out).step_range
    assert said in " ".join(capsys.readouterr().out.split()) and said in html.unescape(text)
    assert said in json.loads((out / "trust.json").read_text())["said"]["linearity"]
    both = ["--from", str(tmp_path / "d"), "--from", str(run)]
    assert main(["verify", *both, "--trust", str(out)]) == 2
    assert "--trust: expected one network; got 2 folders of --from" in capsys.readouterr().err


def test_verify_of_a_run_measures_how_long_its_kernel_holds(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = ["--buckets", "3", "--samples", "8", "--controls", "0", "--level", "quick"]
    assert main(["verify", "--model", str(run), *sizes, "--out", str(tmp_path / "v"), "--json"]) == 0
    printed = capsys.readouterr()
    said = json.loads(printed.out)["step_range"]
    found = nd.trust.linearization(*_network_and_data(run), run, buckets=3, level="quick")
    assert said == found.step_range and "AdamW as at step 4 of the run, batch 8" in said
    assert "describes costs about as much as" in printed.err
    diagnosis = tmp_path / "v" / "diagnosis"
    assert main(["verify", "--from", str(diagnosis)]) == 0  # it stays with the measurement
    assert said in " ".join(capsys.readouterr().out.split())
    assert json.loads((tmp_path / "v" / "verdicts.json").read_text())["text"].endswith(said)


def _network_and_data(run: Path) -> tuple[nd.Denoiser, nd.data.Data]:
    loaded = load(ModelOptions(model=str(run)))
    return loaded.denoiser, loaded.data


def test_one_json_document(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["drift", str(run), *SMALL, "--modules", "layers.*", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert set(document["tables"]) == set(TABLES) and document["level"] == "quick"
    assert {row["module"] for row in document["tables"]["features"]} == {"layers.0", ""}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere"], "RUN: expected a folder written by 'ntkdiag train'"),
        (["{run}", "--level", "fast"], "quick, standard, thorough"),
        (["{run}", "--modules", "nothing.*"], "names of modules"),
        (["{run}", "--buckets", "0"], "--buckets"),
        (["{run}", "--out", "{run}"], "holds another run"),
        (["{empty}"], "a folder with a training run in it"),
    ],
)
def test_bad_input_is_one_line(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    given = [text.format(run=run, empty=tmp_path) for text in arguments]
    assert main(["drift", *given]) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert len(errors) == 1 and words in errors[0]
    assert sorted(path.name for path in tmp_path.iterdir()) == []
