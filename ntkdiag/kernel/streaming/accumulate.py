"""Collects the uses of each parameter during one backward and adds its share to the Gram matrix.

A parameter used once is contracted at once and its gradients are freed. One used more often waits for its last use, because
its per-sample gradient is the sum over uses, and a Gram of sums is not a sum of Grams.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from ntkdiag.kernel.streaming.contraction.contract import contract
from ntkdiag.kernel.streaming.contraction.gradients import Dense, Outer, PerSampleGradient
from ntkdiag.kernel.streaming.recording.derived import DerivedParameter, StridedView, gathered, pull_back


class Accumulator:
    """Gram matrices of one sweep, by parameter group.

    Args:
        names: Parameters the kernel is over.
        uses: Parameter name → how often the forward used it.
        probes: R.
        samples: m, samples in the sweep.
        group: Parameter name → group label.
        weights: Parameter name → positive factors of its elements, where there are any.
        device: Where gradients arrive.

    Attributes:
        grams: Group label → [R, m, m] float64.
    """

    def __init__(
        self,
        names: Iterable[str],
        uses: Counter[str],
        probes: int,
        samples: int,
        group: Callable[[str], str],
        weights: dict[str, Tensor],
        device: torch.device,
    ) -> None:
        self._labels = {name: group(name) for name in names}
        self._weights = weights
        self._uses = uses
        self._due: Counter[str] = Counter()
        self._shown: dict[str, list[tuple[DerivedParameter, StridedView, PerSampleGradient]]] = {}
        self._sums: dict[str, Tensor] = {}
        self._probe = 0
        shape = (probes, samples, samples)
        self.grams = {
            label: torch.zeros(shape, dtype=torch.float64, device=device)
            for label in dict.fromkeys(self._labels.values())
        }

    def start(self, probe: int) -> None:
        """Begin the backward of a probe."""
        self._probe = probe
        self._due = Counter(self._uses)

    def add(self, source: DerivedParameter, form: PerSampleGradient) -> None:
        """One use's per-sample gradients."""
        source, form = gathered(source, form)
        own = isinstance(form, Dense) and form.own is not None
        if source.geometry is not None and not own:
            self._shown.setdefault(source.geometry.parameter, []).append((source, source.geometry, form))
        else:
            for name, rows in pull_back(source, form).items():
                self._sums[name] = self._sums[name] + rows if name in self._sums else rows
        for name in source.leaves:
            self._due[name] -= 1
            if self._due[name] == 0:
                self._contract(name)

    def finish(self) -> None:
        """End of the backward: parameters some of whose uses the output does not depend on."""
        for name in {*self._shown, *self._sums}:
            self._contract(name)

    def _contract(self, name: str) -> None:
        shown, total, weight = self._shown.pop(name, []), self._sums.pop(name, None), self._weights.get(name)
        form = _joined([(geometry, form) for _, geometry, form in shown], weight) if total is None else None
        if form is None:
            for source, _, part in shown:
                rows = pull_back(source, part)[name]
                total = rows if total is None else total + rows
            assert total is not None  # a parameter is contracted only once it has a use
            form = Dense(total)
        self.grams[self._labels[name]][self._probe] += contract(form, weight)


def _joined(
    uses: list[tuple[StridedView, PerSampleGradient]], weight: Tensor | None
) -> PerSampleGradient | None:
    """All uses as one form of the elements they show, None if the parameter's own gradients must be formed.

    Outer products of the same view of a parameter are one, over more tokens.
    """
    geometry, form = uses[0]
    if weight is not None and not geometry.in_order:
        return None
    if len(uses) == 1:
        return form
    outers = [each for _, each in uses if isinstance(each, Outer)]
    if len(outers) < len(uses) or any(other != geometry for other, _ in uses):
        return None
    return Outer(torch.cat([o.left for o in outers], 1), torch.cat([o.right for o in outers], 1))
