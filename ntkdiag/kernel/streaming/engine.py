"""The streaming engine: Gram matrices for the price of a training step, whatever the network is made of.

It plans tiles of samples within a memory budget, runs one sweep for each pair of tiles, leaves parameters that no rule
serves to the exact engine, and reports for each parameter how its gradients were obtained.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from ntkdiag.kernel.directions import Directions
from ntkdiag.kernel.eager import plain_eager
from ntkdiag.kernel.exact import row_gradients
from ntkdiag.kernel.row_grams import grouped_grams
from ntkdiag.kernel.streaming.memory import is_out_of_memory, samples_that_fit
from ntkdiag.kernel.streaming.recording.forward import Network
from ntkdiag.kernel.streaming.recording.rehearsal import Rehearsal, rehearse
from ntkdiag.kernel.streaming.refusal import Refused
from ntkdiag.kernel.streaming.sweep import Task, sweep

TOTAL = "all"

Inputs = tuple[Tensor, ...]
# Gram matrices by group, coverage, and the network's output for all samples
Swept = tuple[dict[str, Tensor], dict[str, str], Tensor]


@dataclass(frozen=True)
class Streamed:
    """Result of the streaming engine.

    Attributes:
        per_probe: [R, N, N] float64 on the CPU.
        groups: Group label → [R, N, N]; adds up to `per_probe`.
        coverage: Parameter name → families of rules, "unused", or "exact (why)".
    """

    per_probe: Tensor
    groups: dict[str, Tensor]
    coverage: dict[str, str]


def gram_streaming(
    module: nn.Module,
    parameters: dict[str, nn.Parameter],
    inputs: Inputs,
    directions: Directions,
    *,
    memory: int | None = None,
    group: Callable[[str], str] | None = None,
    preconditioner: dict[str, Tensor] | None = None,
) -> Streamed:
    """Gram matrices of J_iᵀ v, without ever holding a sample's whole gradient.

    Args:
        module: Called as module(*inputs), in eval mode.
        parameters: Name → parameter.
        inputs: Tensors [N, ...].
        directions: See `ntkdiag.kernel.directions`.
        memory: Bytes for activations and gradients; None takes most of what the device has free.
        group: Parameter name → group label, for kernels by group.
        preconditioner: Parameter name → positive p of its shape: entries become Σ g_i g_j / p.

    Returns:
        `Streamed`.

    Raises:
        MeasurementError: two forwards disagree, or a sample's activations depend on its batch.
    """
    label = group or (lambda name: TOTAL)
    inverse_preconditioner = {name: 1 / p for name, p in (preconditioner or {}).items()}
    task = Task(Network(module, parameters), directions, label, inverse_preconditioner)
    refused: dict[str, str] = {}
    with plain_eager():
        while True:
            try:
                groups, coverage, output = _streamed(task, inputs, memory)
                break
            except Refused as refusal:
                refused.update(refusal.reasons)
                task = replace(task, network=task.network.without(set(refused)))
        if refused:
            rest = {name: parameters[name] for name in parameters if name in refused}
            cotangents = directions(output, torch.arange(len(output)))
            exact = grouped_grams(
                row_gradients, module, rest, inputs, cotangents, label, memory, inverse_preconditioner
            )
            for key, gram in exact.items():
                groups[key] = groups[key] + gram if key in groups else gram
    coverage |= {name: f"exact ({reason})" for name, reason in refused.items()}
    total = torch.stack(list(groups.values())).sum(0)
    return Streamed(total, groups, {name: coverage.get(name, "unused") for name in parameters})


def _streamed(task: Task, inputs: Inputs, memory: int | None) -> Swept:
    """Gram matrices of all pairs of samples; tiles are made smaller when memory runs out."""
    samples = inputs[0].shape[0]
    rehearsal = rehearse(task.network, inputs, _few(samples, {samples}))
    fit = samples_that_fit(rehearsal.bytes_per_sample, memory, inputs[0].device)
    tile = samples if fit >= samples else max(1, fit // 2)
    while True:
        try:
            return _all_pairs(task, inputs, tile, rehearsal)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error) or tile == 1:
                raise
        # one tile of all samples is a sweep as large as two tiles of half of them
        tile = max(1, min(tile, samples // 2) // 2)
        if inputs[0].is_cuda:
            torch.cuda.empty_cache()


def _all_pairs(task: Task, inputs: Inputs, tile: int, rehearsal: Rehearsal) -> Swept:
    """Gram matrices by one sweep for each pair of tiles, or by a single sweep if one tile holds all samples."""
    samples = inputs[0].shape[0]
    sweeps = _plan(samples, tile)
    if len(sweeps) > 1:
        sizes = {len(picked) for picked in sweeps}
        rehearsal = rehearse(task.network, _select(inputs, sweeps[0]), _few(len(sweeps[0]), sizes))
    coverage: dict[str, str] = {}
    grams: dict[str, Tensor] = {}
    outputs: dict[int, Tensor] = {}
    for picked in sweeps:
        some = inputs if len(sweeps) == 1 else _select(inputs, picked)
        blocks, output = sweep(task, some, picked, rehearsal, coverage)
        outputs.update(zip(picked.tolist(), output, strict=True))
        for key, block in blocks.items():
            if key not in grams:
                grams[key] = torch.zeros(block.shape[0], samples, samples, dtype=torch.float64)
            grams[key][:, picked[:, None], picked[None, :]] = block.cpu()
    return grams, coverage, torch.stack([outputs[i] for i in range(samples)])


def _plan(samples: int, tile: int) -> list[Tensor]:
    """Unions of two tiles; every pair of samples is in one of them."""
    tiles = list(torch.arange(samples).split(tile))
    if len(tiles) == 1:
        return tiles
    return [torch.cat([a, b]) for i, a in enumerate(tiles) for b in tiles[i + 1 :]]


def _few(samples: int, sizes: set[int]) -> Tensor:
    """Samples of the rehearsal: the last and the first in turn. Their number differs from that of every sweep."""
    count = next(m for m in range(1, len(sizes) + 2) if m not in sizes)
    return torch.tensor([samples - 1, 0] * count)[:count]


def _select(inputs: Inputs, picked: Tensor) -> Inputs:
    return tuple(tensor.index_select(0, picked.to(tensor.device)) for tensor in inputs)
