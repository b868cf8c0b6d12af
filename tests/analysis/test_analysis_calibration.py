"""The study of wrong words: what is planted is there, and a run that was stopped goes on where it was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from analysis.calibration import curves, run, untrained
from analysis.calibration.populations import POPULATIONS, STRENGTH, kernels, planted
from ntkdiag.claims.effects import effect_values

CONFIG: dict[str, Any] = json.loads((run.HERE / "config.json").read_text())
SMALL = CONFIG | {
    "populations": ["1/k"],
    "margin": [{"samples": 12, "probes": 3, "a_third": 1, "repeats": 3}],
    "found": [{"samples": 12, "probes": 3, "a_third": 1, "repeats": 3, "factor": 1.5}],
    "expectation_draws": 200,
}


@pytest.mark.parametrize("name", POPULATIONS)
def test_the_planted_factor_is_found_on_average(name: str) -> None:
    rng = np.random.default_rng(0)
    for one in planted(name, 1.5, 24, 1000):
        if one.statistics == STRENGTH:
            draws = [kernels(one, 24, 4, 32, 1, rng).mean(1) for _ in range(150)]
            found = [effect_values(np.arange(3), grams, statistics=["trace"]) for grams in draws]
            for end, sign in (("noisy", 1), ("clean", -1)):
                values = [effect["trace", end] for effect in found]
                error = np.std(values) / np.sqrt(len(values))
                assert abs(np.mean(values) - sign * np.log(1.5)) < 4 * error + 0.02
        assert one.ends[1] is POPULATIONS[name]


def test_a_run_goes_on_where_it_was(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "words.csv"
    first = run.words(SMALL, file)
    assert len(capsys.readouterr().out.splitlines()) == 2
    assert len(first) == 2 * 8 and first[["falls", "absent"]].apply(lambda x: x.between(0, 1)).all(axis=None)
    again = run.words(SMALL, file)
    assert capsys.readouterr().out == "" and len(again) == len(first)


def test_untrained_networks_and_curves_give_a_row_a_test() -> None:
    small = {"networks": 4, "controls": 2, "samples": 8, "probes": 3, "buckets": 3}
    assert (untrained.learned(small)["tests"] == 8).all()
    table = curves.recipes(CONFIG["curves"] | {"repeats": 40})
    assert list(table.columns) == ["test", 2, 4, 6] and len(table) == 8


def test_recipes_are_wrong_in_one_in_twenty() -> None:
    """Binomial error of 400 repeats at 5%: 1.1 points."""
    table = curves.recipes(CONFIG["curves"] | {"repeats": 400, "lengths": [4]}).set_index("test")[4]
    at_margin = [
        name for name in table.index if "margin" in name or name == "between targets, no slope: supported"
    ]
    assert (table[at_margin] < 9.5).all()
    assert table["permuted buckets, one network: supported by a curve of nothing"] > 10
    assert table["recipe, planted ×1.5: supported"] > 85
