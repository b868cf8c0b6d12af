"""Sweeps of sketched gradients: every sample runs once, whatever their number, so that the cost is linear in it."""

from __future__ import annotations

import sys
from dataclasses import replace

import torch
from torch import Tensor

from ntkdiag.kernel.directions import Directions
from ntkdiag.kernel.problem import Problem
from ntkdiag.kernel.sketch import full_precision
from ntkdiag.kernel.streaming.memory import memory_budget
from ntkdiag.kernel.streaming.recording.rehearsal import Rehearsal, rehearse, rehearsed_samples
from ntkdiag.kernel.streaming.row_storage import RowStorage
from ntkdiag.kernel.streaming.sketched_rows import SketchedRows
from ntkdiag.kernel.streaming.sweep import AllSamples, Task, sweep_into

# Share of the memory that rows may take beside the activations; tuned here.
ROWS_SHARE = 0.5


def each_once(task: Task, problem: Problem, tile: int, rehearsal: Rehearsal, checked: bool) -> AllSamples:
    """Gram matrices of sketched gradients, by one sweep for each tile of samples.

    Where memory holds the rows of some of the probes only, these are finished before the next ones begin with a forward of
    their own.

    Args:
        task: What every sweep has in common.
        problem: What is measured, with a sketch.
        tile: Samples of a sweep.
        rehearsal: Of a sweep over all samples.
        checked: Whether the result is compared with plain autograd.
    """
    tiles = _plan(problem.samples, tile)
    if len(tiles) > 1 and not rehearsal.known:
        rehearsal = _of_first_tile(task, problem, tiles, rehearsal, checked)
    storage, together = _storage(problem, list(task.network.parameters), len(tiles))
    coverage: dict[str, str] = {}
    grams: dict[str, list[Tensor]] = {}
    corners: dict[str, Tensor] = {}
    first, count = 0, 1
    while first < count:
        rows = SketchedRows(problem, storage, first)
        some = _SomeDirections(task.directions, first, together)
        outputs = _run(rows, replace(task, directions=some), problem, tiles, rehearsal, coverage)
        for label, found in rows.grams.items():
            grams.setdefault(label, []).extend(found)
        corners = corners or rows.corners
        first, count = first + together, some.count
    stacked = {label: torch.stack(found) for label, found in grams.items()}
    return AllSamples(stacked, corners, outputs, coverage)


def _plan(samples: int, tile: int) -> list[Tensor]:
    """Tiles of equal sizes as far as possible, the last one first: that is where the samples of a rehearsal are."""
    sweeps = -(-samples // tile)
    return list(torch.arange(samples).split(-(-samples // sweeps)))[::-1]


def _of_first_tile(
    task: Task, problem: Problem, tiles: list[Tensor], rehearsal: Rehearsal, checked: bool
) -> Rehearsal:
    """A rehearsal whose samples are in the first tile, in a number that no tile has."""
    sizes, within = {len(picked) for picked in tiles}, rehearsal.chosen - tiles[0][0]
    if len(within) not in sizes and bool((within >= 0).all()):
        return replace(rehearsal, chosen=within)
    few = rehearsed_samples(len(tiles[0]), sizes, checked)
    return rehearse(task.network, problem.at(tiles[0]), few)


def _run(
    rows: SketchedRows,
    task: Task,
    problem: Problem,
    tiles: list[Tensor],
    rehearsal: Rehearsal,
    coverage: dict[str, str],
) -> Tensor:
    """A sweep for each tile; the output of all samples [N, *out]."""
    outputs = []
    for picked in tiles:
        inputs = problem.inputs if len(tiles) == 1 else problem.at(picked)
        rows.begin(picked)
        _, output = sweep_into(lambda *ignored: rows, task, inputs, picked, rehearsal, coverage)
        outputs.append(output)
    return torch.cat(outputs[::-1])


class _SomeDirections:
    """Some of the directions.

    Args:
        every: All of them.
        first: Number of the first one.
        together: At most how many.

    Attributes:
        count: How many there are in all; known once it has been called.
    """

    def __init__(self, every: Directions, first: int, together: int) -> None:
        self._every, self._part = every, slice(first, first + together)
        self.count = 0

    def __call__(self, output: Tensor, picked: Tensor) -> Tensor:
        cotangents = self._every(output, picked)
        self.count = len(cotangents)
        return cotangents[self._part]


def _storage(problem: Problem, names: list[str], tiles: int) -> tuple[RowStorage, int]:
    """Where rows are kept, and of how many probes at a time."""
    assert problem.sketch is not None
    device = problem.inputs[0].device
    storage = RowStorage(
        {name: problem.sketch.length(problem.parameters[name].shape) for name in names},
        problem.samples,
        {name: full_precision(problem.parameters[name].dtype) for name in names},
        device,
    )
    if tiles == 1:  # a probe's rows are contracted before the next probe
        return storage, sys.maxsize
    together = int(ROWS_SHARE * memory_budget(problem.memory, device) // max(1, storage.bytes))
    in_file = together == 0 and device.type == "cpu"
    return replace(storage, in_file=in_file), max(1, together)
