"""Collects the uses of each parameter during one backward and adds its share to the Gram matrix.

A parameter used once is contracted at once and its gradients are freed. One used more often waits for its last use, because
its per-sample gradient is the sum over uses, and a Gram of sums is not a sum of Grams.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ntkdiag.kernel.streaming.contraction import contract
from ntkdiag.kernel.streaming.forms import Dense, Form, Outer
from ntkdiag.kernel.streaming.sources import Source, to_parameters


class Accumulator:
    """Gram matrices of one sweep, by parameter group.

    Args:
        samples: m, samples in the sweep.
        probes: R.
        uses: Parameter name → how often the forward used it.
        group: Parameter name → group label.
        weights: Parameter name → diagonal preconditioner, where there is one.
        device: Where gradients arrive.
    """

    def __init__(
        self,
        samples: int,
        probes: int,
        uses: dict[str, int],
        group: Callable[[str], str],
        weights: dict[str, Tensor],
        device: torch.device,
    ) -> None:
        self.grams: dict[str, Tensor] = {}
        self._shape = (probes, samples, samples)
        self._uses, self._group, self._weights, self._device = uses, group, weights, device
        self._waiting: dict[str, list[tuple[Source, Form]]] = {}
        self._probe = 0

    def start(self, probe: int) -> None:
        """Begin the backward of a probe."""
        self._probe = probe
        self._waiting.clear()

    def add(self, source: Source, form: Form) -> None:
        """One use's per-sample gradients."""
        for name in source.leaves:
            if self._uses[name] > 1 or len(source.leaves) > 1:
                self._waiting.setdefault(name, []).append((source, form))
                if len(self._waiting[name]) == self._uses[name]:
                    self._finish(name)
            else:
                self._contract_alone(name, source, form)

    def finish(self) -> None:
        """End of the backward: parameters some of whose uses the output does not depend on."""
        for name in list(self._waiting):
            self._finish(name)

    def _contract_alone(self, name: str, source: Source, form: Form) -> None:
        preserved = source.geometry is not None and not (isinstance(form, Dense) and form.rowwise is not None)
        weight = self._weights.get(name)
        if preserved and (weight is None or source.geometry.whole):  # type: ignore[union-attr]
            self._put(name, contract(form, weight))
        else:
            self._put(name, contract(Dense(to_parameters(source, form)[name]), weight))

    def _finish(self, name: str) -> None:
        uses = self._waiting.pop(name)
        joined = _joined(uses)
        if joined is None:
            total: Tensor | None = None
            for source, form in uses:
                rows = to_parameters(source, form)[name]
                total = rows if total is None else total + rows
            assert total is not None  # a parameter waits only once it has a use
            joined = Dense(total)
            self._put(name, contract(joined, self._weights.get(name)))
        else:
            self._contract_alone(name, uses[0][0], joined)

    def _put(self, name: str, gram: Tensor) -> None:
        label = self._group(name)
        if label not in self.grams:
            self.grams[label] = torch.zeros(self._shape, dtype=torch.float64, device=self._device)
        self.grams[label][self._probe] += gram


def _joined(uses: list[tuple[Source, Form]]) -> Outer | None:
    """Several outer products of the same view of one parameter are one, over more tokens."""
    geometry = uses[0][0].geometry
    outers = [form for _, form in uses if isinstance(form, Outer)]
    if geometry is None or len(outers) < len(uses) or any(source.geometry != geometry for source, _ in uses):
        return None
    return Outer(torch.cat([o.left for o in outers], 1), torch.cat([o.right for o in outers], 1))
