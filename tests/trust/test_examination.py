"""Everything of a run in one folder: measured, saved, read again, and hostile folders refused."""

from __future__ import annotations

import json

import pandas as pd
import pytest
from trust_cases import small_data

import ntkdiag as nd
from ntkdiag.claims.levels import LEVELS as VERIFIED
from ntkdiag.claims.levels import training_steps
from ntkdiag.errors import InputError
from ntkdiag.trust import Examination
from ntkdiag.trust.examination import TABLES, cost
from ntkdiag.trust.sizes import LEVELS, RUN_LEVELS


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("trust") / "run"
    network = nd.models.build("mlp", (2,), width=8, depth=1, frequencies=4)
    denoiser = nd.Denoiser(network, nd.schedules.cosine(), "v", call="log_snr")
    config = nd.train.TrainConfig(steps=8, batch=16, keep_every=2)
    return out, nd.train.train(denoiser, small_data(), None, config, out=out).denoiser


@pytest.fixture(scope="module")
def found(run):
    return nd.trust.examine(*run, small_data(), buckets=3, level="quick", untrained=run[1])


def test_all_tables_are_there_and_come_back_from_the_folder(found, tmp_path):
    assert set(found.tables) == set(TABLES)
    assert list(found.said) == ["linearity", "drift", "features", "outputs"]
    found.save(tmp_path / "trust")
    again = Examination.load(tmp_path / "trust")
    assert again.said == found.said and again.meta == found.meta
    for name, table in found.tables.items():
        assert set(TABLES[name]) <= set(table)
        kept = table.replace("", float("nan")).reset_index(drop=True)
        pd.testing.assert_frame_equal(again.tables[name], kept, check_dtype=False)
    with pytest.raises(InputError, match="holds another run"):
        found.save(tmp_path / "trust")
    found.save(tmp_path / "trust", force=True)


def test_the_first_the_last_and_steps_between_are_measured(run, found):
    assert found.tables["drift"]["step"].unique().tolist() == [0, 4, 8]
    every = nd.trust.drift(*run, small_data(), buckets=3, samples=8, probes=3)
    assert every.steps == [0, 2, 4, 6, 8]


def test_a_run_without_kept_weights_is_examined_without_drift(tmp_path, run):
    config = nd.train.TrainConfig(steps=2, batch=8)
    nd.train.train(run[1], small_data(), None, config, out=tmp_path / "plain")
    found = nd.trust.examine(tmp_path / "plain", run[1], small_data(), buckets=3, level="quick")
    assert "drift" not in found.said and "drift" not in found.tables
    assert cost(tmp_path / "plain", "quick", 10) < cost(run[0], "quick", 10)


def test_quick_costs_less_than_a_fifth_of_quick_verification():
    sizes = VERIFIED["quick"]
    verify = training_steps(1 + sizes.controls, 10, sizes.samples, sizes.probes)
    assert LEVELS["quick"].training_steps(10) + RUN_LEVELS["quick"].training_steps(100, 10) < verify / 5


@pytest.mark.parametrize(
    "change",
    [
        lambda document: document | {"format": 2},
        lambda document: document | {"tables": ["../../secret"]},
        lambda document: document | {"said": ["a", "b"]},
        lambda document: document | {"said": {"linearity": 3}},
        lambda document: [document],
    ],
)
def test_a_hostile_manifest_is_refused(found, tmp_path, change):
    found.save(tmp_path / "trust")
    path = tmp_path / "trust" / "trust.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(InputError, match="an examination of format 1"):
        Examination.load(tmp_path / "trust")


def test_damaged_files_are_refused(found, tmp_path):
    found.save(tmp_path / "trust")
    (tmp_path / "trust" / "drift.csv").write_text("step,bucket\n1,2\n")
    with pytest.raises(InputError, match="a column log_snr"):
        Examination.load(tmp_path / "trust")
    (tmp_path / "trust" / "drift.csv").unlink()
    with pytest.raises(InputError, match="a table in CSV"):
        Examination.load(tmp_path / "trust")
    (tmp_path / "trust" / "trust.json").write_text("{")
    with pytest.raises(InputError, match="JSON"):
        Examination.load(tmp_path / "trust")
    with pytest.raises(InputError):
        Examination.load(tmp_path / "nothing")
