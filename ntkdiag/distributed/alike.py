"""Whether all processes were given the same: the whole data and the same network, not each its own part of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from zlib import crc32

import torch
from torch import Tensor

from ntkdiag.distributed.group import Processes
from ntkdiag.errors import InputError

# Relative difference of sums of numbers that devices may round differently.
_ROUNDING = 1e-4

Fact = int | float | str


def require_alike(processes: Processes, facts: Mapping[str, Fact]) -> None:
    """Compare what every process was given; called by all.

    Args:
        processes: All of them.
        facts: By name; floats may differ by rounding.

    Raises:
        InputError: something differs, in every process.
    """
    every = processes.each_says("what is given", dict(facts))
    for rank, others in enumerate(every):
        for name, value in every[0].items():
            if not _same(value, others.get(name)):
                raise InputError(
                    "distributed",
                    expected=f"the same {name} in every process",
                    got=f"{value} in process 0 and {others.get(name)} in process {rank}",
                    fix="Give the same arguments in all processes (all samples: they are shared out inside), and the same "
                    "weights (seed before the network is built, or load them).",
                )


def of_weights(tensors: Mapping[str, Tensor]) -> int:
    """A number that equal names, shapes and bytes have in common."""
    found = 0
    for name, tensor in tensors.items():
        found = crc32(f"{found} {name} {tuple(tensor.shape)} {tensor.dtype} {_byte_sum(tensor)}".encode())
    return found


def of_values(tensor: Tensor) -> float:
    """A number that equal values have in common, up to rounding; it depends on their order."""
    flat = tensor.detach().flatten().double()
    weights = 1 + torch.arange(len(flat), device=flat.device).remainder(97) / 97
    return float((flat.abs() * weights).sum() + (flat * weights).sum())


def _byte_sum(tensor: Tensor) -> int:
    values = tensor.detach().contiguous().flatten()
    whole = values.nbytes // 4 * 4
    shown = values.view(torch.uint8)
    return int(shown[:whole].view(torch.int32).sum(dtype=torch.int64) + shown[whole:].sum(dtype=torch.int64))


def _same(a: Fact, b: object) -> bool:
    if isinstance(a, float) and isinstance(b, float):
        return a == b or math.isclose(a, b, rel_tol=_ROUNDING) or (math.isnan(a) and math.isnan(b))
    return a == b
