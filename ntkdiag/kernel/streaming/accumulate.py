"""Collects the per-sample gradients of each parameter during one backward and adds their products to the Gram matrix.

A parameter that is used once is contracted at once and its gradients are freed. One that is used more often waits for its
last use: its per-sample gradient is the sum over uses, and the Gram of a sum is not the sum of Grams.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from ntkdiag.kernel.streaming.contraction.contract import Block, add_products, blocks, full_precision, mirror
from ntkdiag.kernel.streaming.contraction.gradients import Dense, Outer, PerSampleGradient
from ntkdiag.kernel.streaming.recording.derived import DerivedParameter, pull_back, sum_over_copies

# Numbers of a sample that are contracted together: adding a matrix [N, N] for each bias would cost more than it. Tuned here.
NARROW = 2048

Uses = list[tuple[DerivedParameter, PerSampleGradient]]


class Accumulator:
    """Gram matrices of one sweep, by parameter group.

    Args:
        names: Parameters the kernel is over.
        uses: Parameter name → how often the forward uses it.
        probes: R.
        samples: m, samples in the sweep.
        group: Parameter name → group label.
        inverse_preconditioner: Parameter name → 1/p, where there is a preconditioner p.
        device: Where gradients arrive.

    Attributes:
        grams: Group label → [R, m, m] float64.
        corners: Parameter name → the products of its gradients for the first and the last sample, [2, 2] (one by one for one
            sample), for the first probe.
    """

    def __init__(
        self,
        names: Iterable[str],
        uses: Counter[str],
        probes: int,
        samples: int,
        group: Callable[[str], str],
        inverse_preconditioner: dict[str, Tensor],
        device: torch.device,
    ) -> None:
        self._labels = {name: group(name) for name in names}
        self._inverse_preconditioner = inverse_preconditioner
        self._uses = uses
        self._uses_left: Counter[str] = Counter()
        self._views: dict[str, Uses] = {}  # gradients of views of a parameter, as the rules formed them
        self._sums: dict[str, Tensor] = {}  # gradients of the parameter itself, summed over uses
        self._narrow: dict[str, list[Tensor]] = {}  # by label, rows that are contracted together
        self._probe = 0
        self._samples = samples
        self.corners: dict[str, Tensor] = {}
        shape = (probes, samples, samples)
        self.grams = {
            label: torch.zeros(shape, dtype=torch.float64, device=device)
            for label in dict.fromkeys(self._labels.values())
        }

    def start(self, probe: int) -> None:
        """Begin the backward of a probe."""
        self._probe = probe
        self._uses_left = Counter(self._uses)

    def add(self, parameter: DerivedParameter, gradient: PerSampleGradient) -> None:
        """Add the per-sample gradients of one use."""
        if parameter.expanded_from is not None:
            parameter, gradient = sum_over_copies(parameter, gradient)
        if parameter.view is not None and not (isinstance(gradient, Dense) and gradient.own is not None):
            self._views.setdefault(parameter.view.parameter, []).append((parameter, gradient))
        else:
            for name, rows in pull_back(parameter, gradient).items():
                self._sums[name] = self._sums[name] + rows if name in self._sums else rows
        for name in parameter.leaves:
            self._uses_left[name] -= 1
            if self._uses_left[name] == 0:
                self._contract(name)

    def finish(self) -> None:
        """End the backward: contract parameters that have uses which the output does not depend on."""
        for name in dict.fromkeys((*self._views, *self._sums)):
            self._contract(name)
        self._finish_waiting()
        for gram in self.grams.values():
            mirror(gram[self._probe])

    def _contract(self, name: str) -> None:
        views, total = self._views.pop(name, []), self._sums.pop(name, None)
        scale = self._inverse_preconditioner.get(name)
        gradient = _joined(views, scale) if total is None else None
        if gradient is None:
            for parameter, part in views:
                rows = pull_back(parameter, part)[name]
                total = rows if total is None else total + rows
            assert total is not None  # a parameter is contracted only once it has a use
            gradient = Dense(total)
        self._take(name, gradient, scale)

    def _take(self, name: str, gradient: PerSampleGradient, scale: Tensor | None) -> None:
        """Contract the per-sample gradients of a parameter."""
        if scale is None and isinstance(gradient, Dense):
            self._join(name, full_precision(gradient.rows.reshape(len(gradient.rows), -1)))
        else:
            self._add_products(name, blocks(gradient, scale))

    def _finish_waiting(self) -> None:
        """Contract what waits."""
        for label in list(self._narrow):
            self._contract_narrow(label)

    def _join(self, name: str, rows: Tensor) -> None:
        """Contract rows [m, elements], short ones together with those of other parameters."""
        if self._probe == 0:
            ends = rows[:: max(1, self._samples - 1)]
            self._add_corner(name, ends @ ends.T)
        waiting = self._narrow.setdefault(self._labels[name], [])
        if waiting and waiting[0].dtype != rows.dtype:
            self._contract_narrow(self._labels[name])
        waiting.append(rows)
        if sum(each.shape[1] for each in waiting) >= NARROW:
            self._contract_narrow(self._labels[name])

    def _contract_narrow(self, label: str) -> None:
        waiting = self._narrow[label]
        if waiting:
            rows = waiting[0] if len(waiting) == 1 else torch.cat(waiting, 1)
            waiting.clear()
            add_products(self.grams[label][self._probe], rows)

    def _add_products(self, name: str, found: Iterable[Block]) -> None:
        """Add Σ G_i · scale · G_j of a parameter, from blocks on and above the diagonal of [m, m]."""
        last = self._samples - 1
        ends = [0, last] if last else [0]
        corner: Tensor | None = None
        for block in found:
            block.add_to(self.grams[self._labels[name]][self._probe])
            if self._probe == 0:
                corner = block.values.new_zeros(len(ends), len(ends)) if corner is None else corner
                for i, row in enumerate(ends):
                    for j, column in enumerate(ends[i:], i):
                        entry = block.at(row, column)
                        if entry is not None:
                            corner[i, j] = corner[j, i] = entry
        if corner is not None:
            self._add_corner(name, corner)

    def _add_corner(self, name: str, corner: Tensor) -> None:
        self.corners[name] = self.corners[name] + corner if name in self.corners else corner


def _joined(uses: Uses, scale: Tensor | None) -> PerSampleGradient | None:
    """All uses as one gradient of the view they share, None if the gradient of the parameter itself must be formed.

    Outer products of the same view are one outer product, over more tokens.
    """
    first, gradient = uses[0]
    assert first.view is not None  # only gradients of views wait to be joined
    if scale is not None and not first.view.in_order:
        return None
    if len(uses) == 1:
        return gradient
    outers = [each for _, each in uses if isinstance(each, Outer)]
    if len(outers) < len(uses) or any(other.view != first.view for other, _ in uses):
        return None
    return Outer(torch.cat([o.left for o in outers], 1), torch.cat([o.right for o in outers], 1))
