"""TRAK: whole per-sample gradients by vmap(grad), projected by a random matrix [P, m] that is made in blocks of columns."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from trak.gradient_computers import FunctionalGradientComputer
from trak.projectors import BasicProjector, ProjectionType

from analysis.ways import Case

# Of a block of the random matrix; TRAK's 100 columns would be 13 GiB for the DiTs. Tuned here: time hardly depends on it.
BLOCK_BYTES = 2 * 1024**3


def columns(case: Case, size: int, seed: int = 0) -> Callable[[], Tensor]:
    """Rows [N, m] whose inner products are unbiased for those of the gradients, by TRAK's own settings on a CPU."""
    probe = case.probes[0]

    def output(model: nn.Module, weights: dict, buffers: dict, *sample: Tensor) -> Tensor:
        batch = tuple(part.unsqueeze(0) for part in sample)
        return (functional_call(model, (weights, buffers), batch).squeeze(0) * probe).sum()

    computer = FunctionalGradientComputer(
        case.module, SimpleNamespace(get_output=output), case.parameters, torch.float32, torch.device("cpu")
    )
    projector = BasicProjector(
        grad_dim=case.parameters,
        proj_dim=size,
        seed=seed,
        proj_type=ProjectionType.normal,  # TRAKer's choice on a CPU
        device=torch.device("cpu"),
        block_size=max(1, BLOCK_BYTES // (4 * case.parameters)),
    )

    def rows() -> Tensor:
        with sdpa_kernel(SDPBackend.MATH):  # fused attention has no batching rule under vmap
            gradients = computer.compute_per_sample_grad(case.inputs)
        return projector.project(gradients, model_id=0).detach() / size**0.5

    return rows
