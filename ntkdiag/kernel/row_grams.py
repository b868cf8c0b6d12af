"""Gram matrices from row gradients J_iᵀ v that are formed in full, tile by tile within a memory budget.

Two tiles of row gradients exist at a time; a smaller budget means more recomputation and the same result. Where they are
sketched, each tile is computed once, and what is kept of it is short.
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
    if problem.sketch is None:
        grams = [_tiled(row_gradients, problem, vectors) for vectors in cotangents]
    else:
        grams = [_sketched(row_gradients, problem, vectors, r) for r, vectors in enumerate(cotangents)]
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
    samples, group, grams = problem.samples, problem.group, _empty(problem)
    tile = _tile_size(problem)

    for a in _slices(samples, tile):
        rows_a = _rows(row_gradients, problem, cotangents, a)
        for b in _slices(samples, tile):
            if b.start < a.start:
                continue
            rows_b = rows_a if b == a else _rows(row_gradients, problem, cotangents, b)
            for name, block in products(rows_a, rows_b, problem.inverse_preconditioner).items():
                grams[group(name)][a, b] += block
    for gram in grams.values():
        gram.copy_(gram.triu() + gram.triu(1).T)
    return grams


def _sketched(
    row_gradients: RowGradients, problem: Problem, cotangents: Tensor, probe: int
) -> dict[str, Tensor]:
    """Group label → [N, N] for cotangents [N, *out], of rows that are sketched tile by tile."""
    kept: dict[str, list[Tensor]] = {name: [] for name in problem.parameters}
    for part in _slices(problem.samples, _tile_size(problem)):
        for name, rows in _rows(row_gradients, problem, cotangents, part).items():
            kept[name].append(problem.measured(name, rows, probe))
    whole = {name: torch.cat(parts) for name, parts in kept.items()}
    grams = _empty(problem)
    for name, product in products(whole, whole, {}).items():
        grams[problem.group(name)] += product
    return grams


def _rows(row_gradients: RowGradients, problem: Problem, cotangents: Tensor, part: slice) -> Rows:
    some = tuple(tensor[part] for tensor in problem.inputs)
    return row_gradients(problem.module, problem.parameters, some, cotangents[part])


def _empty(problem: Problem) -> dict[str, Tensor]:
    """Group label → zeros [N, N]."""
    labels = dict.fromkeys(problem.group(name) for name in problem.parameters)
    shape = (problem.samples, problem.samples)
    return {label: torch.zeros(shape, dtype=torch.float64) for label in labels}


def _tile_size(problem: Problem) -> int:
    """Samples whose row gradients fit half of the memory: two tiles exist at a time."""
    memory = DEFAULT_MEMORY if problem.memory is None else problem.memory
    bytes_per_sample = sum(p.numel() * p.element_size() for p in problem.parameters.values())
    return max(1, min(problem.samples, memory // max(1, 2 * bytes_per_sample)))


def _slices(count: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, count)) for start in range(0, count, size))
