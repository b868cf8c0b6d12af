"""The end-to-end check: what an engine finds for two samples, parameter by parameter, against plain autograd.

The engine's numbers are taken from the computation of the kernel itself: g₁·g₁, g₁·g₂ and g₂·g₂ of the first and the last
sample, for the first direction. Autograd calls the module with both samples in the other order, and where that leaves a
doubt with each of the two alone, so that the same forwards also show whether a sample's output depends on its batch. In a
kernel of sketched gradients, autograd's gradients are sketched the same way, and nothing else changes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ntkdiag.kernel.agreement import differs, tolerance_of
from ntkdiag.kernel.guards import require_same
from ntkdiag.kernel.pair import Pair, pair_of
from ntkdiag.kernel.problem import Problem
from ntkdiag.kernel.row_grams import RowGradients, products
from ntkdiag.kernel.sharded import gathering_of
from ntkdiag.kernel.truth import Truth, require_reached, truth_of

# Engine → parameter name → how it differs from plain autograd.
Findings = dict[str, dict[str, str]]
# Names of the parameters that the streaming engine serves → its rehearsal.
Forwards = dict[frozenset[str], Any]


class CheckOnce:
    """Remembers what the checks of one network found, for calls that differ in their data alone.

    The first call of a kind (of directions, of inputs, of parameters) is checked. The others leave the same parameters to
    the same slower engines.

    Example:
        >>> from ntkdiag.kernel import CheckOnce
        >>> once, x = CheckOnce(), torch.randn(4, 2)
        >>> grams = [nd.gram(denoiser, x, log_snr, probes=1, check=once) for log_snr in (-2.0, 2.0)]  # compared in the first
        >>> len(grams)
        2
    """

    def __init__(self) -> None:
        self._findings: dict[object, Findings] = {}
        self._forwards: dict[object, Forwards] = {}

    def check(self, problem: Problem) -> Check:
        """The check for a call; it is active in the first of its kind."""
        kind = self._kind(problem)
        known = kind in self._findings
        forwards = self._forwards.setdefault(self._forward(problem), {})
        return Check(problem, self._findings.setdefault(kind, {}), forwards, active=not known)

    def forget(self, problem: Problem) -> None:
        """Check the next call of this kind once more: this one was given up before it had a result."""
        self._findings.pop(self._kind(problem), None)

    @staticmethod
    def _forward(problem: Problem) -> object:
        shapes = tuple((tensor.shape[1:], tensor.dtype) for tensor in problem.inputs)
        return shapes, tuple(problem.parameters)

    @classmethod
    def _kind(cls, problem: Problem) -> object:
        directions = getattr(problem.directions, "__qualname__", "")
        return directions, cls._forward(problem), problem.sketch is None


class Check:
    """Compares engines with plain autograd.

    Args:
        problem: What is measured.
        findings: What is known of the engines; what is found is added to it.
        forwards: What the streaming engine has found out about the forward in earlier calls; it adds to it.
        active: Whether anything is compared.
    """

    def __init__(
        self,
        problem: Problem,
        findings: Findings | None = None,
        forwards: Forwards | None = None,
        *,
        active: bool = True,
    ) -> None:
        self._problem = problem
        self._findings: Findings = {} if findings is None else findings
        self.forwards: Forwards = {} if forwards is None else forwards
        self.active = active
        self._pair: Pair | None = None  # while all that has been seen agrees with it

    def known(self, engine: str) -> dict[str, str]:
        """Parameter name → how this engine differs from plain autograd there, as far as it is known."""
        return dict(self._findings.get(engine, {}))

    def compare(
        self, engine: str, found: Mapping[str, Tensor], names: list[str], output: Tensor
    ) -> dict[str, str]:
        """Parameters for which an engine differs from plain autograd, with the reason.

        Args:
            engine: Its name.
            found: Parameter name → its products [2, 2]; a missing parameter has the gradient zero.
            names: The parameters that it serves.
            output: What the module returns for the whole batch, [N, *out].

        Raises:
            MeasurementError: see `require_same_output`.
        """
        if not self.active:
            return {}
        if self._problem.samples > 2 and found and len(names) == len(self._problem.parameters):
            self._pair = pair_of(self._problem, found.values())
        self.require_same_output(output)
        if self._agrees(found, lambda squares: squares):
            return {}
        self._pair = None
        wrong = self._differing(found, {name: self._truth.products[name] for name in names})
        self._findings.setdefault(engine, {}).update(wrong)
        return wrong

    def compare_rows(self, engine: str, row_gradients: RowGradients, names: list[str]) -> dict[str, str]:
        """`compare` for an engine that forms row gradients, on the two samples alone."""
        if not (self.active and names):
            return {}
        some, truth = self._problem.only(names), self._truth
        rows = row_gradients(some.module, some.parameters, some.at(self._ends), truth.directions)
        rows = {name: some.measured(name, found, 0) for name, found in rows.items()}
        wrong = self._differing(
            products(rows, rows, some.inverse_preconditioner), {n: truth.products[n] for n in names}
        )
        self._findings.setdefault(engine, {}).update(wrong)
        return wrong

    def compare_groups(self, grams: Mapping[str, Tensor]) -> dict[str, str]:
        """Groups whose whole kernel [R, N, N] differs from plain autograd's, with the reason."""
        if not self.active:
            return {}
        ends = self._ends
        found = {label: gram[0][ends[:, None], ends[None]] for label, gram in grams.items()}
        if self._agrees(found, self._by_group):
            return {}
        return self._differing(found, self._by_group(self._truth.products))

    def require_same_output(self, output: Tensor) -> None:
        """Raise a MeasurementError if the first or the last sample has another output in the batch than alone, or both
        together in the other order."""
        if self.active:
            expected = self._pair.outputs if self._pair else self._truth.outputs
            require_same(output.detach()[self._ends.to(output.device)], expected, "in the output")

    def require_gradient(self) -> None:
        """Raise a MeasurementError if autograd passes no gradient to any of the parameters."""
        unreached = self._pair.unreached if self._pair else self._truth.unreached
        require_reached(unreached, self._problem.parameters)

    def _agrees(
        self, found: Mapping[str, Tensor], of: Callable[[dict[str, Tensor]], dict[str, Tensor]]
    ) -> bool:
        """Whether the cheaper comparison leaves no doubt, in any process: all that have a part of a network go on alike."""
        own = self._pair is not None and self._pair.agrees(found, of(self._pair.squares))
        gathering = gathering_of(self._problem.module)
        return own if gathering is None else not gathering.any_process(not own)

    @cached_property
    def _ends(self) -> Tensor:
        """Positions of the first and the last sample."""
        return torch.tensor(sorted({0, self._problem.samples - 1}))

    @cached_property
    def _truth(self) -> Truth:
        return truth_of(self._problem, self._ends)

    def _by_group(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Sums over the parameters of each group."""
        sums: dict[str, Tensor] = {}
        for name, value in values.items():
            label = self._problem.group(name)
            sums[label] = sums[label] + value if label in sums else value
        return sums

    def _differing(self, found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, str]:
        """Names whose products differ by more than rounding."""
        if not expected:
            return {}
        names = list(expected)
        truth = torch.stack([expected[name] for name in names])
        nothing = torch.zeros(truth.shape[1:], dtype=torch.float64)
        seen = torch.stack([found[name].double().cpu() if name in found else nothing for name in names])
        whole = torch.stack(list(self._truth.products.values())).sum(0)
        problem = self._problem
        allowed = tolerance_of((*problem.parameters.values(), *problem.inputs, self._truth.outputs))
        shares = allowed.excesses((seen - truth).abs(), _norms(truth), _norms(whole))
        return {name: differs(share) for name, share in zip(names, shares, strict=True) if share is not None}


def _norms(entries: Tensor) -> Tensor:
    """√(e_ii e_jj), [..., 2, 2]."""
    sizes = entries.diagonal(dim1=-2, dim2=-1).clamp(min=0).sqrt()
    return sizes[..., :, None] * sizes[..., None, :]
