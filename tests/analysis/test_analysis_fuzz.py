"""A slice of the fuzz study, by another seed than its own: no traceback, no hang, no partial file."""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path

import pandas as pd
import pytest

from analysis.fuzz import networks
from analysis.fuzz import run as fuzz
from analysis.fuzz.run import HERE, KINDS, TimeLimitExceeded, run, run_case, study, time_limit

CONFIG = json.loads((HERE / "config.json").read_text())


@pytest.mark.parametrize("kind", KINDS)
def test_hostile_input_is_answered_or_refused_in_one_line(kind: str, tmp_path: Path) -> None:
    tiny = CONFIG["tiny"]
    (tally,) = study({**tiny, "cases": {kind: tiny["cases"][kind]}}, tmp_path).values()
    assert tally.failures == []
    # A slice in which everything ends in one way tests little.
    assert len(tally.outcomes) >= min(2, tiny["cases"][kind])
    rows = pd.read_csv(tmp_path / "outcomes.csv")
    assert rows.cases.sum() == tiny["cases"][kind] and set(rows.kind) == {kind}


def test_the_study_has_ten_thousand_cases_of_every_kind() -> None:
    cases = CONFIG["full"]["cases"]
    assert list(cases) == list(KINDS) and sum(cases.values()) == 10_000
    assert CONFIG["full"]["seed"] != CONFIG["tiny"]["seed"]


def test_a_case_is_drawn_from_its_number_alone() -> None:
    ends = [run_case("tables", number, 1, 60) for number in range(30)]
    assert [run_case("tables", number, 1, 60) for number in reversed(range(30))] == ends[::-1]


def test_a_case_that_hangs_is_stopped_whatever_it_survives() -> None:
    with pytest.raises(TimeLimitExceeded), time_limit(0.05):
        while True:
            with contextlib.suppress(Exception):
                time.sleep(1)


def test_a_case_that_fails_is_counted_with_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(fuzz.KINDS, "tables", lambda rng, folder: str(1 / (rng.random() > 0.5)))
    tally = run("tables", 20, 0, 60)
    assert tally.outcomes["FAILED"] == len(tally.failures) and 0 < len(tally.failures) < 20
    assert "ZeroDivisionError" in tally.failures[0]["error"]


@pytest.mark.parametrize("number", [1000, 1001, 1002])
def test_random_networks_have_the_kernel_of_plain_autograd(number: int) -> None:
    """Other numbers than the study's; every way agrees, or refuses in words."""
    found = networks.tried(number)
    for way in networks.WAYS:
        assert found[way] == "agrees" or found[way].startswith("refused: "), found


def test_every_block_is_among_the_random_networks_and_a_wrong_kernel_is_seen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drawn = {name for number in range(200) for name in networks.RandomNetwork(number).names}
    assert drawn == {make.__name__.strip("_") for make in networks.BLOCKS}
    right = networks.gram_of
    monkeypatch.setattr(networks, "gram_of", lambda *given, **named: 1.001 * right(*given, **named))
    assert networks.tried(0)["auto"].startswith("differs by 0.001")


def test_the_committed_networks_hold_no_silent_difference() -> None:
    table = pd.read_csv(HERE / "results" / "networks.csv")
    assert len(table) == 200
    for way in networks.WAYS:
        assert table[way].str.startswith(("agrees", "refused: ")).all()
