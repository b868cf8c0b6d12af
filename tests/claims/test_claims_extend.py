"""The promise: a claim is one decorated function in one file, and the answer, command line, JSON and page show it."""

from __future__ import annotations

import json
import runpy
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from claims_cases import levels, simulate

import ntkdiag as nd
from ntkdiag.claims import CLAIMS, Answer, Evidence, claim, described, falls, untestable, verify
from ntkdiag.cli import main
from ntkdiag.errors import InputError

EXAMPLE = Path(__file__).parents[2] / "docs" / "extend" / "claim.py"
STATEMENT = "The stable rank falls where the target is less recoverable."
NOISY = levels() < -4


@pytest.fixture
def example() -> Iterator[None]:
    """The claim of the example, registered during one test."""
    runpy.run_path(str(EXAMPLE))
    yield
    del CLAIMS["C8"]


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
def test_its_answer_follows_what_is_planted() -> None:
    falling = verify(simulate(flatness=np.where(NOISY, 0.3, 0.8), samples=64, shared=0.9))
    row = falling.answers.iloc[-1]
    assert (row["claim"], row["statement"], row["noisy"]) == ("C8", STATEMENT, "falls")
    assert row["text"].startswith("Stable rank: ×0.") and "(falls)" in row["text"]
    rising = verify(simulate(flatness=np.where(NOISY, 0.8, 0.3), samples=64, shared=0.9))
    assert rising.answers.iloc[-1]["noisy"] == "rises"
    assert "20 effects" in rising.method  # its statistic widens the limits of all others


@pytest.mark.usefixtures("example")
def test_the_command_line_and_its_json_show_it(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "--from", str(folder)]) == 0
    printed = capsys.readouterr().out
    assert "C8  cannot say" in printed and STATEMENT in " ".join(printed.split())
    assert main(["verify", "--from", str(folder), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["answers"]
    assert [row["claim"] for row in rows] == ["C1", "C2", "C3", "C4", "C5", "C6", "C8"]
    assert rows[-1]["statement"] == STATEMENT and "Stable rank: ×" in rows[-1]["text"]


@pytest.mark.usefixtures("example")
def test_the_page_has_a_card_for_it(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ntkdiag.report.page.page.FIGURES", {"trace": nd.report.FIGURES["trace"]})
    assert main(["report", str(folder), "--out", str(tmp_path / "page.html")]) == 0
    page = (tmp_path / "page.html").read_text()
    assert page.count('<article class="verdict ') == 7 and STATEMENT in page


def test_the_example_runs_and_prints_an_answer_a_claim(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        runpy.run_path(str(EXAMPLE), run_name="__main__")
    finally:
        CLAIMS.pop("C8", None)
    printed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in printed] == ["claim", "C1", "C2", "C3", "C4", "C5", "C6", "C8"]


def test_words_of_several_statistics_are_those_they_share(monkeypatch: pytest.MonkeyPatch) -> None:
    planted = {"size": np.where(NOISY, 0.5, 1.0), "samples": 64, "shared": 0.95}
    seen: dict[str, Answer] = {}

    def examine(evidence: Evidence) -> Answer:
        seen["both fall"] = falls(["trace", "top_eigenvalue"], evidence)
        seen["in part"] = falls(["trace", "effective_rank"], evidence)
        with pytest.raises(InputError, match="Name it where the claim is registered"):
            falls("gsnr", evidence)
        return described("Seen.")

    try:
        claim("X1", "For this test.", reads=["trace"])(examine)
        answers = verify(simulate(**planted)).answers  # type: ignore[arg-type]
    finally:
        del CLAIMS["X1"]
    assert seen["both fall"].noisy == "falls" and seen["in part"].noisy == "in part"
    assert answers.iloc[-1][["noisy", "clean", "text"]].tolist() == ["described", "described", "Seen."]
    assert untestable("why").text == "Not testable for one network: why."


def test_a_name_that_is_taken_is_refused() -> None:
    words = "claim 'C2': expected a name that no other claim has; got the name of: The kernel loses effective rank"
    with pytest.raises(InputError, match=words):
        claim("C2", "Something else.", reads=["trace"])
