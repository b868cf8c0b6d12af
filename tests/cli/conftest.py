"""A command line to call in this process, an empty folder to call it in, and small runs to call it on."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_cases import QUICKLY, TINY, snapshot

from ntkdiag.cli import main


@dataclass(frozen=True)
class Result:
    """What one call left."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """stdout as the one JSON document it must be."""
        return json.loads(self.out)


Call = Callable[..., Result]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    """Run a command in this process."""

    def run(*arguments: object) -> Result:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        return Result(code, *capsys.readouterr())

    return run


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def refused(call: Call, workspace: Path) -> Callable[..., str]:
    """A call that must end with exit code 2, one line on stderr, nothing on stdout, and no file touched."""

    def run(*arguments: object) -> str:
        before = snapshot(workspace)
        result = call(*arguments)
        assert result.code == 2, result
        assert result.out == ""
        assert result.err.startswith("error: ") and result.err.count("\n") == 1, result.err
        assert result.err.endswith("\n")
        assert snapshot(workspace) == before
        return result.err

    return run


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished training run."""
    folder = tmp_path_factory.mktemp("cli") / "run"
    assert main(["train", *TINY, "--steps", "6", "--batch", "16", "--out", str(folder), "--json"]) == 0
    return folder


@pytest.fixture(scope="session")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished training run that kept its weights along the way."""
    folder = tmp_path_factory.mktemp("kept") / "run"
    sizes = ["--steps", "4", "--batch", "8", "--setting", "keep_every=2"]
    assert main(["train", *TINY, *sizes, "--out", str(folder), "--json"]) == 0
    return folder


@pytest.fixture(scope="session")
def measured(trained: Path) -> Path:
    """A diagnosis of it, with its untrained control."""
    folder = trained.parent / "diagnosis"
    assert main(["measure", "--model", str(trained), *QUICKLY, "--out", str(folder), "--json"]) == 0
    return folder


@pytest.fixture(scope="session")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small U-Net that was trained to predict v on digits, as a pipeline."""
    import torch
    from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel

    from analysis.foreign import networks as tiny
    from ntkdiag.process import schedules

    schedule = schedules.linear_beta()
    torch.manual_seed(0)
    network = UNet2DModel(
        8, 1, 1, block_out_channels=(16, 32), down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2,
        layers_per_block=1, norm_num_groups=8,
    )  # fmt: skip

    def wanted(x0: Any, epsilon: Any, log_snr: Any) -> Any:
        alpha, sigma = (
            part[:, None, None, None] for part in (schedule.alpha(log_snr), schedule.sigma(log_snr))
        )
        return alpha * epsilon - sigma * x0

    def predict(x: Any, log_snr: Any) -> Any:
        return network(x, schedule.time(log_snr)).sample

    tiny.train(network, schedule, wanted, predict, 120, batch=64)
    folder = tmp_path_factory.mktemp("folders") / "pipe"
    DDPMPipeline(network, DDPMScheduler(prediction_type="v_prediction")).save_pretrained(folder)
    return folder


@pytest.fixture
def array(workspace: Path) -> Callable[..., str]:
    """Writes an array as data.npy and gives its name."""

    def write(values: np.ndarray, name: str = "data.npy") -> str:
        np.save(workspace / name, values)
        return name

    return write
