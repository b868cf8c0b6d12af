"""nngeometry: its Gram matrix of a function with one scalar output, by hooks on layers."""

from __future__ import annotations

from collections.abc import Callable

import torch
from nngeometry.gram import GramMatrix
from nngeometry.layercollection import LayerCollection
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from analysis.peers.cases import load_case
from analysis.ways import Case

__all__ = ["load_case", "prepare"]


def prepare(case: Case) -> tuple[Callable[[], Tensor], int]:
    """The kernel, and how many parameters it covers.

    Two concessions: its hooks fire only on the way to the first input, so all inputs are packed into one;
    and layers without parameters, on which it stops, are not handed to it.
    """
    layers = LayerCollection()
    for part in case.module.modules():
        if type(part).__name__ in LayerCollection._known_modules and list(part.parameters()):
            layers.add_layer_from_model(case.module, part)
    shapes = [tensor.shape[1:] for tensor in case.inputs]
    packed = torch.cat([tensor.reshape(case.samples, -1) for tensor in case.inputs], dim=1)
    loader = DataLoader(TensorDataset(packed), batch_size=case.samples)

    def scalar(rows: Tensor) -> Tensor:
        parts = rows.split([shape.numel() for shape in shapes], dim=1)
        inputs = [part.reshape(-1, *shape) for part, shape in zip(parts, shapes, strict=True)]
        return (case.module(*inputs) * case.probes[0]).flatten(1).sum(1, keepdim=True)

    def kernel() -> Tensor:
        gram = GramMatrix(case.module, loader, scalar, layer_collection=layers)
        return gram.to_torch().reshape(case.samples, case.samples).detach()

    return kernel, layers.numel()
