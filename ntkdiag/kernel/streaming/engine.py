"""The streaming engine: Gram matrices for the price of a training step, whatever the network is made of.

Plans tiles of samples within a memory budget, runs a sweep a tile pair, hands what no rule serves to the exact engine, and
says parameter by parameter which way was taken.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ntkdiag.kernel.directions import Directions, of_output
from ntkdiag.kernel.exact import gram_exact
from ntkdiag.kernel.streaming.budget import is_out_of_memory, samples_that_fit
from ntkdiag.kernel.streaming.surroundings import plain_surroundings
from ntkdiag.kernel.streaming.sweep import Network, Refused, Trace, sweep, trace

TOTAL = "all"


@dataclass(frozen=True)
class Streamed:
    """Result of the engine.

    Attributes:
        per_probe: [R, N, N] float64 on the CPU.
        groups: Group label → [R, N, N]; adds up to `per_probe`.
        coverage: Parameter name → family of rules, "unused", or "exact (why)".
    """

    per_probe: Tensor
    groups: dict[str, Tensor]
    coverage: dict[str, str]


def gram_streaming(
    module: nn.Module,
    parameters: dict[str, nn.Parameter],
    inputs: tuple[Tensor, ...],
    directions: Directions,
    *,
    memory: int | None = None,
    group: Callable[[str], str] | None = None,
    preconditioner: dict[str, Tensor] | None = None,
) -> Streamed:
    """Gram matrices of J_iᵀ v, as `gram_exact`, without ever holding a sample's whole gradient.

    Args:
        module: Called as module(*inputs), in eval mode.
        parameters: Name → parameter.
        inputs: Tensors [N, ...].
        directions: See `ntkdiag.kernel.directions`.
        memory: Bytes for activations and gradients; None takes most of what the device has free.
        group: Parameter name → group label, for kernels by group.
        preconditioner: Parameter name → positive weights p of its shape: entries become Σ g_i g_j / p.

    Returns:
        `Streamed`.

    Raises:
        MeasurementError: two forwards disagree, or a sample's activations depend on its batch.
    """
    label = group or (lambda name: TOTAL)
    weights = {name: 1 / p for name, p in (preconditioner or {}).items()}
    refused: dict[str, str] = {}
    with plain_surroundings():
        while True:
            network = Network(module, parameters).without(set(refused))
            try:
                groups, coverage = _streamed(network, inputs, directions, memory, label, weights)
                break
            except Refused as refusal:
                refused.update(dict.fromkeys(refusal.names, refusal.reason))
    for name in parameters:
        coverage.setdefault(name, f"exact ({refused[name]})" if name in refused else "unused")
    if refused:
        _add_exact(groups, module, parameters, refused, inputs, directions, memory, label, weights)
    total = torch.stack(list(groups.values())).sum(0)
    return Streamed(total, groups, {name: coverage[name] for name in parameters})


def _add_exact(
    groups: dict[str, Tensor],
    module: nn.Module,
    parameters: dict[str, nn.Parameter],
    refused: dict[str, str],
    inputs: tuple[Tensor, ...],
    directions: Directions,
    memory: int | None,
    label: Callable[[str], str],
    weights: dict[str, Tensor],
) -> None:
    """The parameters no rule serves, by the exact engine, group by group."""
    cotangents = of_output(module, inputs, directions)
    by_group: dict[str, dict[str, nn.Parameter]] = {}
    for name in refused:
        by_group.setdefault(label(name), {})[name] = parameters[name]
    for key, members in by_group.items():
        gram = gram_exact(
            module,
            members,
            inputs,
            cotangents,
            memory,
            {name: weights[name] for name in members if name in weights},
        )
        groups[key] = groups[key] + gram if key in groups else gram


def _streamed(
    network: Network,
    inputs: tuple[Tensor, ...],
    directions: Directions,
    memory: int | None,
    label: Callable[[str], str],
    weights: dict[str, Tensor],
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """All tile pairs; a smaller tile when memory runs out."""
    samples = inputs[0].shape[0]
    if not network.parameters:
        return {}, {}
    traced = _traced(network, inputs, _few(samples, {samples}))
    fit = samples_that_fit(traced.bytes_per_sample, memory, inputs[0].device)
    tile = samples if fit >= samples else max(1, fit // 2)
    while True:
        try:
            return _all_pairs(network, inputs, directions, tile, label, weights, traced)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error) or tile <= 1:
                raise
        traced.layouts.clear()
        tile //= 2
        if inputs[0].is_cuda:
            torch.cuda.empty_cache()


def _all_pairs(
    network: Network,
    inputs: tuple[Tensor, ...],
    directions: Directions,
    tile: int,
    label: Callable[[str], str],
    weights: dict[str, Tensor],
    traced: Trace,
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Blocks of the Gram matrices, one sweep a pair of tiles; a single sweep when one tile holds all samples."""
    samples = inputs[0].shape[0]
    coverage: dict[str, str] = {}
    if tile >= samples:
        everyone = torch.arange(samples)
        found = sweep(network, inputs, everyone, directions, traced, label, weights, coverage)
        return {key: block.cpu() for key, block in found.items()}, coverage
    sweeps = _plan(samples, tile)
    first = _select(inputs, sweeps[0])
    traced = _traced(network, first, _few(len(sweeps[0]), {len(picked) for picked in sweeps}))
    grams: dict[str, Tensor] = {}
    for picked in sweeps:
        found = sweep(network, _select(inputs, picked), picked, directions, traced, label, weights, coverage)
        for key, block in found.items():
            if key not in grams:
                grams[key] = torch.zeros(block.shape[0], samples, samples, dtype=torch.float64)
            grams[key][:, picked[:, None], picked[None, :]] = block.cpu()
    return grams, coverage


def _traced(network: Network, inputs: tuple[Tensor, ...], chosen: Tensor) -> Trace:
    """A trace; parameters that no rule serves are refused here, those with one reason at a time."""
    found, unsupported = trace(network, inputs, chosen)
    if unsupported:
        reason = next(iter(unsupported.values()))
        raise Refused([name for name, why in unsupported.items() if why == reason], reason)
    return found


def _plan(samples: int, tile: int) -> list[Tensor]:
    """Unions of two tiles that between them hold every pair of samples."""
    tiles = list(torch.arange(samples).split(tile))
    if len(tiles) == 1:
        return tiles
    return [torch.cat([a, b]) for i, a in enumerate(tiles) for b in tiles[i + 1 :]]


def _few(samples: int, sizes: set[int]) -> Tensor:
    """Samples for the trace: the last, and the first in turn, as few as no sweep has, so that sizes differ."""
    count = next(m for m in range(1, len(sizes) + 2) if m not in sizes)
    return torch.tensor([samples - 1, 0] * count)[:count]


def _select(inputs: tuple[Tensor, ...], picked: Tensor) -> tuple[Tensor, ...]:
    return tuple(tensor.index_select(0, picked.to(tensor.device)) for tensor in inputs)
