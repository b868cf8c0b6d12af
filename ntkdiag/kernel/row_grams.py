"""Gram matrices from row gradients J_iᵀ v that are formed in full, tile by tile within a memory budget.

Two tiles of row gradients exist at a time; a smaller budget means more recomputation and the same result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from ntkdiag.kernel.problem import Problem

# Row gradients of one tile: parameter name → [n, numel]
Rows = dict[str, Tensor]
# (module, parameters, inputs [n, ...], cotangents [n, *out]) → rows
RowGradients = Callable[[nn.Module, dict[str, nn.Parameter], tuple[Tensor, ...], Tensor], Rows]

DEFAULT_MEMORY = 2 * 1024**3  # bytes for row gradients; tuned here so that a 24 GiB machine is never at risk


def grouped_grams(row_gradients: RowGradients, problem: Problem, cotangents: Tensor) -> dict[str, Tensor]:
    """Gram matrices of row gradients, one for each cotangent, by group of parameters.

    Args:
        row_gradients: The engine, see `RowGradients`.
        problem: What is measured; its memory bounds the bytes that row gradients may take.
        cotangents: Its directions, [R, N, *out].

    Returns:
        Group label → [R, N, N] float64 on the CPU, entry (r, i, j) = (J_iᵀ v_ri) · (J_jᵀ v_rj).
    """
    grams = [_tiled(row_gradients, problem, vectors) for vectors in cotangents]
    return {label: torch.stack([gram[label] for gram in grams]) for label in grams[0]}


def products(left: Rows, right: Rows, scales: dict[str, Tensor]) -> dict[str, Tensor]:
    """Parameter name → left · scale · rightᵀ in float64, [n_left, n_right]."""
    found = {}
    for name, rows in left.items():
        scaled = rows * scales[name].flatten() if name in scales else rows
        found[name] = (scaled.double() @ right[name].double().T).cpu()
    return found


def _tiled(row_gradients: RowGradients, problem: Problem, cotangents: Tensor) -> dict[str, Tensor]:
    """Group label → [N, N] for cotangents [N, *out]; tiles (a, b) with b ≥ a, the rest by symmetry."""
    samples, parameters, group = problem.samples, problem.parameters, problem.group
    tile = _tile_size(parameters, samples, DEFAULT_MEMORY if problem.memory is None else problem.memory)
    labels = dict.fromkeys(group(name) for name in parameters)
    grams = {label: torch.zeros(samples, samples, dtype=torch.float64) for label in labels}
    scales = problem.inverse_preconditioner

    def rows(part: slice) -> Rows:
        some = tuple(tensor[part] for tensor in problem.inputs)
        return row_gradients(problem.module, parameters, some, cotangents[part])

    for a in _slices(samples, tile):
        rows_a = rows(a)
        for b in _slices(samples, tile):
            if b.start < a.start:
                continue
            for name, block in products(rows_a, rows_a if b == a else rows(b), scales).items():
                grams[group(name)][a, b] += block
    for gram in grams.values():
        gram.copy_(gram.triu() + gram.triu(1).T)
    return grams


def _tile_size(parameters: dict[str, nn.Parameter], samples: int, memory: int) -> int:
    """Samples whose row gradients fit half of the memory: two tiles exist at a time."""
    bytes_per_sample = sum(p.numel() * p.element_size() for p in parameters.values())
    return max(1, min(samples, memory // max(1, 2 * bytes_per_sample)))


def _slices(count: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, count)) for start in range(0, count, size))
