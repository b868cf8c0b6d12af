"""Gram matrices from row gradients J_iᵀ v that are formed in full, tile by tile within a memory budget.

Two tiles of row gradients exist at a time; a smaller budget means more recomputation and the same result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

# Row gradients of one tile: parameter name → [n, numel]
Rows = dict[str, Tensor]
# (module, parameters, inputs [n, ...], cotangents [n, *out]) → rows
RowGradients = Callable[[nn.Module, dict[str, nn.Parameter], tuple[Tensor, ...], Tensor], Rows]

DEFAULT_MEMORY = 2 * 1024**3  # bytes for row gradients; tuned here so that a 24 GiB machine is never at risk


def grouped_grams(
    row_gradients: RowGradients,
    module: nn.Module,
    parameters: dict[str, nn.Parameter],
    inputs: tuple[Tensor, ...],
    cotangents: Tensor,
    group: Callable[[str], str],
    memory: int | None = None,
    inverse_preconditioner: dict[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """Gram matrices of row gradients, one for each cotangent, by group of parameters.

    Args:
        row_gradients: The engine, see `RowGradients`.
        module: Called as module(*inputs).
        parameters: Name → parameter to differentiate by.
        inputs: Tensors [N, ...].
        cotangents: [R, N, *out].
        group: Parameter name → group label.
        memory: Bytes that row gradients may take.
        inverse_preconditioner: Parameter name → 1/p for a diagonal preconditioner p; entries become Σ g_i g_j / p.

    Returns:
        Group label → [R, N, N] float64 on the CPU, entry (r, i, j) = (J_iᵀ v_ri) · (J_jᵀ v_rj).
    """
    scales = inverse_preconditioner or {}
    grams = [_tiled(row_gradients, module, parameters, inputs, v, group, memory, scales) for v in cotangents]
    return {label: torch.stack([gram[label] for gram in grams]) for label in grams[0]}


def products(left: Rows, right: Rows, scales: dict[str, Tensor]) -> dict[str, Tensor]:
    """Parameter name → left · scale · rightᵀ in float64, [n_left, n_right]."""
    found = {}
    for name, rows in left.items():
        scaled = rows * scales[name].flatten() if name in scales else rows
        found[name] = (scaled.double() @ right[name].double().T).cpu()
    return found


def _tiled(
    row_gradients: RowGradients,
    module: nn.Module,
    parameters: dict[str, nn.Parameter],
    inputs: tuple[Tensor, ...],
    cotangents: Tensor,
    group: Callable[[str], str],
    memory: int | None,
    scales: dict[str, Tensor],
) -> dict[str, Tensor]:
    """Group label → [N, N] for cotangents [N, *out]; tiles (a, b) with b ≥ a, the rest by symmetry."""
    samples = len(cotangents)
    tile = _tile_size(parameters, samples, DEFAULT_MEMORY if memory is None else memory)
    labels = dict.fromkeys(group(name) for name in parameters)
    grams = {label: torch.zeros(samples, samples, dtype=torch.float64) for label in labels}

    def rows(part: slice) -> Rows:
        return row_gradients(module, parameters, tuple(t[part] for t in inputs), cotangents[part])

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
