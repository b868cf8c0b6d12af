"""Weights in a Lightning module: its own Trainer, accumulation, and a checkpoint that is resumed from."""

from __future__ import annotations

import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from integrations_cases import Recorder, refresher
from torch.utils.data import DataLoader

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    lightning = pytest.importorskip("lightning.pytorch")
    from ntkdiag.integrations.lightning import WeightCallback

from ntkdiag.errors import InputError
from ntkdiag.weights import WeightSource

pytestmark = pytest.mark.filterwarnings("ignore")
LEVELS = torch.linspace(-4, 4, 48).reshape(6, 8)


class Module(lightning.LightningModule):
    """A regression whose loss is weighted by log-SNR."""

    def __init__(self, weights: WeightSource) -> None:
        super().__init__()
        self.weights = weights
        self.line = torch.nn.Linear(1, 1)
        torch.nn.init.constant_(self.line.weight, 0.3)
        torch.nn.init.zeros_(self.line.bias)

    def training_step(self, batch: torch.Tensor, index: int) -> torch.Tensor:
        log_snr = batch.flatten()
        losses = (self.line(log_snr[:, None])[:, 0] - torch.sin(log_snr)).square()
        return (self.weights(log_snr) * losses).mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.05)


def trainer(folder: Path, callback: WeightCallback, **more: object):
    return lightning.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=folder, callbacks=[callback], **more,
    )  # fmt: skip


def batches() -> DataLoader:
    return DataLoader(LEVELS, batch_size=1, num_workers=0)  # type: ignore[arg-type]


@pytest.mark.parametrize(("accumulation", "steps"), [(1, [1, 2, 3, 4, 5, 6]), (3, [1, 2])])
def test_optimiser_steps_are_counted_not_batches(accumulation: int, steps: list[int], tmp_path: Path) -> None:
    recorder = Recorder()
    run = trainer(tmp_path, WeightCallback(recorder), max_epochs=1, accumulate_grad_batches=accumulation)
    run.fit(Module(recorder), batches())
    assert recorder.steps == steps


def test_a_run_resumed_from_a_checkpoint_is_the_run_that_went_on(tmp_path: Path) -> None:
    source = refresher()
    whole = Module(source)
    trainer(tmp_path, WeightCallback(source), max_epochs=2).fit(whole, batches())

    source_first = refresher()
    first = trainer(tmp_path, WeightCallback(source_first), max_epochs=1)
    first.fit(Module(source_first), batches())
    first.save_checkpoint(tmp_path / "run.ckpt")
    source_second = refresher()
    source_second._score = source_first._score  # goes on counting where it was
    second, resumed = trainer(tmp_path, WeightCallback(source_second), max_epochs=2), Module(source_second)
    second.fit(resumed, batches(), ckpt_path=tmp_path / "run.ckpt")
    assert torch.equal(resumed.line.weight, whole.line.weight)
    assert repr(source_second.history) == repr(source.history) and len(source.history) == 6


def test_what_is_not_weights_is_refused() -> None:
    with pytest.raises(
        InputError, match="weights: expected a weight table, a Refresher, or the path of a table"
    ):
        WeightCallback(torch.nn.Linear(1, 1))  # type: ignore[arg-type]


def test_a_step_that_was_done_before_the_checkpoint_is_not_done_again() -> None:
    recorder = Recorder()
    callback = WeightCallback(recorder)
    callback.load_state_dict({"step": 4, "weights": {"steps": [4]}})
    for step in (4, 4, 5, 5):
        callback.on_train_batch_end(SimpleNamespace(global_step=step), None, None, None, 0)
    assert recorder.steps == [4, 5]
