"""Sweeps over samples that several processes share: each runs a part of the samples of every sweep, all at the same time."""

from __future__ import annotations

from collections import Counter

import torch
from torch import Tensor

from ntkdiag.kernel.problem import Problem
from ntkdiag.kernel.streaming.recording.rehearsal import Rehearsal, rehearse, rehearsed_samples
from ntkdiag.kernel.streaming.shared_accumulate import SharedAccumulator
from ntkdiag.kernel.streaming.sweep import AllSamples, Task, in_order, sweep_into

# Positions of the samples of each process in one sweep.
Positions = list[Tensor]


def shared_pairs(task: Task, problem: Problem, tile: int, rehearsal: Rehearsal, checked: bool) -> AllSamples:
    """This process's part of the Gram matrices, by one sweep for each pair of tiles, or a single sweep.

    Args:
        task: What every sweep has in common.
        problem: The samples that this process runs.
        tile: Samples that each process has in a tile.
        rehearsal: Of a sweep over all samples of this process.
        checked: Whether the result is compared with plain autograd.
    """
    share = problem.share
    assert share is not None  # several processes
    tiles = share.tiles(tile)
    sweeps = tiles if len(tiles) == 1 else [_union(a, b) for i, a in enumerate(tiles) for b in tiles[i + 1 :]]
    rank, start = share.processes.rank, share.ran.start
    own = [_ran(sweep[rank] - start) for sweep in sweeps]
    if len(sweeps) > 1 and not rehearsal.known:
        few = rehearsed_samples(len(own[0]), {len(picked) for picked in own}, checked)
        rehearsal = rehearse(task.network, problem.at(own[0]), few)
    grams: dict[str, Tensor] = {}
    corners: dict[str, Tensor] = {}
    outputs: list[Tensor] = []
    coverage: dict[str, str] = {}
    for sweep, picked in zip(sweeps, own, strict=True):

        def receiver(
            uses: Counter[str], probes: int, device: torch.device, sweep: Positions = sweep
        ) -> SharedAccumulator:
            return SharedAccumulator(
                task.network.parameters,
                uses,
                probes,
                task.group,
                task.inverse_preconditioner,
                device,
                share.processes,
                [len(each) for each in sweep],
            )

        found, output = sweep_into(receiver, task, problem.at(picked), picked, rehearsal, coverage)
        outputs.append(output)
        everyone = torch.cat(sweep)
        if everyone[0] == 0 and everyone[-1] == share.samples - 1:
            corners = found.corners
        if len(sweeps) == 1:
            grams = {label: block.cpu() for label, block in found.grams.items()}
            break
        for label, block in found.grams.items():
            if label not in grams:
                grams[label] = torch.zeros(len(block), share.samples, share.samples, dtype=torch.float64)
            grams[label][:, everyone[:, None], everyone[None, :]] = block.cpu()
    return AllSamples(grams, corners, in_order(own, outputs), coverage)


def _union(a: Positions, b: Positions) -> Positions:
    return [torch.cat(pair) for pair in zip(a, b, strict=True)]


def _ran(picked: Tensor) -> Tensor:
    """The samples that a process runs in a sweep: the first of those that it has, if it has none in this one."""
    return picked if len(picked) else torch.tensor([0])
