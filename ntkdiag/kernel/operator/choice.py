"""Chooses how J u and Jᵀ v are computed: the cheapest ways that agree with the reference on its two samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from ntkdiag.errors import MeasurementError, NtkdiagError, first_line
from ntkdiag.kernel.operator.network import Network, Tangent
from ntkdiag.kernel.operator.probes import fault_of_push, probes_of
from ntkdiag.kernel.operator.products import OF_REVERSE, PULLS, PUSHES, REVERSE
from ntkdiag.kernel.operator.reference import Reference, reference_for

# Vectors that J u is tried with where reverse mode has been found wrong, tuned here: bfloat16 leaves much room for errors.
SUSPICIOUS = 8

Method = TypeVar("Method")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Choice:
    """Names of the methods, in `PUSHES` and `PULLS`.

    Attributes:
        push: For J u.
        pull: For Jᵀ v.
        passed_over: Product and method → why it is not used.
    """

    push: str
    pull: str
    passed_over: dict[str, str]


def choose(network: Network, reference: Reference) -> Choice:
    """The first method for Jᵀ v that finds the gradients of the reference, and the first for J u that is adjoint to them.

    Without gradients in the reference, the first method for Jᵀ v that works stands for them.

    Raises:
        MeasurementError: no method agrees, or the output has no gradient to any parameter.
    """
    vectors = reference.vectors
    # all of two samples have a graph that is kept
    positions = network.everything if len(network.everything) <= 2 else reference.positions
    over: dict[str, str] = {}

    def fault_of_pull(pulled: Tangent) -> str | None:
        return reference.fault_of_pull(pulled) if reference.gradients else None

    pull, pulled = _first("Jᵀ v", PULLS, lambda way: way(network, positions, vectors), fault_of_pull, over)
    if not reference.gradients:
        if not any(part.any() for part in pulled):
            reference_for(network)  # raises if it is because there are no gradients
        reference = reference.with_sum(pulled)
    probes = probes_of(reference, 1 if pull == REVERSE else SUSPICIOUS)

    def fault_of_pushes(pushed: list[Tensor]) -> str | None:
        faults = (fault_of_push(one, probe, reference) for one, probe in zip(pushed, probes, strict=True))
        return next((fault for fault in faults if fault is not None), None)

    push, _ = _first(
        "J u",
        PUSHES if pull == REVERSE else {name: way for name, way in PUSHES.items() if name not in OF_REVERSE},
        lambda way: [way(network, positions, probe.tangent) for probe in probes],
        fault_of_pushes,
        over,
    )
    return Choice(push, pull, over)


def _first(
    product: str,
    methods: Mapping[str, Method],
    attempt: Callable[[Method], Result],
    fault: Callable[[Result], str | None],
    passed_over: dict[str, str],
) -> tuple[str, Result]:
    """Name and result of the first method that neither fails nor differs; the reasons of those before it are noted."""
    reasons: dict[str, str] = {}
    for name, method in methods.items():
        try:
            found = attempt(method)
        except (torch.OutOfMemoryError, NtkdiagError):
            raise
        except RuntimeError as error:  # an operation without this kind of derivative
            reasons[name] = first_line(error)
            continue
        reason = fault(found)
        if reason is None:
            passed_over |= {f"{product} by {other}": why for other, why in reasons.items()}
            return name, found
        reasons[name] = reason
    said = "; ".join(f"{name} {why}" for name, why in reasons.items())
    raise MeasurementError(
        f"operator: expected a way to compute {product} that agrees with plain autograd for two samples; got {said}. Look "
        "for a root or a norm at zero, and for random numbers."
    )
