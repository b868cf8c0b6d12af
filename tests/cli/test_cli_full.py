"""measure --kernel full, and what is drawn of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ntkdiag.cli import main
from ntkdiag.cli.commands.measure import FullOptions, full_settings
from ntkdiag.diagnosis import Diagnosis, FullSettings
from ntkdiag.report import FIGURES
from ntkdiag.report.page import page

QUICKLY = ["--buckets", "2", "--samples", "8", "--probes", "2"]
FULL = ["--kernel", "full", "--top-k", "3", "--slq", "2"]
ALONE = ["--controls", "0"]


@pytest.fixture(scope="module")
def measured_full(trained: Path) -> Path:
    folder = trained.parent / "full"
    assert main(["measure", "--model", str(trained), *QUICKLY, *FULL, "--out", str(folder), "--json"]) == 0
    return folder


def test_a_second_table_has_a_line_a_bucket(call: Any, workspace: Path, trained: Path) -> None:
    result = call("measure", "--model", trained, *QUICKLY, *FULL, "--out", "diag")
    assert result.code == 0 and result.err == ""
    full = Diagnosis.load("diag").full
    assert full is not None
    lines = result.out.splitlines()
    start = next(
        place for place, line in enumerate(lines) if line.startswith("Full kernel, 16 × 16 a bucket")
    )
    said = " ".join(result.out.split())
    assert (
        f"top 3 eigenfunctions, {full.summary['products'].sum():,} products" in said and "target in 3" in said
    )
    start = next(place for place in range(start, len(lines)) if lines[place].startswith("log-SNR"))
    rows = lines[start + 2 : start + 4]
    assert [row.split()[0] for row in rows] == ["−6.5", "6.5"]
    for row, trace in zip(rows, full.summary["trace"], strict=True):
        assert float(row.split()[1]) == pytest.approx(trace, rel=0.01)
    assert "did not converge" not in result.out


def test_eigenpairs_that_did_not_converge_are_reported(measured_full: Path) -> None:
    from ntkdiag.cli.output.tables import full_text

    diagnosis = Diagnosis.load(measured_full)
    assert diagnosis.full is not None
    diagnosis.full.summary.loc[1, "converged"] = False
    assert "did not converge: at log-SNR 6.5;" in full_text(diagnosis)


def test_json_has_both_kernels(call: Any, workspace: Path, trained: Path) -> None:
    document = call("measure", "--model", trained, *QUICKLY, *FULL, *ALONE, "--json").document
    assert len(document["summary"]) == len(document["full"]["summary"]) == 2
    assert [row["index"] for row in document["full"]["spectra"]] == [1, 2, 3, 1, 2, 3]
    assert document["meta"]["config"]["full"]["top_k"] == 3
    assert "full" not in call("measure", "--model", trained, *QUICKLY, "--json").document


def test_the_control_is_measured_unless_it_is_left_out(
    call: Any, workspace: Path, trained: Path, measured_full: Path
) -> None:
    assert Diagnosis.load(measured_full).refs["untrained"].full is not None
    assert call("measure", "--model", trained, *QUICKLY, *FULL, *ALONE, "--out", "d").code == 0
    alone = Diagnosis.load("d")
    assert alone.full is not None and alone.refs == {}


def test_no_vectors_mean_no_density(call: Any, workspace: Path, trained: Path) -> None:
    assert call("measure", "--model", trained, *QUICKLY, *FULL, "--slq", "0", *ALONE, "--out", "d").code == 0
    full = Diagnosis.load("d").full
    assert full is not None and full.density.empty and "effective_rank" not in full.summary
    assert "--slq" in call("plot", "d", "--what", "full_density").err


def test_options_become_settings() -> None:
    assert full_settings(FullOptions()) is None
    assert full_settings(FullOptions(kernel="full")) == FullSettings()
    given = full_settings(FullOptions(kernel="full", top_k=5, slq=0))
    assert given == FullSettings(top_k=5, quadrature_vectors=0)


def test_help_tells_the_defaults(call: Any) -> None:
    text = " ".join(call("measure", "--help").out.split())
    assert f"[default: ({FullSettings().top_k})]" in text
    assert f"[default: ({FullSettings().quadrature_vectors})]" in text


def test_bad_requests_are_refused_in_a_line(refused: Any, trained: Path) -> None:
    measure = ["measure", "--model", trained, *QUICKLY]
    assert "Did you mean 'full'?" in refused(*measure, "--kernel", "ful")
    assert "--top-k: expected nothing beside --kernel trace; got 3" in refused(*measure, "--top-k", "3")
    assert "--slq: expected nothing beside --kernel trace" in refused(*measure, "--slq", "0")
    full = [*measure, "--kernel", "full"]
    assert "--top-k: expected an integer of at least 1; got 0" in refused(*full, "--top-k", "0")
    assert "--slq: expected an integer of at least 0; got -1" in refused(*full, "--slq", "-1")
    assert "at most the 16 rows of the full kernel; got 17" in refused(*full, "--top-k", "17")
    assert "params: expected none beside the full kernel" in refused(*full, "--params", "out.*")


def test_figures_and_page_are_written(
    call: Any, workspace: Path, measured_full: Path, measured: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("full_density", "alignment"):
        assert call("plot", measured_full, "--what", name).code == 0
        assert (workspace / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert "shape [2]" in call("plot", measured_full, "--what", "eigenfunctions").err
    without = call("plot", measured, "--what", "contraction", "--out", "a.png")
    assert without.code == 2 and "Measure with --kernel full." in without.err
    monkeypatch.setattr(page, "FIGURES", {name: FIGURES[name] for name in ("contraction", "eigenfunctions")})
    assert call("report", measured_full, "--out", "page.html").code == 0
    text = (workspace / "page.html").read_text()
    assert "What the full kernel adds" in text and "expected outputs that are images" in text
