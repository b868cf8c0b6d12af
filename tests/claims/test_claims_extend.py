"""The promise: a claim is one decorated function in one file, and verdicts, command line, JSON and page show it."""

from __future__ import annotations

import json
import runpy
from collections.abc import Iterator
from pathlib import Path

import pytest
from claims_cases import along, levels, reach, simulate

import ntkdiag as nd
from ntkdiag.claims import CLAIMS, claim, judge
from ntkdiag.cli import main
from ntkdiag.errors import InputError

EXAMPLE = Path(__file__).parents[2] / "docs" / "extend" / "claim.py"
STATEMENT = "The stable rank falls where the target is less recoverable."


@pytest.fixture
def example() -> Iterator[None]:
    """The claim of the example, registered during one test."""
    runpy.run_path(str(EXAMPLE))
    yield
    del CLAIMS["C4"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved diagnosis of a small network."""
    network = nd.models.build("mlp", (2,), seed=0, width=8, depth=1, frequencies=2)
    denoiser = nd.Denoiser(network, nd.schedules.cosine(), "v", call="log_snr")
    data, buckets = nd.data.mixture(train=64, held_out=4), nd.Buckets.uniform(-8, 8, count=4)
    path = tmp_path_factory.mktemp("claims") / "diagnosis"
    nd.measure(denoiser, data, buckets, samples=8, probes=1).save(path)
    return path


@pytest.mark.usefixtures("example")
def test_its_verdict_follows_what_is_planted() -> None:
    ordering = reach("v", levels())
    falling = judge(simulate("v", flatness=along(ordering, 0.4, 0.9))).iloc[-1]
    rising = judge(simulate("v", flatness=along(ordering, 0.9, 0.4))).iloc[-1]
    assert (falling["claim"], falling["statement"], falling["verdict"]) == ("C4", STATEMENT, "supported")
    assert rising["verdict"] == "contradicted"


@pytest.mark.usefixtures("example")
def test_the_command_line_and_its_json_show_it(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "--from", str(folder)]) == 0
    printed = capsys.readouterr().out
    assert "C4" in printed and STATEMENT in printed
    assert main(["verify", "--from", str(folder), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["verdicts"]
    assert [row["claim"] for row in rows] == ["C1", "C2", "C3", "C4"]
    assert rows[3]["statement"] == STATEMENT and "stable rank: ×" in rows[3]["note"]


@pytest.mark.usefixtures("example")
def test_the_page_has_a_card_for_it(folder: Path, tmp_path: Path) -> None:
    assert main(["report", str(folder), "--out", str(tmp_path / "page.html")]) == 0
    page = (tmp_path / "page.html").read_text()
    assert page.count('<article class="verdict ') == 4 and STATEMENT in page


def test_without_it_there_are_the_claims_of_the_paper() -> None:
    assert list(CLAIMS) == ["C1", "C2", "C3"]
    assert judge(simulate("v"))["claim"].tolist() == ["C1", "C2", "C3"]


def test_the_example_runs_and_prints_four_verdicts(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        runpy.run_path(str(EXAMPLE), run_name="__main__")
    finally:
        CLAIMS.pop("C4", None)
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == [
        "claim",
        "C1",
        "C2",
        "C3",
        "C4",
    ]


def test_a_name_that_is_taken_is_refused() -> None:
    words = "claim 'C2': expected a name that no other claim has; got the name of: The kernel loses effective rank"
    with pytest.raises(InputError, match=words):
        claim("C2", "Something else.", reads=["trace"])
