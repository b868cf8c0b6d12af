"""Opacus: per-sample gradients of all parameters, as for private training, then one matrix product per parameter."""

from __future__ import annotations

from collections.abc import Callable

import torch
from opacus import GradSampleModule
from torch import Tensor

from analysis.peers.cases import load_case
from analysis.ways import Case

__all__ = ["load_case", "prepare"]


def prepare(case: Case) -> tuple[Callable[[], Tensor], int]:
    """The kernel, and how many parameters it covers."""
    # strict refuses every buffer, also constants such as position tables, which are harmless here.
    wrapped = GradSampleModule(case.module, loss_reduction="sum", strict=False)

    def kernel() -> Tensor:
        wrapped.zero_grad(set_to_none=True)
        (wrapped(*case.inputs) * case.probes[0]).sum().backward()
        rows = [parameter.grad_sample.flatten(1) for parameter in wrapped.parameters()]
        return torch.stack([part @ part.T for part in rows]).sum(0)

    return kernel, case.parameters
