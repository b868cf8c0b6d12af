"""Collects the sketched gradients of all samples, tile after tile, and contracts them when every sample has run.

A sketch is linear: the uses of a parameter are sketched by themselves as they arrive, and added up.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ntkdiag.kernel.problem import Problem
from ntkdiag.kernel.sketch import Projection
from ntkdiag.kernel.streaming.contraction.contract import add_products, fill_below
from ntkdiag.kernel.streaming.contraction.gradients import Dense, Outer, PerSampleGradient
from ntkdiag.kernel.streaming.contraction.sketched import sketched
from ntkdiag.kernel.streaming.recording.derived import (
    DerivedParameter,
    StridedView,
    pull_back,
    sum_over_copies,
)
from ntkdiag.kernel.streaming.row_storage import RowStorage
from ntkdiag.kernel.streaming.shared import columns_of_all


class SketchedRows:
    """Rows of some probes.

    Args:
        problem: What is measured, with a sketch.
        storage: Makes the rows of a probe.
        first: Number of the first of these probes.

    Attributes:
        grams: Group label → the Gram matrix of each finished probe, [N, N] float64 on the CPU; of several processes, each
            has a part of the sum.
        corners: Parameter name → the products of its rows for the first and the last sample, [2, 2] (one by one for one
            sample), for the first probe of all; a part of the sum as well.
    """

    def __init__(self, problem: Problem, storage: RowStorage, first: int) -> None:
        assert problem.sketch is not None  # the engine makes them only for a sketch
        self._problem, self._sketch = problem, problem.sketch
        self._storage, self._first = storage, first
        self._rows: dict[int, dict[str, Tensor]] = {}
        self._projections: dict[str, Projection] = {}
        self._tile = slice(0)
        self._samples_left = problem.samples
        self._probe = first
        self.grams: dict[str, list[Tensor]] = {}
        self.corners: dict[str, Tensor] = {}

    def begin(self, picked: Tensor) -> None:
        """Begin a tile: the samples at these positions, which follow each other."""
        self._tile = slice(int(picked[0]), int(picked[-1]) + 1)
        self._samples_left -= len(picked)

    def start(self, probe: int) -> None:
        """Begin the backward of a probe."""
        self._probe = self._first + probe
        if self._probe not in self._rows:
            self._rows[self._probe] = self._storage.make()

    def add(self, parameter: DerivedParameter, gradient: PerSampleGradient) -> None:
        """Add the sketch of one use."""
        if parameter.expanded_from is not None:
            parameter, gradient = sum_over_copies(parameter, gradient)
        kept = self._rows[self._probe]
        for name, rows in self._sketched(parameter, gradient).items():
            kept[name][self._tile] += rows

    def finish(self) -> None:
        """End the backward; after the last tile, contract the rows of the probe."""
        self._projections.clear()
        if self._samples_left == 0:
            self._contract(self._rows.pop(self._probe))

    def _sketched(self, parameter: DerivedParameter, gradient: PerSampleGradient) -> dict[str, Tensor]:
        view = parameter.view
        own = isinstance(gradient, Dense) and gradient.own is not None
        if view is not None and not own:
            leaf, projection = parameter.leaves[view.parameter], self._projection(view.parameter)
            if view.in_order:
                return {view.parameter: sketched(gradient, projection)}
            block = None if projection.whole else _block(view, leaf, projection)
            if block is not None and isinstance(gradient, Outer):
                turned, part = block
                shown = Outer(gradient.right, gradient.left) if turned else gradient
                return {view.parameter: sketched(shown, part)}
        found = pull_back(parameter, gradient)
        return {name: sketched(Dense(rows), self._projection(name)) for name, rows in found.items()}

    def _projection(self, name: str) -> Projection:
        if name not in self._projections:
            self._projections[name] = self._sketch.of(name, self._problem.parameters[name], self._probe)
        return self._projections[name]

    def _contract(self, kept: dict[str, Tensor]) -> None:
        share, group = self._problem.share, self._problem.group
        samples = self._problem.samples if share is None else share.samples
        found: dict[str, Tensor] = {}
        for name, rows in kept.items() if share is None else columns_of_all(kept, share):
            if self._probe == 0:
                ends = rows[:: max(1, samples - 1)]
                self.corners[name] = ends @ ends.T
            label = group(name)
            if label not in found:
                found[label] = torch.zeros(samples, samples, dtype=torch.float64, device=rows.device)
            add_products(found[label], rows)
        for label, gram in found.items():
            fill_below(gram)
            self.grams.setdefault(label, []).append(gram.cpu())


def _block(view: StridedView, leaf: Tensor, projection: Projection) -> tuple[bool, Projection] | None:
    """Where a matrix that shows a part of a parameter lies in it: whether it is turned, and the projection of that part.

    None for any other arrangement than some rows and some columns of the parameter.
    """
    if len(view.size) != 2 or not leaf.is_contiguous():
        return None
    steps = [0 if size == 1 else stride for size, stride in zip(view.size, view.stride, strict=True)]
    width = projection.matrix[1]
    row, column = divmod(view.offset, width)
    for turned in (False, True):
        down, across = (
            (1, 0) if turned else (0, 1)
        )  # which dimension of the view runs down the parameter's rows
        last = column + (view.size[across] - 1) * steps[across]
        if steps[down] % width == 0 and last < width:
            rows = torch.arange(view.size[down], device=leaf.device) * (steps[down] // width) + row
            columns = torch.arange(view.size[across], device=leaf.device) * steps[across] + column
            return turned, projection.at(rows, columns)
    return None
