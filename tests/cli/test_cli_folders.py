"""--model with a folder of diffusers' save_pretrained: no line of code, and refused in a line where it is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cli_cases import QUICKLY
from diffusers import DDPMScheduler

from ntkdiag.denoiser import Denoiser
from ntkdiag.diagnosis import Diagnosis


def scheduler(folder: Path, **options: Any) -> Path:
    DDPMScheduler(**options).save_pretrained(folder)
    return folder


def test_a_folder_is_measured_by_one_command(
    pipeline: Path, call: Callable[..., Any], workspace: Path
) -> None:
    found = call("measure", "--model", pipeline, *QUICKLY, "--out", "mine")
    assert found.code == 0, found.err
    assert "load check: v at steps 0…999 fits" in found.err
    diagnosis = Diagnosis.load(workspace / "mine")
    assert diagnosis.meta["config"]["target"] == "v" and list(diagnosis.refs) == ["untrained"]
    assert diagnosis.summary["loss"].mean() < diagnosis.refs["untrained"].summary["loss"].mean()


@pytest.mark.parametrize("prediction", ["epsilon", "sample"])
def test_a_wrong_scheduler_is_refused_with_the_right_one_named(
    pipeline: Path, refused: Callable[..., str], tmp_path_factory: pytest.TempPathFactory, prediction: str
) -> None:
    wrong = scheduler(tmp_path_factory.mktemp("wrong"), prediction_type=prediction)
    error = refused("measure", "--model", pipeline, "--scheduler", wrong, *QUICKLY)
    assert "looks like v at steps 0…999" in error and "--no-load-check" in error


def test_the_check_can_be_left_out(pipeline: Path, call: Callable[..., Any], tmp_path: Path) -> None:
    wrong = scheduler(tmp_path / "wrong")
    found = call("measure", "--model", pipeline, "--scheduler", wrong, "--no-load-check", *QUICKLY)
    assert found.code == 0 and "load check" not in found.err


def test_the_check_is_not_made_again_after_an_interruption(
    pipeline: Path, call: Callable[..., Any], workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*args: Any) -> Any:
        raise KeyboardInterrupt

    def fail(*args: Any, **options: Any) -> Any:
        raise AssertionError("checked again")

    arguments = ["measure", "--model", pipeline, *QUICKLY, "--out", "mine"]
    with monkeypatch.context() as patch:
        patch.setattr("ntkdiag.cli.inputs.loading.LoadedModel.controls", stop)
        stopped = call(*arguments)
    assert stopped.code == 130 and "1 finished part beside mine" in stopped.err
    with monkeypatch.context() as patch:
        patch.setattr(Denoiser, "load_check", fail)
        other = call(*arguments, "--scheduler", scheduler(workspace / "other"))
        assert other.code == 2 and "checked again" in other.err  # it is another statement
        found = call(*arguments)
    assert found.code == 0
    first, again = (one.err[one.err.index("load check") :].partition("\n")[0] for one in (stopped, found))
    assert first == again and first.startswith("load check: v at steps 0…999 fits")


def test_options_that_a_folder_determines_are_refused(pipeline: Path, refused: Callable[..., str]) -> None:
    assert "--schedule: expected nothing beside a folder" in refused(
        "measure", "--model", pipeline, "--schedule", "flow"
    )
    assert "--call: expected nothing" in refused("measure", "--model", pipeline, "--call", "time")
    assert "as the scheduler's prediction_type" in refused(
        "measure", "--model", pipeline, "--target", "epsilon"
    )
    assert "timesteps: expected one of" in refused("measure", "--model", pipeline, "--timesteps", "whole")
    assert "--scheduler: expected nothing" in refused("measure", "--model", "mlp", "--scheduler", pipeline)
    assert "guidance" in refused("measure", "--model", pipeline, "--model-option", "guidance=3")


def test_a_folder_that_is_none_is_refused(refused: Callable[..., str], workspace: Path) -> None:
    (workspace / "empty").mkdir()
    refused("measure", "--model", "empty")
    (workspace / "odd").mkdir()
    (workspace / "odd" / "config.json").write_text(json.dumps({"_class_name": "os.system"}))
    assert "scheduler" in refused("measure", "--model", "odd")
    assert "local cache" in refused("measure", "--model", "nobody/nothing")


TABLE = """
from torch import nn

class Table(nn.Module):
    def __init__(self):
        super().__init__()
        self.rows, self.layer = nn.Embedding(1000, 2), nn.Linear(2, 2)

    def forward(self, x, step):
        return self.layer(x + self.rows(step))

def table():
    return Table()
"""


def test_tables_of_embeddings_get_whole_steps(call: Callable[..., Any], workspace: Path) -> None:
    (workspace / "tables.py").write_text(TABLE)
    options = ["--data", "mixture", "--schedule", "linear_beta", "--target", "epsilon", *QUICKLY]
    assert call("measure", "--model", "tables.py:table", *options).code == 2
    assert call("measure", "--model", "tables.py:table", "--timesteps", "integer", *options).code == 0
