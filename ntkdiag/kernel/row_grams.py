"""Gram matrices from row gradients J_iᵀ v that are formed in full, tile by tile within a memory budget.

Two tiles of row gradients exist at a time; a smaller budget means more recomputation and the same result. Where they are
sketched, each tile is computed once, and what is kept of it is short. Of samples that several processes share, each forms
the rows of its own, and multiplies its columns of the rows of all; the products of all processes are added up.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ntkdiag.distributed import Share
from ntkdiag.distributed.parcels import Parcel
from ntkdiag.kernel.problem import Problem

# Row gradients of one tile: parameter name → [n, numel]
Rows = dict[str, Tensor]
# Positions of the samples in a tile that each process has; those of a process by itself are the only ones.
Tile = list[Tensor]
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
    found = {label: torch.stack([gram[label] for gram in grams]) for label in grams[0]}
    if problem.share is None:
        return found
    total = problem.share.processes.total
    return {label: total(f"kernel of {label} from rows", found[label]) for label in found}


def products(left: Rows, right: Rows, scales: dict[str, Tensor]) -> dict[str, Tensor]:
    """Parameter name → left · scale · rightᵀ in float64, [n_left, n_right]."""
    found = {}
    for name, rows in left.items():
        scaled = rows * scales[name].flatten() if name in scales else rows
        found[name] = (scaled.double() @ right[name].double().T).cpu()
    return found


def _tiled(row_gradients: RowGradients, problem: Problem, cotangents: Tensor) -> dict[str, Tensor]:
    """Group label → [N, N] for cotangents [N, *out]; tiles (a, b) with b not before a, the rest by symmetry."""
    share, group, grams = problem.share, problem.group, _empty(problem)
    scales = {name: scale.flatten() for name, scale in problem.inverse_preconditioner.items()}
    if share is not None:
        scales = {name: scale[share.processes.share_of(len(scale))] for name, scale in scales.items()}

    def rows(tile: Tile) -> Rows:
        own = _rows(row_gradients, problem, cotangents, tile)
        return own if share is None else _columns(own, share, [len(each) for each in tile])

    tiles = _tiles(problem)
    for place, a in enumerate(tiles):
        rows_a, at_a = rows(a), torch.cat(a)
        for b in tiles[place:]:
            rows_b, at_b = (rows_a, at_a) if b is a else (rows(b), torch.cat(b))
            for name, block in products(rows_a, rows_b, scales).items():
                gram = grams[group(name)]
                if b is not a:
                    gram[at_b[:, None], at_a] += block.T
                gram[at_a[:, None], at_b] += block.triu() + block.triu(1).T if b is a else block
    return grams


def _sketched(
    row_gradients: RowGradients, problem: Problem, cotangents: Tensor, probe: int
) -> dict[str, Tensor]:
    """Group label → [N, N] for cotangents [N, *out], of rows that are sketched tile by tile."""
    share = problem.share
    kept: dict[str, list[Tensor]] = {name: [] for name in problem.parameters}
    for tile in _tiles(problem):
        for name, rows in _rows(row_gradients, problem, cotangents, tile).items():
            kept[name].append(problem.measured(name, rows, probe))
    whole = {name: torch.cat(parts) for name, parts in kept.items()}
    if share is not None:
        whole = _columns(whole, share, share.counts)
    grams = _empty(problem)
    for name, product in products(whole, whole, {}).items():
        grams[problem.group(name)] += product
    return grams


def _rows(row_gradients: RowGradients, problem: Problem, cotangents: Tensor, tile: Tile) -> Rows:
    """Rows of the samples that this process has of a tile, perhaps none."""
    own = tile[0 if problem.share is None else problem.share.processes.rank]
    if len(own) == 0:
        return {name: p.detach().new_zeros(0, p.numel()) for name, p in problem.parameters.items()}
    vectors = cotangents[own.to(cotangents.device)]
    return row_gradients(problem.module, problem.parameters, problem.at(own), vectors)


def _columns(rows: Rows, share: Share, counts: list[int]) -> Rows:
    """This process's columns of the rows of all samples in a tile; one parameter's rows are exchanged at a time."""
    found: Rows = {}
    for name in list(rows):
        parcel = Parcel(rows.pop(name), columns=True)
        found[name] = share.processes.exchange(f"rows of {name}", [parcel], counts)[0]
    return found


def _empty(problem: Problem) -> dict[str, Tensor]:
    """Group label → zeros [N, N]."""
    labels = dict.fromkeys(problem.group(name) for name in problem.parameters)
    shape = (problem.samples, problem.samples)
    return {label: torch.zeros(shape, dtype=torch.float64) for label in labels}


def _tiles(problem: Problem) -> list[Tile]:
    """Tiles whose row gradients fit half of the memory: two exist at a time, and one more while it is exchanged."""
    memory = DEFAULT_MEMORY if problem.memory is None else problem.memory
    bytes_per_sample = sum(p.numel() * p.element_size() for p in problem.parameters.values())
    size = max(1, memory // max(1, bytes_per_sample * (2 if problem.share is None else 4)))
    if problem.share is not None:
        return problem.share.tiles(size)
    return [[part] for part in torch.arange(problem.samples).split(min(size, problem.samples))]
