"""The study of optimizers, rules and a prior: it goes on where it stopped, and its contrasts by hand."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis import command_line
from analysis.factors import run
from analysis.factors.contrasts import EVERY, INTERACTION, MEASURES, contrasts
from ntkdiag.provenance import write_json

OPTIMIZERS, RULES = ("adamw", "sgd", "muon"), ("constant", "erd", "min_snr")


def planted(seeds: int) -> pd.DataFrame:
    """ln of every measure: 0.5 for Muon, −0.2 for ERD, 0.3 for the prior and 0.1 more for both; seeds differ as a whole."""
    rows = []
    for seed, optimizer, rule, prior in itertools.product(range(seeds), OPTIMIZERS, RULES, (False, True)):
        size = (
            0.5 * (optimizer == "muon")
            - 0.2 * (rule == "erd")
            + 0.3 * prior
            + 0.1 * (prior and rule == "erd")
        )
        # What a seed adds to a prior: 0.1, 0.2, ...
        value = math.exp(size + seed + 0.1 * seed * prior)
        rows.append(
            {
                "seed": seed,
                "optimizer": optimizer,
                "rule": rule,
                "prior": prior,
                **dict.fromkeys(MEASURES, value),
            }
        )
    return pd.DataFrame(rows)


def test_contrasts_are_paired_and_have_a_seed_as_their_unit() -> None:
    table = contrasts(planted(3))
    found = table[(table["measure"] == "quality") & (table["scope"] == EVERY)].set_index("contrast")
    wanted = {
        "SGD, not AdamW": 0.0, "Muon, not AdamW": 0.5, "ERD, not constant": -0.15, "min-SNR, not constant": 0.0,
        "the prior": 0.3 + 0.1 / 3 + 0.1, "ERD where the prior is": -0.1, INTERACTION: 0.1,
    }  # fmt: skip
    assert found["change"].to_dict() == pytest.approx(wanted, abs=1e-12)
    prior = found.loc["the prior"]
    # Student's t for 2 degrees of freedom at 97.5% is 4.3027; the three changes are 0.1 apart.
    assert prior["high"] - prior["change"] == pytest.approx(4.3027 * 0.1 / math.sqrt(3), rel=1e-4)
    assert (table["seeds"] == 3).all()
    alone = table[(table["measure"] == "quality") & (table["scope"] == "muon")]
    assert set(alone["contrast"]) == set(wanted) - {"SGD, not AdamW", "Muon, not AdamW"}
    shares = table[(table["measure"] == "shared_noisy") & (table["scope"] == EVERY)].set_index("contrast")
    assert shares.loc["Muon, not AdamW", "change"] > 1  # a difference, not a logarithm


def test_a_seed_that_is_not_finished_is_left_out() -> None:
    cells = planted(3).iloc[:-4]
    assert (contrasts(cells)["seeds"] == 2).all()
    single = contrasts(planted(1))
    assert (single["seeds"] == 1).all() and single["low"].isna().all() and (single["p_holm"] == 1).all()


def test_a_stopped_study_runs_the_cells_that_are_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ntkdiag.train.alignment.encoder.STEPS", 2)
    config = command_line.settings(run.HERE, "tiny")
    cells = planted(config["seeds"]).assign(word="falls", floor=1.0)
    given = cells.iloc[:-2]
    start = pd.DataFrame(
        [{**given.iloc[0], "seed": seed, "optimizer": run.UNTRAINED, "rule": "none"} for seed in range(2)]
    )
    pd.concat([start, given]).to_csv(tmp_path / "cells.csv", index=False)
    write_json(tmp_path / "study.json", {"config": config})
    calls = []
    trained = run.trained
    monkeypatch.setattr(run, "trained", lambda *a: calls.append(a[:4]) or trained(*a))
    run.study("tiny", tmp_path)
    assert calls == [(1, "muon", "min_snr", False), (1, "muon", "min_snr", True)]
    found = pd.read_csv(tmp_path / "cells.csv")
    assert len(found) == 2 * 19 and np.isfinite(found["features_rank_noisy"].tail(2)).all()
    assert set(pd.read_csv(tmp_path / "contrasts.csv")["measure"]) == set(MEASURES)
    means = pd.read_csv(tmp_path / "means.csv").set_index(["optimizer", "rule", "prior"])
    assert len(means) == 19 and (means["seeds"] == 2).all()
    assert means.loc[("sgd", "erd", True), "falls"] == 2
    assert means.loc[("sgd", "erd", True), "loss"] == pytest.approx(
        math.exp(0.2) * (1 + math.exp(1.1)) / 2, rel=1e-3
    )
    (tmp_path / "study.json").write_text(json.dumps({"config": {**config, "steps": 3}}))
    with pytest.raises(SystemExit, match="expected cells of the same settings"):
        run.study("tiny", tmp_path)


def test_a_seed_gives_every_cell_the_same_start() -> None:
    config = command_line.settings(run.HERE, "tiny")
    data = run.nd.data.load("digits")
    one, two, other = (run.fresh(seed, config, data).network.state_dict() for seed in (0, 0, 1))
    assert all(one[name].equal(two[name]) for name in one)
    assert not all(one[name].equal(other[name]) for name in one)
