"""The sketched kernel written out: every gradient by a loop of autograd, then Sᵀ G R with the signs of the package."""

from __future__ import annotations

import torch
from networks.case import Inputs
from references import brute_rows
from torch import Tensor, nn

from ntkdiag.kernel.directions import given
from ntkdiag.kernel.engines import Measured, run
from ntkdiag.kernel.sketch import Sketch


def sketched_rows(module: nn.Module, inputs: Inputs, cotangents: Tensor, sketch: Sketch) -> Tensor:
    """[R, N, numbers], the rows of all parameters side by side, float64."""
    named = dict(module.named_parameters())
    parts = []
    for name, rows in brute_rows(module, inputs, cotangents).items():
        by_probe = []
        for probe, gradients in enumerate(rows.double()):
            projection = sketch.of(name, named[name], probe)
            found = gradients.reshape(len(gradients), *projection.matrix)
            if projection.left is not None:
                found = torch.einsum("npq,pk->nkq", found, projection.left.double())
            if projection.right is not None:
                found = torch.einsum("npq,qk->npk", found, projection.right.double())
            by_probe.append(found.flatten(1))
        parts.append(torch.stack(by_probe))
    return torch.cat(parts, 2)


def sketched_gram(module: nn.Module, inputs: Inputs, cotangents: Tensor, sketch: Sketch) -> Tensor:
    """[R, N, N] float64."""
    rows = sketched_rows(module, inputs, cotangents, sketch)
    return rows @ rows.mT


def measured(
    module: nn.Module, inputs: Inputs, cotangents: Tensor, size: int, seed: int = 0, **options: object
) -> Measured:
    """The engine on given cotangents."""
    return run(module, inputs, given(cotangents), engine="sketch", sketch=size, seed=seed, **options)  # type: ignore[arg-type]
