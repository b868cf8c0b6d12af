"""kronfluence: pairwise influence scores without preconditioning, query and train gradients both of vᵀf."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable
from typing import Any

from kronfluence.analyzer import Analyzer, prepare_model
from kronfluence.arguments import FactorArguments, ScoreArguments
from kronfluence.module.tracked_module import TrackedModule
from kronfluence.task import Task
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from analysis.peers.cases import load_case
from analysis.ways import Case

__all__ = ["load_case", "prepare"]


class Probe(Task):
    """Loss and measurement are both the probe's scalar, summed over the batch."""

    def __init__(self, probe: Tensor) -> None:
        self.probe = probe

    def compute_train_loss(self, batch: Any, model: nn.Module, sample: bool = False) -> Tensor:
        """Σ_i vᵀf(x_i)."""
        return (model(*batch) * self.probe).sum()

    def compute_measurement(self, batch: Any, model: nn.Module) -> Tensor:
        """The same."""
        return self.compute_train_loss(batch, model)


def prepare(case: Case) -> tuple[Callable[[], Tensor], int]:
    """The kernel, and how many parameters it covers: only Linear and Conv2d layers are tracked."""
    task = Probe(case.probes[0])
    model = prepare_model(case.module, task)
    folder = tempfile.TemporaryDirectory()
    analyzer = Analyzer(
        "kernel", model, task, cpu=True, log_level=logging.ERROR, disable_tqdm=True, output_dir=folder.name
    )
    data = TensorDataset(*case.inputs)
    factors = FactorArguments(strategy="identity")
    analyzer.fit_all_factors("identity", data, factor_args=factors, per_device_batch_size=case.samples)
    tracked = [part.original_module for part in model.modules() if isinstance(part, TrackedModule)]
    covered = sum(p.numel() for layer in tracked for p in layer.parameters())

    def kernel() -> Tensor:
        assert folder.name  # the folder must exist as long as the analyzer writes into it
        analyzer.compute_pairwise_scores(
            "kernel",
            "identity",
            query_dataset=data,
            train_dataset=data,
            per_device_query_batch_size=case.samples,
            per_device_train_batch_size=case.samples,
            score_args=ScoreArguments(damping_factor=None),
            overwrite_output_dir=True,
        )
        return analyzer.load_pairwise_scores("kernel")["all_modules"]

    return kernel, covered
