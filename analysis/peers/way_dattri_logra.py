"""dattri, LoGra: activations and output gradients of each linear layer projected to k numbers, then multiplied."""

from __future__ import annotations

from collections.abc import Callable
from inspect import signature

import torch
from dattri.algorithm.block_projected_if.core.compressor import setup_model_compressors
from dattri.algorithm.block_projected_if.core.hook import HookManager
from torch import Tensor, nn

from analysis.ways import Case


def prepare(case: Case, size: int, seed: int = 0) -> tuple[Callable[[], Tensor], int]:
    """The kernel from k = `size` (LoGraAttributor's `proj_dim` is k²), and how many parameters it covers: linear layers."""
    model = case.module
    layers = [name for name, part in model.named_modules() if isinstance(part, nn.Linear)]
    common = {"device": "cpu", "proj_max_batch_size": 64}
    compressors = setup_model_compressors(  # as LoGraAttributor does, of a batch that is a dictionary
        model,
        layers,
        sparsifier_kwargs={**common, "proj_dim": size, "proj_type": "normal", "proj_seed": seed},
        projector_kwargs={**common, "proj_dim": -1, "proj_type": "identity"},
        sample_inputs=dict(zip(signature(model.forward).parameters, case.inputs, strict=False)),
    )
    manager = HookManager(model, layers)
    manager.set_compressors(compressors)

    def kernel() -> Tensor:
        # Its rows are those of a mean over samples, times N.
        ((model(*case.inputs) * case.probes[0]).sum() / case.samples).backward()
        rows = manager.get_compressed_grads()
        return torch.stack([part @ part.T for part in rows]).sum(0)

    covered = sum(p.numel() for name in layers for p in model.get_submodule(name).parameters())
    return kernel, covered
